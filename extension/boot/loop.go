package boot

import (
	"context"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	"github.com/initprof/initprof/extension/api"
)

// Margins before a deadline of the environment, for what comes after a flush.
const (
	shutdownLimit  = 2 * time.Second // what Lambda grants; its deadline may be earlier
	shutdownMargin = 300 * time.Millisecond
	invokeMargin   = 100 * time.Millisecond
)

// Limits within a flush.
const (
	closeLimit = 300 * time.Millisecond // for requests that are still coming in
	drainLimit = 100 * time.Millisecond // for datagrams that have come
)

// loop asks for events until SHUTDOWN or SIGTERM.
func (e *extension) loop(ctx context.Context) int {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.background, e.stop = context.WithCancel(ctx)
	e.schedule.strategy = e.config.FlushStrategy
	e.schedule.flushed(time.Now()) // nothing is due before there is anything
	// Everything that INIT does not need waits until the first next is on its way.
	// A SIGTERM before that ends the process, which has nothing to lose.
	sent := func() { go e.afterInit(cancel) }
	for {
		event, err := e.api.Next(ctx, sent)
		sent = nil
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
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	close(e.asked)
	if e.changes.H16 {
		debug.SetGCPercent(gcPercent)
		debug.SetMemoryLimit(e.memoryLimit)
	}
	e.tellProblems()
	<-ctx.Done()
	cancel()
}

// invoke does what an invocation gives cause to, and returns when the extension
// may ask for the next event: when nothing has to be flushed at the end of this
// one, as soon as it has begun.
func (e *extension) invoke(ctx context.Context, event *api.Event) {
	done := e.invokes.begin(event.RequestID, event.InvokedFunctionARN, e.invocationBegins())
	if e.config.APIKey == "" {
		e.discard()
		return
	}
	ctx, cancel := context.WithDeadline(ctx, event.Deadline.Add(-invokeMargin))
	defer cancel()
	if !e.schedule.atEnd(time.Now()) {
		e.flushIfDue(ctx)
		e.ticking.Do(func() { go e.tick() })
		return
	}
	tick := time.NewTicker(e.schedule.strategy.Interval) // for long invocations
	defer tick.Stop()
	for running := done != nil; running; {
		select {
		case <-done:
			running = false
		case <-tick.C:
			e.flushIfDue(ctx)
		case <-ctx.Done():
			return // SHUTDOWN or the next invocation flushes
		}
	}
	e.dogstat.Drain(drainLimit)
	e.flush(ctx, false)
}

// tick flushes by the clock, while the environment runs: it goes on beside
// invocations that the extension does not wait for. A request that a freeze
// interrupts is sent again.
func (e *extension) tick() {
	t := time.NewTicker(e.schedule.strategy.Interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			e.flushIfDue(e.background)
		case <-e.background.Done():
			return
		}
	}
}

func (e *extension) flushIfDue(ctx context.Context) {
	if e.schedule.due(time.Now()) {
		e.flush(ctx, false)
	}
}

// shutdown flushes everything before the deadline, and closes the listeners.
func (e *extension) shutdown(deadline time.Time) int {
	limit := time.Now().Add(shutdownLimit)
	if deadline.Before(limit) {
		limit = deadline
	}
	ctx, cancel := context.WithDeadline(context.Background(), limit.Add(-shutdownMargin))
	defer cancel()
	// A flush under way may have what an intake is about to acknowledge. When it
	// gives up, what is left is sent below.
	giveUp := time.AfterFunc(2*closeLimit, e.stop)
	defer giveUp.Stop()

	// Whoever is still sending must not take the time that sending needs.
	closing, cancelClosing := context.WithTimeout(ctx, closeLimit)
	defer cancelClosing()
	var wait sync.WaitGroup
	for _, close := range []func(context.Context) error{e.events.Close, e.traces.Close, e.life.Close} {
		wait.Go(func() {
			if err := close(closing); err != nil {
				e.log.Warnf("shutdown: a request under way was cut off: %v", err)
			}
		})
	}
	wait.Wait()
	e.dogstat.Drain(drainLimit)
	if err := e.dogstat.Close(); err != nil {
		e.log.Warnf("shutdown: %v", err)
	}
	if e.config.APIKey == "" {
		return 0
	}
	e.flush(ctx, true)
	if s, p, l := e.lost.samples.Load(), e.lost.payloads.Load(), e.lost.lines.Load(); s+p+l > 0 {
		e.log.Warnf("shutdown: %d samples, %d trace payloads and %d log lines had been dropped: their buffer was full", s, p, l)
	}
	waiting, dropped := e.flusher.Waiting()
	if dropped > 0 {
		e.log.Warnf("shutdown: %d requests had been dropped while their intake was down", dropped)
	}
	if waiting > 0 {
		e.log.Errorf("shutdown: %d requests could not be sent", waiting)
		return 1
	}
	return 0
}
