// Package traceagent is the trace agent that tracers in the function expect on
// 127.0.0.1:8126. It takes traces in, says which end points it has, and holds
// the payloads until flush asks for them.
package traceagent

import (
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
	maxBody    = 25 << 20 // of one request; tracers send up to 20 MB
	maxBytes   = 32 << 20 // of all payloads that wait for a flush
	maxIgnored = 2 << 20  // of a request that is not forwarded
)

// Payload is what a tracer sent, undecoded.
type Payload struct {
	Version string // "v0.4" or "v0.5"
	Client  Client
	Body    []byte // MessagePack
}

// Client is what a tracer says of itself.
type Client struct {
	Language        string // Datadog-Meta-Lang
	LanguageVersion string // Datadog-Meta-Lang-Version
	Tracer          string // Datadog-Meta-Tracer-Version
	ComputedStats   bool   // Datadog-Client-Computed-Stats
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
	if err := s.Listen(address, s, log); err != nil {
		return nil, fmt.Errorf("trace agent: %w", err)
	}
	return s, nil
}

// info is the answer to /info. A tracer asks for it, and leaves alone the end
// points that it does not list.
const info = `{"version":"` + AgentVersion + `","endpoints":["/v0.4/traces","/v0.5/traces","/info"],` +
	`"client_drop_p0s":false,"span_meta_structs":true,"config":{}}`

// taken are the paths, and beginnings of paths, that clients post to whatever
// /info lists, and complain of when they find them missing. What they post is
// accepted and not forwarded: statistics of traces, which the intake is asked to
// compute (_dd.compute_stats), and the tracers' news of themselves.
var taken = [...]string{"/v0.6/stats", "/v0.1/pipeline_stats", "/telemetry/proxy/"}

// ServeHTTP answers a tracer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/info":
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, info)
		return
	case "/v0.4/traces", "/v0.5/traces":
		s.traces(w, r)
		return
	}
	for _, path := range taken {
		if !strings.HasPrefix(r.URL.Path, path) {
			continue
		}
		s.log.WarnOnce("not forwarded "+path, "trace agent: what is sent to %s is accepted and not forwarded", path)
		if _, err := s.Body(w, r, maxIgnored); err != nil {
			s.Refuse(w, r, err)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		return
	}
	s.log.WarnOnce("no end point", "trace agent: %s is no end point of it (told once)", r.URL.Path)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(http.StatusNotFound)
	_, _ = io.WriteString(w, `{"error":"this agent has the end points that /info lists"}`)
}

func (s *Server) traces(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		http.Error(w, "POST or PUT", http.StatusMethodNotAllowed)
		return
	}
	if mediaType, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";"); mediaType != "application/msgpack" {
		s.log.WarnOnce("traces type", "trace agent: traces of content type %q were refused: MessagePack alone is read", mediaType)
		http.Error(w, "application/msgpack", http.StatusUnsupportedMediaType)
		return
	}
	body, err := s.Body(w, r, maxBody)
	if err != nil {
		s.Refuse(w, r, err)
		return
	}
	if !s.Add(Payload{
		Version: r.URL.Path[1:5], Body: body,
		Client: Client{
			r.Header.Get("Datadog-Meta-Lang"), r.Header.Get("Datadog-Meta-Lang-Version"), r.Header.Get("Datadog-Meta-Tracer-Version"),
			r.Header.Get("Datadog-Client-Computed-Stats") != "",
		},
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
