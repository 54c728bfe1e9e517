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

// Limits of one request to the intakes, far below those of the intakes.
const (
	maxPoints = 2000
	maxValues = 20000
	maxQueue  = 64 // requests that wait for an intake that is down
)

// Poster sends one body. *intake.Client is one.
type Poster interface {
	Post(ctx context.Context, address, contentType string, body []byte) error
}

// Flusher sends what was aggregated. Its methods may be called concurrently;
// flushes are made one after the other.
type Flusher struct {
	Metrics    *metrics.Aggregator
	MetricsURL string
	Client     Poster
	Log        *logging.Logger
	Tags       func() []string // those that everything carries

	mu      sync.Mutex
	waiting []request
	dropped uint64
}

type request struct {
	address string
	body    []byte
}

// Flush sends everything that is buffered. What an intake could not take now is
// kept for the next flush, within bounds. The error says what is still waiting.
func (f *Flusher) Flush(ctx context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.encode()
	var errs []error
	kept := f.waiting[:0]
	for _, r := range f.waiting {
		if len(errs) > 0 && ctx.Err() != nil { // no time for the rest
			kept = append(kept, r)
			continue
		}
		err := f.Client.Post(ctx, r.address, "application/json", r.body)
		switch {
		case err == nil:
		case errors.Is(err, intake.ErrRejected):
			f.Log.WarnOnce("rejected "+r.address, "flush: %v", err)
		default:
			kept = append(kept, r)
			errs = append(errs, err)
		}
	}
	clear(f.waiting[len(kept):])
	f.waiting = kept
	return errors.Join(errs...)
}

// Waiting is the number of requests that wait for an intake.
func (f *Flusher) Waiting() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.waiting)
}

// encode moves the aggregated metrics into requests.
func (f *Flusher) encode() {
	batch := f.Metrics.Flush()
	if batch.Dropped > 0 {
		f.Log.Warnf("flush: %d samples were dropped: the buffer was full", batch.Dropped)
	}
	if batch.Empty() {
		return
	}
	var tags []string
	if f.Tags != nil {
		tags = f.Tags()
	}
	for points := batch.Points; len(points) > 0; {
		n := min(len(points), maxPoints)
		f.queue(request{f.MetricsURL + "/api/v2/series", metrics.AppendSeries(nil, points[:n], tags)})
		points = points[n:]
	}
	for points := batch.Distributions; len(points) > 0; {
		n, values := 0, 0
		for n < len(points) && (n == 0 || values+len(points[n].Values) <= maxValues) {
			values += len(points[n].Values)
			n++
		}
		f.queue(request{f.MetricsURL + "/api/v1/distribution_points", metrics.AppendDistributions(nil, points[:n], tags)})
		points = points[n:]
	}
}

func (f *Flusher) queue(r request) {
	if len(f.waiting) >= maxQueue {
		f.waiting = append(f.waiting[:0], f.waiting[1:]...)
		f.dropped++
		f.Log.WarnOnce("flush full", "flush: the oldest metrics are dropped: %d requests wait for the intake", maxQueue)
	}
	f.waiting = append(f.waiting, r)
}
