// Package flush empties the buffers of the other packages into the intakes: at
// the end of an invocation, periodically, and at SHUTDOWN. It is the right end
// of the extension's data flow.
package flush

import (
	"context"
	"errors"
	"sync"

	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

// Limits on what one request carries and on what waits for an intake that is down.
const (
	maxPoints      = 2000
	maxValues      = 20000
	maxWaiting     = 256      // requests
	maxWaitingSize = 48 << 20 // bytes of their bodies
)

// Request is one body for an intake.
type Request struct {
	Address     string
	ContentType string
	Body        []byte
}

// Source empties a buffer into requests. last says that the process is about to
// end, so that nothing may be kept for later.
type Source func(last bool) []Request

// Poster sends one body. *intake.Client is one.
type Poster interface {
	Post(ctx context.Context, address, contentType string, body []byte) error
}

// Flusher sends what the sources have. Its methods may be called concurrently;
// flushes are made one after the other.
type Flusher struct {
	Sources []Source
	Client  Poster
	Log     *logging.Logger

	mu      sync.Mutex
	waiting []Request
	size    int
	dropped uint64
}

// Flush sends everything that is buffered, each intake on its own goroutine.
// What an intake could not take now is kept for the next flush, within bounds.
// The error says why something is still waiting.
func (f *Flusher) Flush(ctx context.Context, last bool) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, source := range f.Sources {
		for _, r := range source(last) {
			f.queue(r)
		}
	}
	byIntake := map[string][]Request{}
	for _, r := range f.waiting {
		byIntake[r.Address] = append(byIntake[r.Address], r)
	}
	var (
		wait   sync.WaitGroup
		result sync.Mutex
		kept   []Request
		errs   []error
	)
	for _, requests := range byIntake {
		wait.Go(func() {
			left, err := f.send(ctx, requests)
			result.Lock()
			defer result.Unlock()
			kept = append(kept, left...)
			if err != nil {
				errs = append(errs, err)
			}
		})
	}
	wait.Wait()
	f.waiting, f.size = kept, 0
	for _, r := range kept {
		f.size += len(r.Body)
	}
	return errors.Join(errs...)
}

// send sends the requests of one intake in their order. The first that fails
// leaves the rest for later: the intake is down.
func (f *Flusher) send(ctx context.Context, requests []Request) ([]Request, error) {
	for i, r := range requests {
		err := f.Client.Post(ctx, r.Address, r.ContentType, r.Body)
		if errors.Is(err, intake.ErrRejected) {
			f.Log.WarnOnce("rejected "+r.Address, "flush: %v", err)
		} else if err != nil {
			return requests[i:], err
		}
	}
	return nil, nil
}

// Waiting is the number of requests that wait for an intake.
func (f *Flusher) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}

// queue makes room by dropping what has waited longest.
func (f *Flusher) queue(r Request) {
	f.waiting = append(f.waiting, r)
	f.size += len(r.Body)
	for len(f.waiting) > maxWaiting || f.size > maxWaitingSize && len(f.waiting) > 1 {
		f.size -= len(f.waiting[0].Body)
		f.waiting[0] = Request{}
		f.waiting = f.waiting[1:]
		f.dropped++
		f.Log.WarnOnce("flush full", "flush: the oldest requests are dropped: %d wait for their intake", len(f.waiting))
	}
}

// Metrics is the source that empties an aggregator. tags are those that every
// metric carries.
func Metrics(a *metrics.Aggregator, url string, tags func() []string, log *logging.Logger) Source {
	return func(bool) (out []Request) {
		batch := a.Flush()
		if batch.Dropped > 0 {
			log.Warnf("flush: %d samples were dropped: the buffer was full", batch.Dropped)
		}
		if batch.Empty() {
			return nil
		}
		all := tags()
		for points := batch.Points; len(points) > 0; {
			n := min(len(points), maxPoints)
			out = append(out, Request{url + "/api/v2/series", "application/json", metrics.AppendSeries(nil, points[:n], all)})
			points = points[n:]
		}
		for points := batch.Distributions; len(points) > 0; {
			n, values := 0, 0
			for n < len(points) && (n == 0 || values+len(points[n].Values) <= maxValues) {
				values += len(points[n].Values)
				n++
			}
			out = append(out, Request{url + "/api/v1/distribution_points", "application/json", metrics.AppendDistributions(nil, points[:n], all)})
			points = points[n:]
		}
		return out
	}
}
