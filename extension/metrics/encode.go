package metrics

import (
	"encoding/binary"
	"strconv"

	"github.com/initprof/initprof/extension/protobuf"
)

// Sizes of the bodies. /api/v2/series takes 512,000 bytes compressed (Datadog
// API reference, "Submit metrics"): bodies that are smaller than that before
// compression always fit. /api/beta/sketches takes more; memory is the limit.
const (
	maxSeriesBody   = 480 << 10
	maxSketchesBody = 1 << 20
)

// Series calls emit with bodies of POST /api/v2/series: JSON; tags are added to
// those of each point. (Datadog API reference, "Submit metrics" v2: type 1 is a
// count, 3 a gauge.)
func (b *Batch) Series(tags []string, emit func(body []byte)) {
	const head, tail = `{"series":[`, `]}`
	common := appendTags(nil, tags)
	body := []byte(head)
	var one []byte
	for i := range b.Points {
		one = b.Points[i].appendJSON(one[:0], common)
		if len(body) > len(head) {
			if len(body)+1+len(one)+len(tail) > maxSeriesBody {
				emit(append(body, tail...))
				body = []byte(head)
			} else {
				body = append(body, ',')
			}
		}
		body = append(body, one...)
	}
	if len(body) > len(head) {
		emit(append(body, tail...))
	}
}

func (p *Point) appendJSON(b, common []byte) []byte {
	b = appendString(append(b, `{"metric":`...), p.Name)
	if p.Type == Count {
		b = append(b, `,"type":1,"interval":`...)
		b = strconv.AppendInt(b, p.Interval, 10)
	} else {
		b = append(b, `,"type":3`...)
	}
	b = append(b, `,"points":[{"timestamp":`...)
	b = strconv.AppendInt(b, p.Time, 10)
	b = append(b, `,"value":`...)
	b = strconv.AppendFloat(b, p.Value, 'g', -1, 64)
	b = append(b, `}],"tags":[`...)
	b = appendTags(b, p.Tags)
	if len(p.Tags) > 0 && len(common) > 0 {
		b = append(b, ',')
	}
	return append(append(b, common...), "]}"...)
}

// Sketches calls emit with bodies of POST /api/beta/sketches: SketchPayload
// messages (agent_payload.proto of DataDog/agent-payload), which is how the
// Datadog agent submits distributions. The documented way for clients without
// sketches, /api/v1/distribution_points, takes raw values: it has no room for
// sample rates, and its bodies grow with the number of observations.
func (b *Batch) Sketches(tags []string, emit func(body []byte)) {
	var common, body, one []byte
	for _, tag := range tags {
		common = protobuf.AppendBytes(common, 4, tag)
	}
	for i := range b.distributions {
		d := &b.distributions[i]
		one = protobuf.AppendText(one[:0], 1, d.name)
		for _, tag := range d.tags {
			one = protobuf.AppendBytes(one, 4, tag)
		}
		one = append(one, common...)
		one = protobuf.AppendBytes(one, 7, d.sketch.dogsketch(d.time))
		if len(body) > 0 && len(body)+len(one) > maxSketchesBody {
			emit(body)
			body = nil
		}
		body = protobuf.AppendBytes(body, 1, one)
	}
	if len(body) > 0 {
		emit(body)
	}
}

// dogsketch is a SketchPayload.Sketch.Dogsketch.
func (s *sketch) dogsketch(at int64) []byte {
	var keys, counts []byte
	for _, b := range s.bins {
		keys = binary.AppendUvarint(keys, uint64(uint32(int32(b.key)<<1^int32(b.key)>>31))) // sint32
		counts = binary.AppendUvarint(counts, uint64(b.n))
	}
	b := protobuf.AppendVarint(nil, 1, uint64(at))
	b = protobuf.AppendVarint(b, 2, uint64(s.count))
	b = protobuf.AppendDouble(b, 3, s.min)
	b = protobuf.AppendDouble(b, 4, s.max)
	b = protobuf.AppendDouble(b, 5, s.sum/float64(s.count))
	b = protobuf.AppendDouble(b, 6, s.sum)
	b = protobuf.AppendBytes(b, 7, keys)
	return protobuf.AppendBytes(b, 8, counts)
}

func appendTags(b []byte, tags []string) []byte {
	for i, tag := range tags {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, tag)
	}
	return b
}

// appendString appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
