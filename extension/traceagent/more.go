package traceagent

import "github.com/initprof/initprof/extension/protobuf"

// More returns, once, what the aws.lambda span of a request carries besides what
// its tracer said: AppSec's findings.
type More func(requestID string) (meta map[string]string, metrics map[string]float64)

// add appends what more has for the span. A later entry of a map takes the place
// of an earlier one.
func (s *span) add(more More) {
	if more == nil || s.name != "aws.lambda" || s.request == "" {
		return
	}
	meta, metrics := more(s.request)
	for key, value := range meta {
		s.encoded = protobuf.AppendEntry(s.encoded, 10, key, value)
	}
	for key, value := range metrics {
		if key == "_sampling_priority_v1" {
			s.priority = value
		}
		s.encoded = protobuf.AppendDoubleEntry(s.encoded, 11, key, value)
	}
}
