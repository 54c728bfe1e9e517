package boot

import (
	"context"
	"errors"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/initprof/initprof/extension/api"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/extension/tags"
	"github.com/initprof/initprof/extension/telemetry"
)

// Margins before a deadline of the environment, for what comes after a flush.
const (
	shutdownMargin = 300 * time.Millisecond
	invokeMargin   = 100 * time.Millisecond
)

// invocations tracks which invocations the runtime has finished.
type invocations struct {
	mu         sync.Mutex
	subscribed bool
	arn        string
	done       map[string]chan struct{}
}

func (i *invocations) setSubscribed(yes bool) {
	i.mu.Lock()
	i.subscribed = yes
	i.mu.Unlock()
}

// begin returns a channel that is closed when the runtime is done with the
// request, or nil where nobody would tell.
func (i *invocations) begin(requestID, arn string) <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.arn = arn
	if !i.subscribed {
		return nil
	}
	return i.channel(requestID)
}

func (i *invocations) channel(requestID string) chan struct{} {
	c := i.done[requestID]
	if c == nil {
		if i.done == nil {
			i.done = map[string]chan struct{}{}
		}
		if len(i.done) > 100 { // events of requests that nobody asked about
			clear(i.done)
		}
		c = make(chan struct{})
		i.done[requestID] = c
	}
	return c
}

func (i *invocations) finished(requestID string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	c := i.channel(requestID)
	select {
	case <-c:
	default:
		close(c)
	}
}

func (i *invocations) end(requestID string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.done, requestID)
}

func (i *invocations) functionARN() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.arn
}

// loop asks for events until SHUTDOWN or SIGTERM.
func (e *extension) loop(ctx context.Context) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// Everything here that INIT does not need waits until the first next is on
	// its way. A SIGTERM before that ends the process, which has nothing to lose.
	go e.afterInit(cancel)
	for {
		event, err := e.api.Next(ctx)
		switch {
		case err != nil && ctx.Err() != nil:
			return e.shutdown(time.Now().Add(2 * time.Second))
		case err != nil:
			e.log.Errorf("%v", err)
			stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
			if told := e.api.ExitError(stop, "Extension.NextFailed", err); told != nil {
				e.log.Errorf("exit/error could not be reported: %v", told)
			}
			cancel()
			e.shutdown(time.Now().Add(2 * time.Second))
			return 1
		case event.Type == api.Shutdown:
			return e.shutdown(event.Deadline)
		case event.Type == api.Invoke:
			e.invoke(ctx, event)
		default:
			e.log.WarnOnce("event "+event.Type, "an event of unknown type %q was passed over", event.Type)
		}
	}
}

func (e *extension) afterInit(cancel context.CancelFunc) {
	if e.changes.H16 {
		debug.SetGCPercent(gcPercent)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	cancel()
}

// invoke waits for the end of the invocation and flushes.
func (e *extension) invoke(ctx context.Context, event *api.Event) {
	done := e.invokes.begin(event.RequestID, event.InvokedFunctionARN)
	defer e.invokes.end(event.RequestID)
	ctx, cancel := context.WithDeadline(ctx, event.Deadline.Add(-invokeMargin))
	defer cancel()
	if done != nil {
		select {
		case <-done:
		case <-ctx.Done():
			return // SHUTDOWN or the next invocation flushes
		}
	}
	e.dogstat.Drain(10 * time.Millisecond)
	e.flush(ctx)
}

func (e *extension) flush(ctx context.Context) {
	if e.config.APIKey == "" {
		e.metrics.Flush()
		e.traces.Take()
		return
	}
	f := &e.flusher
	if f.Client == nil {
		f.Metrics, f.MetricsURL, f.Client, f.Log = &e.metrics, e.config.MetricsURL, e.intake, e.log
		f.Tags = func() []string { return tags.Make(e.config, e.invokes.functionARN(), e.opts.Getenv) }
		if e.changes.Tags {
			f.Tags = sync.OnceValue(f.Tags)
		}
	}
	if err := f.Flush(ctx); err != nil {
		e.log.Warnf("%v", err)
	}
}

// shutdown flushes everything before the deadline, and closes the listeners.
func (e *extension) shutdown(deadline time.Time) int {
	limit := time.Now().Add(2 * time.Second)
	if deadline.Before(limit) {
		limit = deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), limit.Add(-shutdownMargin))
	defer cancel()
	err := errors.Join(e.events.Close(ctx), e.traces.Close(ctx))
	e.dogstat.Drain(50 * time.Millisecond)
	err = errors.Join(err, e.dogstat.Close())
	e.flush(ctx)
	if err != nil {
		e.log.Warnf("shutdown: %v", err)
	}
	if n := e.flusher.Waiting(); n > 0 {
		e.log.Errorf("shutdown: %d requests could not be sent", n)
		return 1
	}
	return 0
}

// handleTelemetry takes one delivery.
func (e *extension) handleTelemetry(events []telemetry.Event) {
	for i := range events {
		event := &events[i]
		switch event.Type {
		case "platform.runtimeDone":
			if p, err := event.Platform(); err == nil {
				e.invokes.finished(p.RequestID)
			}
		case "platform.report":
			p, err := event.Platform()
			if err != nil || !e.config.EnhancedMetrics {
				continue
			}
			add := func(name string, v float64) {
				e.metrics.Add(metrics.Sample{Name: "aws.lambda.enhanced." + name, Type: metrics.Distribution, Value: v, Time: event.Time})
			}
			add("duration", p.Metrics.DurationMs/1000)
			add("billed_duration", p.Metrics.BilledDurationMs/1000)
			add("max_memory_used", p.Metrics.MaxMemoryUsedMB)
			add("memorysize", p.Metrics.MemorySizeMB)
			add("invocations", 1)
			if p.Metrics.InitDurationMs > 0 {
				add("init_duration", p.Metrics.InitDurationMs/1000)
			}
		}
	}
}
