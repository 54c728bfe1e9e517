// Package traceagent is the trace agent that tracers in the function expect on
// 127.0.0.1:8126. It takes traces in, says which end points it has, and holds
// the payloads until flush asks for them.
package traceagent

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"github.com/initprof/initprof/extension/listener"
	"github.com/initprof/initprof/extension/logging"
)

// Limits of the buffer.
const (
	maxBody  = 50 << 20 // of one request, as the agent has it
	maxBytes = 64 << 20 // of all payloads that wait for a flush
)

// Payload is what a tracer sent, undecoded.
type Payload struct {
	Version         string // "v0.4" or "v0.5"
	Language        string // Datadog-Meta-Lang
	LanguageVersion string // Datadog-Meta-Lang-Version
	Tracer          string // Datadog-Meta-Tracer-Version
	Body            []byte // MessagePack
}

// Server listens until it is closed.
type Server struct {
	listener.HTTP

	log *logging.Logger

	mu      sync.Mutex
	waiting []Payload
	bytes   int
	dropped uint64
}

// Listen binds the address and serves it.
func Listen(address string, log *logging.Logger) (*Server, error) {
	s := &Server{log: log}
	if err := s.Listen(address, s); err != nil {
		return nil, fmt.Errorf("trace agent: %w", err)
	}
	return s, nil
}

// ServeHTTP answers a tracer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/info":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"version":"initprof-extension","endpoints":["/v0.4/traces","/v0.5/traces","/info"],"client_drop_p0s":false}`)
	case "/v0.4/traces", "/v0.5/traces":
		s.traces(w, r)
	default:
		http.NotFound(w, r)
	}
}

func (s *Server) traces(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		http.Error(w, "POST or PUT", http.StatusMethodNotAllowed)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var tooLarge *http.MaxBytesError
	if errors.As(err, &tooLarge) {
		s.log.WarnOnce("traces too large", "trace agent: a payload of more than %d bytes was refused", maxBody)
		http.Error(w, "payload too large", http.StatusRequestEntityTooLarge)
		return
	} else if err != nil {
		http.Error(w, "incomplete body", http.StatusBadRequest)
		return
	}
	if mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); mediaType != "application/msgpack" {
		s.log.WarnOnce("traces type", "trace agent: traces of content type %q were refused: MessagePack alone is read", mediaType)
		http.Error(w, "application/msgpack", http.StatusUnsupportedMediaType)
		return
	}
	if !s.Add(Payload{
		r.URL.Path[1:5], r.Header.Get("Datadog-Meta-Lang"), r.Header.Get("Datadog-Meta-Lang-Version"),
		r.Header.Get("Datadog-Meta-Tracer-Version"), body,
	}) {
		http.Error(w, "buffer full", http.StatusTooManyRequests)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"rate_by_service":{"service:,env:":1}}`)
}

// Add takes a payload in. It reports false when the payload was dropped because
// the buffer is full.
func (s *Server) Add(p Payload) bool {
	s.mu.Lock()
	full := s.bytes+len(p.Body) > maxBytes
	if full {
		s.dropped++
	} else {
		s.bytes += len(p.Body)
		s.waiting = append(s.waiting, p)
	}
	s.mu.Unlock()
	if full {
		s.log.WarnOnce("traces full", "trace agent: traces are dropped: the buffer is full until the next flush")
	}
	return !full
}

// Take returns the payloads that wait and how many were dropped since the last
// call.
func (s *Server) Take() (payloads []Payload, dropped uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	payloads, dropped = s.waiting, s.dropped
	s.waiting, s.bytes, s.dropped = nil, 0, 0
	return payloads, dropped
}
