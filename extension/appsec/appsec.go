// Package appsec asks the web application firewall about the events of
// invocations. boot hands it events and answers, from the Runtime API proxy or
// the lifecycle end point, and gets tags for the spans of the invocations.
//
// The firewall runs in a helper program (appsec/helper, a module of its own),
// since its library would make the extension dynamically linked and slow every
// start down, whether AppSec is on or not. A nil *WAF is AppSec switched off: it
// costs nothing and finds nothing.
package appsec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/initprof/initprof/extension/checkpoint"
	"github.com/initprof/initprof/extension/logging"
)

// MaxPayload bounds what is looked at: Lambda's events have at most 6 MB. The
// helper refuses more than 8 MB.
const MaxPayload = 6 << 20

// Limits on what waits: payloads for the helper, and tags for their spans.
const (
	maxJobs     = 4
	maxTags     = 1024
	maxTagBytes = 4 << 20
)

// ErrUnavailable is wrapped by errors of a firewall that does not run.
var ErrUnavailable = errors.New("AppSec is not available")

// Options says what to run.
type Options struct {
	Helper string        // path of the program
	Rules  string        // file of rules; empty stands for the bundled ones
	Budget time.Duration // for the rules of one invocation
	Log    *logging.Logger
	// After holds the start of the helper back until it is closed; nil does not.
	After <-chan struct{}
}

// Tags are what a span carries of the firewall's findings.
type Tags struct {
	Meta    map[string]string  `json:"meta"`
	Metrics map[string]float64 `json:"metrics"`
}

// WAF is a handle on the firewall, whose rules may still be compiling.
type WAF struct {
	options Options
	jobs    chan job
	ready   chan struct{} // closed when the helper has started, or failed to
	stopped chan struct{}
	closing context.Context // done when Close was called
	cancel  context.CancelFunc
	pending atomic.Int64 // jobs that are not done
	number  atomic.Uint64

	fault error // valid after ready

	mu    sync.Mutex
	tags  map[string]Tags // by request ID
	order []string
	size  int
}

// job is one question to the helper; its zero kind asks nothing.
type job struct {
	invocation uint64
	kind       string
	payload    []byte
	requestID  string // of an answer
	done       chan<- struct{}
}

// HelperPath is where the helper lies for an extension of that path: in the
// layer, /opt/initprof-appsec-helper for /opt/extensions/NAME; else beside it.
func HelperPath(program string) string {
	dir := filepath.Dir(program)
	if filepath.Base(dir) == "extensions" {
		dir = filepath.Dir(dir)
	}
	return filepath.Join(dir, "initprof-appsec-helper")
}

// Start starts the helper in the background, and returns at once.
func Start(o Options) *WAF {
	w := &WAF{
		options: o, jobs: make(chan job, maxJobs), ready: make(chan struct{}), stopped: make(chan struct{}),
	}
	w.closing, w.cancel = context.WithCancel(context.Background())
	go w.work()
	return w
}

// Ready waits until the rules are compiled.
func (w *WAF) Ready(ctx context.Context) error {
	if w == nil {
		return nil
	}
	select {
	case <-w.ready:
		return w.fault
	case <-ctx.Done():
		return fmt.Errorf("%w yet: %w", ErrUnavailable, ctx.Err())
	}
}

// Inspection is one invocation under the firewall's eyes. A nil *Inspection is
// one of no interest to it.
type Inspection struct {
	waf    *WAF
	number uint64
}

// Inspect hands the event of an invocation to the firewall and returns at once.
// It returns nil for events that cannot be an HTTP request.
func (w *WAF) Inspect(event []byte) *Inspection {
	// Each of the events that carry an HTTP request has this member.
	if w == nil || !bytes.Contains(event, []byte(`"requestContext"`)) {
		return nil
	}
	if len(event) > MaxPayload {
		w.options.Log.WarnOnce("appsec size", "appsec: an event of more than %d bytes is not inspected", MaxPayload)
		return nil
	}
	i := &Inspection{w, w.number.Add(1)}
	if !w.submit(job{invocation: i.number, kind: "event", payload: event}) {
		return nil
	}
	return i
}

// Finish hands over what the function answered, which is empty where it failed
// or said too much. From now on Take knows the request.
func (i *Inspection) Finish(requestID string, body []byte) {
	if i == nil {
		return
	}
	if len(body) > MaxPayload {
		body = nil
	}
	i.waf.submit(job{invocation: i.number, kind: "answer", payload: body, requestID: requestID})
}

func (w *WAF) submit(j job) bool {
	w.pending.Add(1)
	select {
	case w.jobs <- j:
		return true
	default:
		w.pending.Add(-1)
		w.options.Log.WarnOnce("appsec queue", "appsec: events are not inspected: the helper does not keep up")
		return false
	}
}

// Settle waits until everything that was handed over is answered, or ctx ends.
func (w *WAF) Settle(ctx context.Context) {
	if w == nil || w.pending.Load() == 0 {
		return
	}
	done := make(chan struct{})
	w.pending.Add(1)
	select {
	case w.jobs <- job{done: done}:
	case <-ctx.Done():
		w.pending.Add(-1)
		return
	}
	select {
	case <-done:
	case <-ctx.Done():
		w.options.Log.WarnOnce("appsec late", "appsec: spans go without tags: the helper has not answered in time")
	}
}

// Take returns, once, the tags for the span of a request.
func (w *WAF) Take(requestID string) (Tags, bool) {
	if w == nil {
		return Tags{}, false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	t, ok := w.tags[requestID]
	if ok {
		delete(w.tags, requestID)
		w.size -= t.size()
	}
	return t, ok
}

func (t *Tags) size() int {
	n := 0
	for name, value := range t.Meta {
		n += len(name) + len(value)
	}
	return n
}

// keep stores tags until Take asks for them; the oldest make room.
func (w *WAF) keep(requestID string, t Tags) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.tags == nil {
		w.tags = map[string]Tags{}
	}
	if old, ok := w.tags[requestID]; ok {
		w.size -= old.size()
	}
	w.tags[requestID] = t
	w.size += t.size()
	w.order = append(w.order, requestID)
	for len(w.order) > maxTags || w.size > maxTagBytes {
		oldest := w.order[0]
		w.order = w.order[1:]
		if t, ok := w.tags[oldest]; ok && oldest != requestID {
			delete(w.tags, oldest)
			w.size -= t.size()
		}
	}
}

// Close ends the helper at once. What was handed over and not answered is lost,
// and so is what is handed over later.
func (w *WAF) Close() {
	if w == nil {
		return
	}
	w.cancel()
	<-w.stopped
}

// work owns the helper from its start to its end.
func (w *WAF) work() {
	defer close(w.stopped)
	h := &helper{options: w.options, closing: w.closing}
	defer h.stop()
	if w.options.After != nil {
		select {
		case <-w.options.After:
		case <-w.closing.Done():
			return
		}
	}
	checkpoint.Begin("appsec", 1)
	w.fault = h.start()
	checkpoint.End("appsec", 1)
	w.complain(w.fault)
	close(w.ready)
	for {
		select {
		case <-w.closing.Done():
			return
		case j := <-w.jobs:
			if j.done != nil {
				close(j.done)
			} else {
				tags, err := h.ask(j)
				w.complain(err)
				if j.kind == "answer" && len(tags.Meta) > 0 {
					w.keep(j.requestID, tags)
				}
			}
			w.pending.Add(-1)
		}
	}
}

func (w *WAF) complain(err error) {
	if err != nil && w.closing.Err() == nil {
		w.options.Log.Errorf("appsec: %v", err)
	}
}
