package sandbox

import (
	"fmt"
	"slices"
)

// InitStatus is how INIT ended.
type InitStatus string

// The ways in which INIT ends.
const (
	InitPending  InitStatus = ""           // it did not end yet
	InitSuccess  InitStatus = "success"    // everybody asked for next
	InitReported InitStatus = "init_error" // a process reported init/error or exit/error
	InitCrashed  InitStatus = "crashed"    // a process ended while INIT lasted
	InitTimeout  InitStatus = "timeout"    // AbortInit
	InitAborted  InitStatus = "aborted"    // Close or Shutdown before the end
)

// Lambda's types of fatal errors (RIE: internal/lambda/fatalerror).
const (
	errorExtensionInit  = "Extension.InitError"
	errorExtensionExit  = "Extension.ExitError"
	errorExtensionCrash = "Extension.Crash"
	errorRuntimeExit    = "Runtime.ExitError"
	errorTimeout        = "Sandbox.Timeout"
	errorFailure        = "Sandbox.Failure"
)

// InitOutcome is how INIT ended, and through whom.
type InitOutcome struct {
	Status    InitStatus
	Process   string // the process that ended it: an extension's file name, or Runtime
	ErrorType string // Lambda's: Extension.InitError, Extension.Crash, Runtime.ExitError, …
	Reported  string // the error type that the process reported itself
	Message   string // one sentence without a full stop
	Err       error  // how the process ended, where it did
}

// failure is the first fatal thing that happened; what follows from it does not
// replace it.
type failure struct {
	status    InitStatus
	process   string
	errorType string
	reported  string
	message   string
	err       error
}

func (f *failure) Error() string { return f.message }
func (f *failure) Unwrap() error { return f.err }

// title names a process in a sentence.
func title(name string) string {
	if name == Runtime {
		return "the runtime"
	}
	return "extension " + name
}

func crashOf(p *process, err error) *failure {
	f := &failure{status: InitCrashed, process: p.name, errorType: errorExtensionCrash, err: err}
	if p.name == Runtime {
		f.errorType = errorRuntimeExit
	}
	how := "exit status 0"
	if err != nil {
		how = err.Error()
	}
	f.message = fmt.Sprintf("%s ended by itself: %s", title(p.name), how)
	return f
}

// failLocked records a fatal thing and ends what it makes impossible.
func (e *Env) failLocked(f *failure) {
	if e.failure == nil {
		e.failure = f
	}
	f = e.failure
	switch e.phase.at {
	case phaseCreated, phaseInit:
		e.endInitLocked(InitOutcome{
			Status: f.status, Process: f.process, ErrorType: f.errorType,
			Reported: f.reported, Message: f.message, Err: f.err,
		})
	case phaseInvoke:
		e.invoke.finish(f)
	}
	_ = e.phase.to(phaseFailed)
}

// advanceInitLocked ends INIT when nobody is missing.
func (e *Env) advanceInitLocked() {
	if e.phase.at != phaseInit || e.runtime.times.FirstNext == 0 {
		return
	}
	end := e.runtime.times.FirstNext
	for _, p := range e.extensions {
		if p.times.FirstNext == 0 {
			return
		}
		end = max(end, p.times.FirstNext)
	}
	e.initEnd = end
	e.endInitLocked(InitOutcome{Status: InitSuccess})
	_ = e.phase.to(phaseIdle)
}

// endInitLocked tells everybody that INIT is over, once.
func (e *Env) endInitLocked(outcome InitOutcome) {
	if e.outcome.Status != InitPending {
		return
	}
	e.outcome = outcome
	if e.initEnd == 0 {
		e.initEnd = monotonic()
	}
	if e.initStart != 0 {
		e.reportInitLocked()
	}
	e.relay.endInit()
	close(e.initDone)
}

// reportInitLocked emits what telemetry says of the end of INIT:
// initRuntimeDone unless the runtime got that far before, one
// platform.extension per extension, initReport.
func (e *Env) reportInitLocked() {
	if e.runtime.times.FirstNext == 0 {
		e.reportInitRuntimeDoneLocked()
	}
	for _, p := range e.extensions {
		record := extensionRecord{Name: p.name, State: string(p.machine.at), Events: slices.Clone(p.events), ErrorType: p.errorType}
		if record.Events == nil {
			record.Events = []string{}
		}
		e.relay.emit(categoryPlatform, "platform.extension", record)
	}
	e.relay.emit(categoryPlatform, "platform.initReport", initReportRecord{
		InitializationType: e.config.InitializationType,
		Phase:              "init",
		Status:             e.telemetryStatusLocked(),
		ErrorType:          e.outcome.ErrorType,
		Metrics:            initMetrics{DurationMs: millisecondsBetween(e.initStart, e.initEnd)},
	})
}

// reportInitRuntimeDoneLocked emits platform.initRuntimeDone.
func (e *Env) reportInitRuntimeDoneLocked() {
	e.relay.emit(categoryPlatform, "platform.initRuntimeDone", initRuntimeDoneRecord{
		InitializationType: e.config.InitializationType,
		Phase:              "init",
		Status:             e.telemetryStatusLocked(),
		ErrorType:          e.outcome.ErrorType,
	})
}

// telemetryStatusLocked is INIT's status in telemetry's words.
func (e *Env) telemetryStatusLocked() string {
	switch e.outcome.Status {
	case InitPending, InitSuccess:
		return statusSuccess
	case InitTimeout:
		return statusTimeout
	default:
		return statusError
	}
}

// InitOutcome is how INIT ended; its Status is InitPending before InitDone.
func (e *Env) InitOutcome() InitOutcome {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.outcome
}
