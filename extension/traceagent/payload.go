package traceagent

import (
	"errors"
	"fmt"
	"math"

	"github.com/initprof/initprof/extension/protobuf"
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

// Limits on payloads. The intake takes some 3 MB (the agent's own limit is 3.2
// MB) to 15 MB. In v0.5 a few bytes stand for a word of any length, so that what
// comes out of a body is not bounded by what went in.
const (
	maxPayload = 3 << 20  // what an AgentPayload is filled to
	maxChunk   = 10 << 20 // one trace
	maxDecoded = 64 << 20 // all traces of one body
)

var errTrace = errors.New("a trace of more than 10 MB")

// encoder fills AgentPayloads (datadog/trace/agent_payload.proto of the Datadog
// agent).
type encoder struct {
	id     Identity
	emit   func(body []byte)
	client Client
	chunks []byte // of the TracerPayload that is being filled, encoded
	body   []byte // TracerPayloads that are complete
}

// Encode calls emit with AgentPayloads of what tracers sent. Payloads that cannot
// be decoded are left out; the error says how many, and why the first. The bodies
// are let go of on the way.
func Encode(payloads []Payload, id Identity, emit func(body []byte)) error {
	e := &encoder{id: id, emit: emit}
	bad := 0
	var first error
	for i := range payloads {
		p := &payloads[i]
		chunks, err := decode(p, id.More)
		p.Body = nil
		if err != nil {
			if bad++; first == nil {
				first = err
			}
			continue
		}
		for _, chunk := range chunks {
			e.add(p.Client, chunk)
		}
	}
	e.close()
	if bad > 0 {
		return fmt.Errorf("%d payloads of %d: %w", bad, len(payloads), first)
	}
	return nil
}

func (e *encoder) add(client Client, chunk []byte) {
	if len(e.body)+len(e.chunks)+len(chunk) > maxPayload {
		e.close()
	}
	if client != e.client {
		e.tracer()
		e.client = client
	}
	e.chunks = protobuf.AppendBytes(e.chunks, 6, chunk)
}

// tracer ends a TracerPayload (datadog/trace/tracer_payload.proto).
func (e *encoder) tracer() {
	if len(e.chunks) == 0 {
		return
	}
	b := protobuf.AppendText(nil, 2, e.client.Language)
	b = protobuf.AppendText(b, 3, e.client.LanguageVersion)
	b = protobuf.AppendText(b, 4, e.client.Tracer)
	b = append(b, e.chunks...)
	if e.id.Tags != "" {
		b = protobuf.AppendEntry(b, 7, "_dd.tags.function", e.id.Tags)
	}
	b = protobuf.AppendText(b, 8, e.id.Env)
	b = protobuf.AppendText(b, 10, e.id.Version)
	e.body = protobuf.AppendBytes(e.body, 5, b)
	e.chunks = e.chunks[:0]
}

func (e *encoder) close() {
	e.tracer()
	if len(e.body) == 0 {
		return
	}
	e.body = protobuf.AppendText(e.body, 2, e.id.Env)
	e.emit(protobuf.AppendText(e.body, 7, AgentVersion))
	e.body = nil
}

// decode makes the TraceChunks of a body.
func decode(p *Payload, more More) (chunks [][]byte, err error) {
	r := &reader{data: p.Body, stats: !p.Client.ComputedStats, more: more}
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
	traces, err := r.array()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", p.Version, err)
	}
	size := 0
	for range traces {
		chunk, err := r.chunk(p.Version, words)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p.Version, err)
		}
		if size += len(chunk); size > maxDecoded {
			return nil, fmt.Errorf("%s: %d bytes become more than %d", p.Version, len(p.Body), maxDecoded)
		}
		if chunk != nil {
			chunks = append(chunks, chunk)
		}
	}
	return chunks, nil
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
func (r *reader) chunk(version string, words []string) ([]byte, error) {
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
		s.add(r.more)
		if r.stats {
			s.encoded = protobuf.AppendEntry(s.encoded, 10, "_dd.compute_stats", "1")
		}
		if spans = protobuf.AppendBytes(spans, 3, s.encoded); len(spans) > maxChunk {
			return nil, errTrace
		}
		if s.priority != noPriority && (!fromRoot || s.root) {
			priority, fromRoot = s.priority, s.root
		}
		if s.origin != "" {
			origin = s.origin
		}
	}
	b := protobuf.AppendVarint(nil, 1, uint64(int64(priority)))
	b = protobuf.AppendText(b, 2, origin)
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
		s.encoded = protobuf.AppendText(s.encoded, field, v)
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
			if s.encoded = protobuf.AppendEntry(s.encoded, field, key, value); len(s.encoded) > maxChunk {
				return errTrace
			}
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
			if s.encoded = protobuf.AppendDoubleEntry(s.encoded, field, key, value); len(s.encoded) > maxChunk {
				return errTrace
			}
		}
		return nil
	}
	v, _, err := r.number()
	if field == 6 {
		s.root = v == 0
	}
	s.encoded = protobuf.AppendVarint(s.encoded, field, v)
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
		s.encoded = protobuf.AppendEntry(s.encoded, 13, key, value)
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
				link = protobuf.AppendVarint(link, number, v)
			case key == "tracestate":
				var v string
				v, err = r.text()
				link = protobuf.AppendText(link, 5, v)
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
					link = protobuf.AppendEntry(link, 4, k, v)
				}
			default:
				err = r.skip(0)
			}
			if err != nil {
				return err
			}
		}
		s.encoded = protobuf.AppendBytes(s.encoded, 14, link)
	}
	return nil
}
