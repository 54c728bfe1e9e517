package boot

import (
	"context"
	"errors"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/initprof/initprof/extension/api"
	"github.com/initprof/initprof/extension/flush"
	"github.com/initprof/initprof/extension/lifecycle"
	"github.com/initprof/initprof/extension/logs"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/extension/tags"
	"github.com/initprof/initprof/extension/telemetry"
	"github.com/initprof/initprof/extension/traceagent"
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
	request    string
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
	i.arn, i.request = arn, requestID
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

func (i *invocations) requestID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.request
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
	close(e.asked)
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
	var tick <-chan time.Time // flushes during a long invocation
	if e.config.FlushStrategy.Mode == "periodically" {
		t := time.NewTicker(e.config.FlushStrategy.Interval)
		defer t.Stop()
		tick = t.C
	}
	for running := done != nil; running; {
		select {
		case <-done:
			running = false
		case <-tick:
			e.flush(ctx, false)
		case <-ctx.Done():
			return // SHUTDOWN or the next invocation flushes
		}
	}
	if e.flushNow() {
		e.dogstat.Drain(10 * time.Millisecond)
		e.flush(ctx, false)
	}
}

// adaptiveAfter is the number of invocations, each within a minute of the one
// before, from which on the adaptive strategy flushes by the clock instead of
// at the end of each: the function is called often enough.
const adaptiveAfter = 20

// flushNow decides at the end of an invocation.
func (e *extension) flushNow() bool {
	now := time.Now()
	if now.Sub(e.lastInvoke) > time.Minute {
		e.frequent = 0
	}
	e.lastInvoke = now
	e.frequent++
	s := e.config.FlushStrategy
	switch {
	case s.Mode == "end", s.Mode == "adaptive" && e.frequent <= adaptiveAfter:
		return true
	default:
		return now.Sub(e.lastFlush) >= s.Interval
	}
}

// sources says what is flushed, and where to. It is built at the first flush,
// behind the first next.
func (e *extension) sources() []flush.Source {
	makeTags := func() []string { return tags.Make(e.config, e.invokes.functionARN(), e.opts.Getenv) }
	if e.changes.Tags {
		makeTags = sync.OnceValue(makeTags)
	}
	return []flush.Source{
		flush.Metrics(&e.metrics, e.config.MetricsURL, makeTags, e.log),
		func(bool) []flush.Request {
			payloads, dropped := e.traces.Take()
			if dropped > 0 {
				e.log.Warnf("trace agent: %d payloads were dropped: the buffer was full", dropped)
			}
			body, err := traceagent.Encode(payloads, traceagent.Identity{
				Env: e.config.Env, Version: e.config.Version, Tags: strings.Join(makeTags(), ","), More: e.spanTags,
			})
			if err != nil {
				e.log.Warnf("trace agent: traces that cannot be read were left out: %v", err)
			}
			if body == nil {
				return nil
			}
			return []flush.Request{{Address: e.config.TracesURL + "/api/v0.2/traces", ContentType: "application/x-protobuf", Body: body}}
		},
		func(last bool) (out []flush.Request) {
			bodies, dropped := e.logs.Take(logs.Identity{
				ARN: e.invokes.functionARN(), Service: e.config.Service, Tags: strings.Join(makeTags(), ","),
			}, last)
			if dropped > 0 {
				e.log.Warnf("logs: %d lines were dropped: the buffer was full", dropped)
			}
			for _, body := range bodies {
				out = append(out, flush.Request{Address: e.config.LogsURL + "/api/v2/logs", ContentType: "application/json", Body: body})
			}
			return out
		},
	}
}

// discard takes the place of the intakes where there is no API key.
type discard struct{}

func (discard) Post(context.Context, string, string, []byte) error { return nil }

func (e *extension) flush(ctx context.Context, last bool) {
	f := &e.flusher
	if f.Sources == nil {
		e.loadRoots()
		f.Client, f.Log, f.Sources = e.intake, e.log, e.sources()
		if e.config.APIKey == "" {
			f.Client = discard{}
		}
	}
	e.settle(ctx)
	e.lastFlush = time.Now()
	if err := f.Flush(ctx, last); err != nil {
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
	err := errors.Join(e.events.Close(ctx), e.traces.Close(ctx), e.life.Close(ctx))
	e.dogstat.Drain(50 * time.Millisecond)
	err = errors.Join(err, e.dogstat.Close())
	e.flush(ctx, true)
	if err != nil {
		e.log.Warnf("shutdown: %v", err)
	}
	if n := e.flusher.Waiting(); n > 0 {
		e.log.Errorf("shutdown: %d requests could not be sent", n)
		return 1
	}
	return 0
}

// endSpan hands the span of an invocation to the traces.
func (e *extension) endSpan(s lifecycle.Span) {
	name := e.opts.Getenv("AWS_LAMBDA_FUNCTION_NAME")
	e.traces.Add(traceagent.Payload{Version: "v0.4", Body: s.Payload(e.config.Service, name)})
}

// handleTelemetry takes one delivery.
func (e *extension) handleTelemetry(events []telemetry.Event) {
	if e.config.LogsEnabled {
		e.logs.Add(events)
	}
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
