package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"
)

// Statuses of an invoke, as telemetry names them.
const (
	statusSuccess = "success"
	statusError   = "error"   // the function or an extension failed
	statusFailure = "failure" // the environment failed
	statusTimeout = "timeout"
)

// InvokeResult is how one invoke went.
type InvokeResult struct {
	InvokeTimes
	Status      string // "success", "error", "failure", "timeout"
	ErrorType   string // when not success: Lambda's, or the function's own
	Response    []byte // what the runtime posted to response or error
	ContentType string
	// Err is nil when the invoke completed, even if the function answered with
	// an error: the environment can be invoked again.
	Err error
}

// errTimeLimit ends an invoke at the function's time limit.
var errTimeLimit = errors.New("the function's time limit passed")

// invocation is an invoke under way. The environment's lock guards it.
type invocation struct {
	times       InvokeTimes
	trace       string
	waiting     map[*process]bool // who has not asked for next again
	responded   bool              // a response or error came in
	received    int64             // … completely
	response    []byte
	contentType string
	errorType   string // of the function
	done        chan struct{}
	err         error
}

// finish ends the invocation, once.
func (i *invocation) finish(err error) {
	if !i.ended() {
		i.err = err
		close(i.done)
	}
}

func (i *invocation) ended() bool {
	select {
	case <-i.done:
		return true
	default:
		return false
	}
}

// Invoke sends one event to the runtime, and to the extensions that registered
// for INVOKE, and waits until all of them asked for next again. It ends early
// when ctx ends, when the function's time limit passes, or when a process ends:
// then Err is set and the environment should be shut down. payload is the
// event, JSON by custom; at most 6 MiB.
func (e *Env) Invoke(ctx context.Context, payload []byte) InvokeResult {
	if len(payload) > maxPayload {
		return InvokeResult{Status: statusFailure, Err: fmt.Errorf("payload of %d bytes: Lambda takes at most %d", len(payload), maxPayload)}
	}
	limit := time.Now().Add(e.config.Timeout)
	if deadline, ok := ctx.Deadline(); ok && deadline.Before(limit) {
		limit = deadline
	}
	e.mu.Lock()
	if err := e.phase.to(phaseInvoke); err != nil {
		at, f := e.phase.at, e.failure
		e.mu.Unlock()
		if f != nil {
			return InvokeResult{Status: statusFailure, ErrorType: f.errorType, Err: f}
		}
		return InvokeResult{Status: statusFailure, Err: fmt.Errorf("cannot invoke: the environment is in phase %s", at)}
	}
	inv := e.sendLocked(payload, limit)
	e.mu.Unlock()

	timer := time.NewTimer(time.Until(limit))
	defer timer.Stop()
	select {
	case <-inv.done:
	case <-ctx.Done():
		e.abandon(inv, ctx.Err())
	case <-timer.C:
		e.abandon(inv, errTimeLimit)
	}
	return e.result(inv)
}

// sendLocked releases the events of a new invoke.
func (e *Env) sendLocked(payload []byte, limit time.Time) *invocation {
	inv := &invocation{
		times:   InvokeTimes{RequestID: newUUID()},
		trace:   fmt.Sprintf("Root=1-%08x-%s;Parent=%s;Sampled=0", time.Now().Unix(), randomHex(12), randomHex(8)),
		waiting: map[*process]bool{e.runtime: true},
		done:    make(chan struct{}),
	}
	e.invoke = inv
	e.relay.emit(categoryPlatform, "platform.start", startRecord{
		RequestID: inv.times.RequestID, Version: e.config.FunctionVersion, Tracing: inv.tracing(),
	})
	deadline := limit.UnixMilli()
	body, err := json.Marshal(invokeEvent{
		EventType: eventInvoke, DeadlineMs: deadline, RequestID: inv.times.RequestID,
		InvokedFunctionARN: e.config.FunctionARN(), Tracing: tracing{Type: traceHeader, Value: inv.trace},
	})
	if err != nil {
		panic("sandbox: encode an INVOKE event: " + err.Error()) // strings and integers only
	}
	inv.times.Sent = monotonic()
	for _, p := range e.extensions {
		if p.wants(eventInvoke) {
			inv.waiting[p] = true
			p.post(&event{header: [][2]string{{"Lambda-Extension-Event-Identifier", newUUID()}}, body: body, posted: inv.times.Sent})
		}
	}
	e.runtime.post(&event{body: payload, posted: inv.times.Sent, header: [][2]string{
		{"Lambda-Runtime-Aws-Request-Id", inv.times.RequestID},
		{"Lambda-Runtime-Deadline-Ms", strconv.FormatInt(deadline, 10)},
		{"Lambda-Runtime-Invoked-Function-Arn", e.config.FunctionARN()},
		{"Lambda-Runtime-Trace-Id", inv.trace},
	}})
	return inv
}

// abandon ends an invoke that takes too long.
func (e *Env) abandon(inv *invocation, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.invoke != inv {
		return
	}
	inv.finish(err)
	if e.failure == nil {
		e.failure = &failure{status: InitTimeout, errorType: errorTimeout, message: "invoke " + inv.times.RequestID + ": " + err.Error(), err: err}
	}
	_ = e.phase.to(phaseFailed)
}

// asksNextLocked counts a process that is done with the running invoke.
func (e *Env) asksNextLocked(p *process, at int64) {
	inv := e.invoke
	if inv == nil || inv.ended() || !inv.waiting[p] {
		return
	}
	delete(inv.waiting, p)
	if p == e.runtime {
		inv.times.RuntimeDone = at
		e.reportRuntimeDoneLocked(inv, inv.status(), inv.errorType)
	}
	inv.times.Complete = max(inv.times.Complete, at)
	if len(inv.waiting) == 0 {
		inv.finish(nil)
		e.invokes = append(e.invokes, inv.times)
		e.reportInvokeLocked(inv, inv.status(), inv.errorType)
		e.invoke = nil
		_ = e.phase.to(phaseIdle)
	}
}

// result reports an ended invoke to the caller, and a failed one to telemetry.
func (e *Env) result(inv *invocation) InvokeResult {
	e.mu.Lock()
	defer e.mu.Unlock()
	r := InvokeResult{
		Status: inv.status(), ErrorType: inv.errorType,
		Response: inv.response, ContentType: inv.contentType, Err: inv.err,
	}
	if inv.err != nil {
		r.Status, r.ErrorType = statusFailure, errorFailure
		var f *failure
		switch {
		case errors.As(inv.err, &f):
			r.Status, r.ErrorType = statusError, f.errorType
		case errors.Is(inv.err, errTimeLimit), errors.Is(inv.err, context.DeadlineExceeded):
			r.Status, r.ErrorType = statusTimeout, errorTimeout
		}
		inv.times.Complete = 0
		if inv.times.RuntimeDone == 0 {
			e.reportRuntimeDoneLocked(inv, r.Status, r.ErrorType)
		}
		e.invokes = append(e.invokes, inv.times)
		e.reportInvokeLocked(inv, r.Status, r.ErrorType)
		if e.invoke == inv {
			e.invoke = nil
		}
	}
	r.InvokeTimes = inv.times
	return r
}

// status is how the function itself did.
func (i *invocation) status() string {
	if i.errorType != "" {
		return statusError
	}
	return statusSuccess
}

func (i *invocation) tracing() *tracing {
	return &tracing{Type: traceHeader, Value: i.trace}
}

// reportRuntimeDoneLocked emits platform.runtimeDone.
func (e *Env) reportRuntimeDoneLocked(inv *invocation, status, errorType string) {
	end := inv.times.RuntimeDone
	if end == 0 {
		end = monotonic()
	}
	record := runtimeDoneRecord{
		RequestID: inv.times.RequestID, Status: status, ErrorType: errorType, Tracing: inv.tracing(),
		Metrics: &runtimeDoneMetrics{DurationMs: millisecondsBetween(inv.times.Sent, end), ProducedBytes: len(inv.response)},
	}
	if inv.responded {
		record.Spans = []span{
			newSpan("responseLatency", inv.times.Sent, inv.times.Responded),
			newSpan("responseDuration", inv.times.Responded, inv.received),
			newSpan("runtimeOverhead", inv.received, end),
		}
	}
	e.relay.emit(categoryPlatform, "platform.runtimeDone", record)
}

// reportInvokeLocked emits platform.report of an invoke that is over, as the
// last of e.invokes.
func (e *Env) reportInvokeLocked(inv *invocation, status, errorType string) {
	end := inv.times.RuntimeDone
	if end == 0 {
		end = monotonic()
	}
	duration := millisecondsBetween(inv.times.Sent, end)
	metrics := reportMetrics{
		DurationMs: duration, BilledDurationMs: int64(math.Ceil(duration)), MemorySizeMB: e.config.MemoryMB,
	}
	if len(e.invokes) == 1 && e.config.InitializationType == OnDemand {
		metrics.InitDurationMs = millisecondsBetween(e.initStart, e.initEnd)
	}
	if e.config.MemoryUsed != nil {
		metrics.MaxMemoryUsedMB = e.config.MemoryUsed() >> 20
	}
	record := reportRecord{
		RequestID: inv.times.RequestID, Status: status, ErrorType: errorType,
		Metrics: metrics, Tracing: inv.tracing(),
	}
	if inv.times.RuntimeDone != 0 && inv.times.Complete > inv.times.RuntimeDone {
		record.Spans = []span{newSpan("extensionOverhead", inv.times.RuntimeDone, inv.times.Complete)}
	}
	e.relay.emit(categoryPlatform, "platform.report", record)
}
