// Package flush empties the buffers of the other packages into the intakes: at
// the end of an invocation, periodically, and at SHUTDOWN. It is the right end
// of the extension's data flow.
package flush

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

// Limits on what waits for an intake that is down.
const (
	maxWaiting      = 1024     // requests
	maxWaitingBytes = 32 << 20 // of their bodies, compressed
)

// An intake that failed is left alone for a while that doubles, so that each
// invocation does not wait for it again. SHUTDOWN tries it once more.
const (
	firstPause = time.Second
	maxPause   = time.Minute
)

// Source empties a buffer into requests, one at a time, so that their bodies are
// never in memory together unpacked. last says that the process is about to end,
// so that nothing may be kept for later.
type Source func(last bool, emit func(intake.Request))

// Poster sends requests. *intake.Client is one.
type Poster interface {
	Post(ctx context.Context, r intake.Request) error
	Idle() // no request follows for a while
}

// pause is the back-off of one intake.
type pause struct {
	failures int
	until    time.Time
}

// Flusher sends what the sources have. Its methods may be called concurrently;
// flushes are made one after the other.
type Flusher struct {
	Sources []Source
	Client  Poster
	Log     *logging.Logger

	mu      sync.Mutex
	waiting []intake.Request
	bytes   int
	dropped uint64
	pauses  map[string]pause // by address
}

// Flush sends everything that is buffered, each intake on its own goroutine.
// What an intake could not take now is kept for a later flush, within bounds.
// The error says why something is still waiting.
func (f *Flusher) Flush(ctx context.Context, last bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, source := range f.Sources {
		source(last, f.queue)
	}
	if len(f.waiting) == 0 {
		return nil
	}
	var (
		wait    sync.WaitGroup
		result  sync.Mutex
		kept    []intake.Request
		errs    []error
		now     = time.Now()
		ready   = map[string][]intake.Request{}
		sending bool
	)
	for _, r := range f.waiting {
		if !last && now.Before(f.pauses[r.Address].until) {
			kept = append(kept, r)
			continue
		}
		ready[r.Address] = append(ready[r.Address], r)
		sending = true
	}
	for address, requests := range ready {
		wait.Go(func() {
			left, err := f.send(ctx, requests)
			result.Lock()
			defer result.Unlock()
			f.pause(address, err)
			kept = append(kept, left...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	if sending {
		f.Client.Idle()
	}
	f.waiting, f.bytes = kept, 0
	for _, r := range kept {
		f.bytes += len(r.Body)
	}
	return errors.Join(errs...)
}

// send sends the requests of one intake in their order. The first that fails
// leaves the rest for later: the intake is down.
func (f *Flusher) send(ctx context.Context, requests []intake.Request) ([]intake.Request, error) {
	for i, r := range requests {
		err := f.Client.Post(ctx, r)
		if errors.Is(err, intake.ErrRejected) {
			f.Log.WarnOnce("rejected "+r.Address, "flush: %v", err)
		} else if err != nil {
			return requests[i:], err
		}
	}
	return nil, nil
}

// pause notes how an intake has answered.
func (f *Flusher) pause(address string, err error) {
	if err == nil {
		delete(f.pauses, address)
		return
	}
	if f.pauses == nil {
		f.pauses = map[string]pause{}
	}
	p := f.pauses[address]
	length := min(firstPause<<min(p.failures, 10), maxPause)
	var busy *intake.BusyError
	if errors.As(err, &busy) {
		length = max(length, min(busy.RetryAfter, 10*maxPause))
	}
	f.pauses[address] = pause{p.failures + 1, time.Now().Add(length)}
}

// Waiting is the number of requests that wait for an intake, and Dropped how
// many found no room.
func (f *Flusher) Waiting() (requests int, dropped uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting), f.dropped
}

// queue makes room by dropping what has waited longest.
func (f *Flusher) queue(r intake.Request) {
	f.waiting = append(f.waiting, r)
	f.bytes += len(r.Body)
	for len(f.waiting) > maxWaiting || f.bytes > maxWaitingBytes && len(f.waiting) > 1 {
		f.bytes -= len(f.waiting[0].Body)
		f.waiting[0] = intake.Request{}
		f.waiting = f.waiting[1:]
		f.dropped++
		f.Log.WarnOnce("flush full", "flush: the oldest requests are dropped: %d wait for their intake", len(f.waiting))
	}
}

// Metrics is the source that empties an aggregator. tags are those that every
// metric carries; lost is told of samples that had found no room.
func Metrics(a *metrics.Aggregator, url string, tags func() []string, lost func(samples uint64)) Source {
	return func(_ bool, emit func(intake.Request)) {
		batch := a.Flush()
		lost(batch.Dropped)
		if batch.Empty() {
			return
		}
		all := tags()
		batch.Series(all, func(body []byte) {
			emit(intake.Pack(url+"/api/v2/series", "application/json", body))
		})
		batch.Sketches(all, func(body []byte) {
			emit(intake.Pack(url+"/api/beta/sketches", "application/x-protobuf", body))
		})
	}
}
