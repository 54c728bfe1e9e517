package traceagent

import (
	"errors"
	"fmt"
	"math"
)

// AgentVersion is what payloads say of their sender. Intakes expect a version
// of the agent whose formats it speaks.
const AgentVersion = "7.60.0"

// Identity is what a payload says of the function besides its spans.
type Identity struct {
	Env, Version string
	Tags         string // "key:value,key:value", for _dd.tags.function
	More         More   // may be nil
}

// span is one span on its way from MessagePack to protocol buffers: the fields
// that decide about its chunk, and the rest, encoded.
type span struct {
	encoded  []byte
	root     bool
	priority float64
	origin   string
	name     string
	request  string // request_id of its meta
}

const noPriority = -128 // sampler.PriorityNone of the agent

// Encode makes an AgentPayload (datadog/trace/agent_payload.proto of the
// Datadog agent) of what tracers sent. Payloads that cannot be decoded are left
// out, and named in the error; body is nil if nothing is left.
func Encode(payloads []Payload, id Identity) (body []byte, err error) {
	var errs []error
	for i := range payloads {
		tracer, err := encodeTracer(&payloads[i], id)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		body = appendBytes(body, 5, tracer)
	}
	if body == nil {
		return nil, errors.Join(errs...)
	}
	body = appendText(body, 2, id.Env)
	body = appendText(body, 7, AgentVersion)
	return body, errors.Join(errs...)
}

// encodeTracer makes a TracerPayload (datadog/trace/tracer_payload.proto).
func encodeTracer(p *Payload, id Identity) ([]byte, error) {
	r := &reader{p.Body}
	var words []string
	if p.Version == "v0.5" {
		n, err := r.array()
		if err == nil && n != 2 {
			err = fmt.Errorf("%d elements instead of 2", n)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Version, err)
		}
		if words, err = r.words(); err != nil {
			return nil, fmt.Errorf("%s: dictionary: %w", p.Version, err)
		}
	}
	var b []byte
	b = appendText(b, 2, p.Language)
	b = appendText(b, 3, p.LanguageVersion)
	b = appendText(b, 4, p.Tracer)
	traces, err := r.array()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Version, err)
	}
	for range traces {
		chunk, err := r.chunk(p.Version, words, id)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Version, err)
		}
		if chunk != nil {
			b = appendBytes(b, 6, chunk)
		}
	}
	if id.Tags != "" {
		b = appendEntry(b, 7, "_dd.tags.function", id.Tags)
	}
	b = appendText(b, 8, id.Env)
	b = appendText(b, 10, id.Version)
	return b, nil
}

func (r *reader) words() ([]string, error) {
	n, err := r.array()
	if err != nil {
		return nil, err
	}
	var words []string
	for range n {
		w, err := r.text()
		if err != nil {
			return nil, err
		}
		words = append(words, w)
	}
	return words, nil
}

// chunk makes a TraceChunk of one trace. Its priority and origin are those of
// the root, or of whichever span has one.
func (r *reader) chunk(version string, words []string, id Identity) ([]byte, error) {
	n, err := r.array()
	if err != nil || n == 0 {
		return nil, err
	}
	var spans []byte
	priority, origin, fromRoot := float64(noPriority), "", false
	for range n {
		var s span
		if version == "v0.5" {
			s, err = r.spanV5(words)
		} else {
			s, err = r.spanV4()
		}
		if err != nil {
			return nil, err
		}
		s.add(id.More)
		spans = appendBytes(spans, 3, s.encoded)
		if s.priority != noPriority && (!fromRoot || s.root) {
			priority, fromRoot = s.priority, s.root
		}
		if s.origin != "" {
			origin = s.origin
		}
	}
	b := appendVarint(nil, 1, uint64(int64(priority)))
	b = appendText(b, 2, origin)
	return append(b, spans...), nil
}

// Fields of datadog/trace/span.proto, in the order in which v0.5 has them.
var spanFields = [12]string{
	"service", "name", "resource", "trace_id", "span_id", "parent_id",
	"start", "duration", "error", "meta", "metrics", "type",
}

func (r *reader) spanV5(words []string) (s span, err error) {
	n, err := r.array()
	if err == nil && n != len(spanFields) {
		err = fmt.Errorf("a span of %d fields instead of %d", n, len(spanFields))
	}
	if err != nil {
		return s, err
	}
	word := func() (string, error) {
		i, _, err := r.number()
		if err != nil {
			return "", err
		}
		if i >= uint64(len(words)) {
			return "", fmt.Errorf("word %d of a dictionary of %d", i, len(words))
		}
		return words[i], nil
	}
	s.priority = noPriority
	for i := range spanFields {
		if err := r.field(&s, i+1, word); err != nil {
			return s, fmt.Errorf("%s: %w", spanFields[i], err)
		}
	}
	return s, nil
}

func (r *reader) spanV4() (s span, err error) {
	n, err := r.mapping()
	if err != nil {
		return s, err
	}
	s.priority, s.root = noPriority, true
	for range n {
		key, err := r.text()
		if err != nil {
			return s, err
		}
		field := 0
		for i, name := range spanFields {
			if key == name {
				field = i + 1
			}
		}
		switch {
		case field != 0:
			err = r.field(&s, field, r.text)
		case key == "meta_struct":
			err = r.metaStruct(&s)
		case key == "span_links":
			err = r.links(&s)
		default:
			err = r.skip(0)
		}
		if err != nil {
			return s, fmt.Errorf("%s: %w", key, err)
		}
	}
	return s, nil
}

// field reads the field of that number, whose strings text reads.
func (r *reader) field(s *span, field int, text func() (string, error)) error {
	switch field {
	case 1, 2, 3, 12:
		v, err := text()
		if field == 2 {
			s.name = v
		}
		s.encoded = appendText(s.encoded, field, v)
		return err
	case 10:
		n, err := r.mapping()
		if err != nil {
			return err
		}
		for range n {
			key, err := text()
			if err != nil {
				return err
			}
			value, err := text()
			if err != nil {
				return err
			}
			switch key {
			case "_dd.origin":
				s.origin = value
			case "request_id":
				s.request = value
			}
			s.encoded = appendEntry(s.encoded, field, key, value)
		}
		return nil
	case 11:
		n, err := r.mapping()
		if err != nil {
			return err
		}
		for range n {
			key, err := text()
			if err != nil {
				return err
			}
			_, value, err := r.number()
			if err != nil {
				return err
			}
			if key == "_sampling_priority_v1" && math.Abs(value) < 100 {
				s.priority = value
			}
			s.encoded = appendDoubleEntry(s.encoded, field, key, value)
		}
		return nil
	}
	v, _, err := r.number()
	if field == 6 {
		s.root = v == 0
	}
	s.encoded = appendVarint(s.encoded, field, v)
	return err
}

func (r *reader) metaStruct(s *span) error {
	n, err := r.mapping()
	if err != nil {
		return err
	}
	for range n {
		key, err := r.text()
		if err != nil {
			return err
		}
		value, err := r.bytes()
		if err != nil {
			return err
		}
		s.encoded = appendEntry(s.encoded, 13, key, value)
	}
	return nil
}

// links reads span links; their identifiers are numbers.
func (r *reader) links(s *span) error {
	n, err := r.array()
	if err != nil {
		return err
	}
	for range n {
		var link []byte
		fields, err := r.mapping()
		if err != nil {
			return err
		}
		for range fields {
			key, err := r.text()
			if err != nil {
				return err
			}
			number := map[string]int{"trace_id": 1, "trace_id_high": 2, "span_id": 3, "flags": 6}[key]
			switch {
			case number != 0:
				var v uint64
				v, _, err = r.number()
				link = appendVarint(link, number, v)
			case key == "tracestate":
				var v string
				v, err = r.text()
				link = appendText(link, 5, v)
			case key == "attributes":
				var entries int
				if entries, err = r.mapping(); err != nil {
					return err
				}
				for range entries {
					k, err := r.text()
					if err != nil {
						return err
					}
					v, err := r.text()
					if err != nil {
						return err
					}
					link = appendEntry(link, 4, k, v)
				}
			default:
				err = r.skip(0)
			}
			if err != nil {
				return err
			}
		}
		s.encoded = appendBytes(s.encoded, 14, link)
	}
	return nil
}
