// Package lifecycle is the end point on 127.0.0.1:8124 that Datadog's libraries
// in the function call around each invocation, so that the extension makes the
// aws.lambda span and hands its trace context to the function's own spans.
package lifecycle

import (
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/initprof/initprof/extension/listener"
	"github.com/initprof/initprof/extension/logging"
)

// maxBody bounds an event's payload: Lambda's own limit is 6 MB.
const maxBody = 8 << 20

// Headers of Datadog's trace context.
const (
	headerTrace    = "X-Datadog-Trace-Id"
	headerParent   = "X-Datadog-Parent-Id"
	headerSpan     = "X-Datadog-Span-Id"
	headerPriority = "X-Datadog-Sampling-Priority"
	headerError    = "X-Datadog-Invocation-Error"
	headerRequest  = "Lambda-Runtime-Aws-Request-Id" // newer libraries send it
)

// Span is the span of an invocation.
type Span struct {
	TraceID, SpanID, ParentID uint64
	Priority                  int
	Start                     time.Time
	Duration                  time.Duration
	Error                     bool
	RequestID                 string
	ErrorMessage, ErrorType   string
}

// Hooks connect a server with the rest of the extension.
type Hooks struct {
	Request func() string // identifier of the invocation under way
	Done    func(Span)    // takes the span of each invocation that ended
	// Inspect is handed the event of each invocation, and what it returns the
	// function's answer. It may be nil, and so may what it returns.
	Inspect func(event []byte) (finish func(requestID string, answer []byte))
}

// Server listens until it is closed.
type Server struct {
	listener.HTTP

	hooks Hooks
	log   *logging.Logger

	mu      sync.Mutex
	current *Span
	finish  func(requestID string, answer []byte)
}

// Listen binds the address and serves it.
func Listen(address string, hooks Hooks, log *logging.Logger) (*Server, error) {
	s := &Server{hooks: hooks, log: log}
	if err := s.Listen(address, s, log); err != nil {
		return nil, fmt.Errorf("lifecycle: %w", err)
	}
	return s, nil
}

// ServeHTTP answers a library.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/lambda/hello":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, "{}")
	case "/lambda/start-invocation", "/lambda/end-invocation":
		if r.Method != http.MethodPost {
			http.Error(w, "POST", http.StatusMethodNotAllowed)
			return
		}
		body, err := s.Body(w, r, maxBody)
		if err != nil {
			s.Refuse(w, r, err)
			return
		}
		if strings.HasSuffix(r.URL.Path, "/start-invocation") {
			s.start(w, r.Header, body)
		} else {
			s.end(w, r.Header, body)
		}
	default:
		http.NotFound(w, r)
	}
}

// start begins the span of an invocation. Its context is that of the request's
// headers, else that in the event's, else a new one.
func (s *Server) start(w http.ResponseWriter, header http.Header, event []byte) {
	span := &Span{Start: time.Now(), SpanID: id(), Priority: 1}
	get := header.Get
	if header.Get(headerTrace) == "" {
		get = headersOf(event)
	}
	if trace, err := strconv.ParseUint(get(headerTrace), 10, 64); err == nil && trace != 0 {
		span.TraceID = trace
		span.ParentID, _ = strconv.ParseUint(get(headerParent), 10, 64)
		if p, err := strconv.Atoi(get(headerPriority)); err == nil {
			span.Priority = p
		}
	} else {
		span.TraceID = id()
	}
	var finish func(string, []byte)
	if s.hooks.Inspect != nil {
		finish = s.hooks.Inspect(event)
	}
	s.mu.Lock()
	s.current, s.finish = span, finish
	s.mu.Unlock()
	w.Header().Set(headerTrace, strconv.FormatUint(span.TraceID, 10))
	w.Header().Set(headerParent, strconv.FormatUint(span.SpanID, 10))
	w.Header().Set(headerPriority, strconv.Itoa(span.Priority))
	_, _ = io.WriteString(w, "{}")
}

// end ends the span. A library that made its own context says so in headers.
func (s *Server) end(w http.ResponseWriter, header http.Header, answer []byte) {
	s.mu.Lock()
	span, finish := s.current, s.finish
	s.current, s.finish = nil, nil
	s.mu.Unlock()
	if span == nil {
		s.log.WarnOnce("lifecycle end", "lifecycle: the end of an invocation that had not started")
		_, _ = io.WriteString(w, "{}")
		return
	}
	if span.RequestID = header.Get(headerRequest); span.RequestID == "" {
		span.RequestID = s.hooks.Request() // at the start the extension may not have been told yet
	}
	span.Duration = time.Since(span.Start)
	if v, err := strconv.ParseUint(header.Get(headerTrace), 10, 64); err == nil && v != 0 {
		span.TraceID = v
	}
	if v, err := strconv.ParseUint(header.Get(headerSpan), 10, 64); err == nil && v != 0 {
		span.SpanID = v
	}
	if v, err := strconv.Atoi(header.Get(headerPriority)); err == nil {
		span.Priority = v
	}
	span.Error = header.Get(headerError) == "true"
	span.ErrorMessage, span.ErrorType = header.Get(headerError+"-Msg"), header.Get(headerError+"-Type")
	if finish != nil {
		if span.Error {
			answer = nil
		}
		finish(span.RequestID, answer)
	}
	s.hooks.Done(*span)
	_, _ = io.WriteString(w, "{}")
}

// headersOf looks up the headers that an API Gateway or ALB event carries.
func headersOf(event []byte) func(string) string {
	var e struct {
		Headers map[string]json.RawMessage `json:"headers"`
	}
	_ = json.Unmarshal(event, &e) // no event with headers: nothing is found
	return func(name string) string {
		for key, raw := range e.Headers {
			var value string
			if strings.EqualFold(key, name) && json.Unmarshal(raw, &value) == nil {
				return value
			}
		}
		return ""
	}
}

func id() uint64 { return rand.Uint64N(1<<63-1) + 1 }

// Payload is the span as a tracer would send it: MessagePack, v0.4.
func (s *Span) Payload(service, resource string) []byte {
	if service == "" {
		service = "aws.lambda"
	}
	b := []byte{0x91, 0x91, 0x8b}
	text := func(v string) {
		v = v[:min(len(v), 1<<15)]
		b = append(append(b, 0xda, byte(len(v)>>8), byte(len(v))), v...)
	}
	number := func(name string, v uint64) {
		text(name)
		b = append(b, 0xcf)
		for shift := 56; shift >= 0; shift -= 8 {
			b = append(b, byte(v>>shift))
		}
	}
	for _, f := range [][2]string{{"name", "aws.lambda"}, {"service", service}, {"resource", resource}, {"type", "serverless"}} {
		text(f[0])
		text(f[1])
	}
	number("trace_id", s.TraceID)
	number("span_id", s.SpanID)
	number("parent_id", s.ParentID)
	number("start", uint64(s.Start.UnixNano()))
	number("duration", uint64(s.Duration))
	meta := [][2]string{{"request_id", s.RequestID}, {"language", "lambda"}, {"_dd.origin", "lambda"}}
	if s.Error {
		meta = append(meta, [2]string{"error.msg", s.ErrorMessage}, [2]string{"error.type", s.ErrorType}, [2]string{"span.error", "true"})
	}
	text("meta")
	b = append(b, 0x80|byte(len(meta)))
	for _, f := range meta {
		text(f[0])
		text(f[1])
	}
	text("metrics")
	b = append(b, 0x81)
	text("_sampling_priority_v1")
	b = append(b, 0xd0, byte(int8(max(min(s.Priority, 127), -128))))
	if s.Error {
		b[2]++
		text("error")
		b = append(b, 1)
	}
	return b
}
