package sandbox

import (
	"context"
	"encoding/json"
	"time"
)

// defaultShutdown is Lambda's time limit for a shutdown with external extensions.
const defaultShutdown = 2 * time.Second

// runtimeShare is the part of a shutdown's time that the runtime gets before
// the extensions are told (RIE: internal/lambda/rapid/shutdown.go).
const runtimeShare = 0.3

// ShutdownResult says who is left after a shutdown.
type ShutdownResult struct {
	// Exited are the extensions that asked for SHUTDOWN and ended in time.
	Exited []string
	// Late are those that asked for SHUTDOWN and did not end in time.
	Late []string
	// Remaining is everything that may still run and is to be killed by the
	// caller: the late ones, the extensions that never asked for SHUTDOWN, and
	// the external runtime (as Runtime).
	Remaining []string
}

// Shutdown ends the environment as Lambda does: SIGTERM to the runtime
// (Config.TerminateRuntime) and up to 30 % of the time for its end, then a
// SHUTDOWN event to each extension that registered for it, and the rest of the
// time for theirs. Without extensions the runtime gets no SIGTERM. It returns
// when all of these processes have ended (ProcessExited), when the time has
// passed (0 is Lambda's 2 s) or with ctx. The API keeps answering until Close.
func (e *Env) Shutdown(ctx context.Context, reason string, within time.Duration) ShutdownResult {
	if within == 0 {
		within = defaultShutdown
	}
	start := time.Now()
	deadline := start.Add(within)
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()

	e.mu.Lock()
	if e.phase.at == phaseInit || e.phase.at == phaseCreated {
		e.endInitLocked(InitOutcome{Status: InitAborted, Message: "shut down before the end of INIT"})
	}
	if e.invoke != nil {
		e.invoke.finish(&failure{errorType: errorFailure, message: "shut down during the invoke"})
	}
	terminate := e.phase.to(phaseShutdown) == nil && len(e.extensions) > 0 &&
		e.config.ExternalRuntime && e.runtime.times.Released != 0 && !e.runtime.exited
	e.mu.Unlock()
	e.relay.flush()

	if terminate && e.config.TerminateRuntime != nil {
		e.config.TerminateRuntime()
		e.awaitExits(ctx, start.Add(time.Duration(float64(within)*runtimeShare)), func() bool { return e.runtime.exited })
	}

	e.mu.Lock()
	told := e.tellShutdownLocked(reason, deadline)
	e.mu.Unlock()
	e.relay.flush()

	e.awaitExits(ctx, deadline, func() bool {
		for _, p := range told {
			if !p.exited {
				return false
			}
		}
		return true
	})
	return e.leftovers(told)
}

// tellShutdownLocked posts SHUTDOWN to those that registered for it.
func (e *Env) tellShutdownLocked(reason string, deadline time.Time) []*process {
	body, err := json.Marshal(shutdownEvent{EventType: eventShutdown, DeadlineMs: deadline.UnixMilli(), ShutdownReason: reason})
	if err != nil {
		panic("sandbox: encode a SHUTDOWN event: " + err.Error()) // strings and integers only
	}
	e.shutdown = monotonic()
	var told []*process
	for _, p := range e.extensions {
		if p.wants(eventShutdown) && !p.exited {
			told = append(told, p)
			p.post(&event{header: [][2]string{{"Lambda-Extension-Event-Identifier", newUUID()}}, body: body, posted: e.shutdown})
		}
	}
	return told
}

// awaitExits returns when done holds, checked under the lock after each exit,
// at the deadline, or with ctx.
func (e *Env) awaitExits(ctx context.Context, deadline time.Time, done func() bool) {
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		e.mu.Lock()
		ended := done()
		e.mu.Unlock()
		if ended {
			return
		}
		select {
		case <-e.exits:
		case <-timer.C:
			return
		case <-ctx.Done():
			return
		case <-e.closing:
			return
		}
	}
}

func (e *Env) leftovers(told []*process) ShutdownResult {
	e.mu.Lock()
	defer e.mu.Unlock()
	var r ShutdownResult
	for _, p := range told {
		if p.exited {
			r.Exited = append(r.Exited, p.name)
		} else {
			r.Late = append(r.Late, p.name)
		}
	}
	for _, p := range e.extensions {
		if !p.internal && !p.exited {
			r.Remaining = append(r.Remaining, p.name)
		}
	}
	if e.config.ExternalRuntime && !e.runtime.exited && e.runtime.times.Released != 0 {
		r.Remaining = append(r.Remaining, Runtime)
	}
	return r
}
