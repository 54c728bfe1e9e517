package sandbox

import (
	"net/http"
	"strings"
	"sync"
)

// Request is one request that the environment received. Times are
// CLOCK_MONOTONIC in nanoseconds. Neither headers nor bodies are kept.
type Request struct {
	Method    string
	Path      string // without the query
	Extension string // the file name of the extension that sent it, where known
	Received  int64  // its last byte of the header was read from the socket
	Answered  int64  // before its answer was written; 0 while it has none
	Status    int    // 0 while it has no answer
}

// maxRequests bounds the log: a subject that asks in a loop must not fill
// initprof's memory.
const maxRequests = 1 << 16

type requestLog struct {
	mu      sync.Mutex
	entries []*Request
	lost    int
}

// add returns an entry whose Method, Path and Received stay as they are; the
// others are set through the log.
func (l *requestLog) add(method, path string, received int64) *Request {
	r := &Request{Method: strings.Clone(method), Path: strings.Clone(path), Received: received}
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.entries) == maxRequests {
		l.lost++
		return r
	}
	l.entries = append(l.entries, r)
	return r
}

func (l *requestLog) attribute(r *Request, extension string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Extension = extension
}

func (l *requestLog) answered(r *Request, at int64, status int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r.Answered, r.Status = at, status
}

// Requests are the requests so far, in the order in which they were taken up.
// Of more than 65,536 the first are kept.
func (e *Env) Requests() []Request {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	list := make([]Request, len(e.log.entries))
	for i, r := range e.log.entries {
		list[i] = *r
	}
	return list
}

// LostRequests is how many requests came in after the log was full.
func (e *Env) LostRequests() int {
	e.log.mu.Lock()
	defer e.log.mu.Unlock()
	return e.log.lost
}

// Outcomes of an extension's telemetry subscription.
const (
	SubscribeOK      = "ok"      // answered with success before its first next
	SubscribeRefused = "refused" // answered with an error
	SubscribePending = "pending" // not answered when its first next came in
	SubscribeNone    = "none"    // never asked
)

// SubscribeOutcome tells how the telemetry subscription of an extension went.
// Of several, a success counts most and a pending one least.
func (e *Env) SubscribeOutcome(extension string) string {
	next := e.Times().Extensions[extension].FirstNext
	outcome := SubscribeNone
	for _, r := range e.Requests() {
		if r.Extension != extension || r.Method != http.MethodPut || !strings.HasPrefix(r.Path, "/2022-07-01/telemetry") {
			continue
		}
		switch {
		case r.Status >= http.StatusBadRequest:
			outcome = SubscribeRefused
		case r.Status != 0 && (next == 0 || r.Answered <= next):
			return SubscribeOK
		case outcome == SubscribeNone:
			outcome = SubscribePending
		}
	}
	return outcome
}
