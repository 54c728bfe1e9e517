package sandbox

import (
	"net/http"
	"regexp"
	"strings"
)

// Error types of the runtime API (RIE: internal/lambda/rapi/rendering).
const (
	errInvalidTransition   = "InvalidStateTransition"
	errInvalidRequestID    = "InvalidRequestID"
	errInvalidResponseMode = "InvalidFunctionResponseMode"

	errorResponseSize  = "Function.ResponseSizeTooLarge"
	errorTruncated     = "Runtime.TruncatedResponse"
	errorResponseMode  = "Runtime.InvalidResponseModeHeader"
	errorUnknown       = "Runtime.Unknown"
	errorFunctionOther = "Function.Unknown"
)

const (
	headerRuntimeErrorType = "Lambda-Runtime-Function-Error-Type"
	headerResponseMode     = "Lambda-Runtime-Function-Response-Mode"
)

// response is what a runtime answered to an event.
type response struct {
	body        []byte
	contentType string
	errorType   string // not empty: the function failed
}

// runtimeAsks is the runtime's next, up to the point where it waits.
func (e *Env) runtimeAsks(received int64) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.runtime.machine.at == stateRunning {
		return nil // asks again for what it was given: a broken connection
	}
	if err := e.runtime.machine.to(stateReady); err != nil {
		return err
	}
	e.runtime.given = nil
	if e.runtime.times.FirstNext == 0 {
		e.beginInitLocked(received) // where the caller did not announce the release
		e.runtime.times.FirstNext = received
		e.reportInitRuntimeDoneLocked()
		e.advanceInitLocked()
	}
	e.asksNextLocked(e.runtime, received)
	return nil
}

// runtimeNext is GET /2018-06-01/runtime/invocation/next.
func (e *Env) runtimeNext(c *call) *reply {
	if err := e.runtimeAsks(c.received); err != nil {
		return forbidTransition(err)
	}
	e.mu.Lock()
	event := e.runtime.given
	e.mu.Unlock()
	if event == nil {
		if event = e.await(c.Context(), e.runtime); event == nil {
			return nil
		}
	}
	return &reply{status: http.StatusOK, header: event.header, body: event.body, since: event.posted}
}

func forbidTransition(err error) *reply {
	return forbid(errInvalidTransition, "%s", explain(err, "runtime"))
}

// runtimeResponds takes the runtime's answer to the running invoke. to is
// stateResponse or stateErrorResponse.
func (e *Env) runtimeResponds(received int64, to state, r response) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.runtime.machine.to(to); err != nil {
		return err
	}
	if err := e.runtime.machine.to(stateResponseSent); err != nil {
		return err
	}
	e.runtime.given = nil
	if inv := e.invoke; inv != nil {
		inv.responded = true
		inv.times.Responded = received
		inv.received = monotonic()
		inv.response, inv.contentType, inv.errorType = r.body, r.contentType, r.errorType
	}
	return nil
}

// checkInvoke refuses an answer to another invoke than the running one, or at
// the wrong time.
func (e *Env) checkInvoke(id string, to state) *reply {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.invoke == nil || id != e.invoke.times.RequestID {
		return refuse(http.StatusBadRequest, errInvalidRequestID, "Invalid request ID")
	}
	if !e.runtime.machine.may(to) {
		return forbidTransition(&transitionError{from: e.runtime.machine.at, to: to})
	}
	return nil
}

// runtimeResponse is POST /2018-06-01/runtime/invocation/ID/response.
func (e *Env) runtimeResponse(c *call) *reply {
	if refusal := e.checkInvoke(c.id, stateResponse); refusal != nil {
		return refusal
	}
	mode := c.Header.Get(headerResponseMode)
	if mode != "" && mode != "streaming" {
		if err := e.runtimeResponds(c.received, stateErrorResponse, response{errorType: errorResponseMode}); err != nil {
			return forbidTransition(err)
		}
		return refuse(http.StatusBadRequest, errInvalidResponseMode, "Invalid function response mode")
	}
	body, refusal := c.readBody()
	r := response{body: body, contentType: c.Header.Get("Content-Type")}
	switch {
	case refusal != nil && refusal.status == http.StatusRequestEntityTooLarge:
		r = response{errorType: errorResponseSize}
	case refusal != nil:
		r = response{errorType: errorTruncated}
	case c.Trailer.Get(headerRuntimeErrorType) != "":
		// A streamed response that failed midway says so behind its body.
		r.errorType = functionErrorType(c.Trailer.Get(headerRuntimeErrorType))
	}
	if err := e.runtimeResponds(c.received, stateResponse, r); err != nil {
		return forbidTransition(err)
	}
	if refusal != nil {
		return refusal
	}
	return accepted()
}

// runtimeError is POST /2018-06-01/runtime/invocation/ID/error.
func (e *Env) runtimeError(c *call) *reply {
	if refusal := e.checkInvoke(c.id, stateErrorResponse); refusal != nil {
		return refusal
	}
	body, refusal := c.readBody()
	if refusal != nil {
		return refusal
	}
	r := response{body: body, contentType: c.Header.Get("Content-Type"), errorType: functionErrorType(c.Header.Get(headerRuntimeErrorType))}
	if err := e.runtimeResponds(c.received, stateErrorResponse, r); err != nil {
		return forbidTransition(err)
	}
	return accepted()
}

// runtimeInitError is POST /2018-06-01/runtime/init/error.
func (e *Env) runtimeInitError(c *call) *reply {
	if _, refusal := c.readBody(); refusal != nil {
		return refusal
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if err := e.runtime.machine.to(stateInitError); err != nil {
		return forbidTransition(err)
	}
	reported := c.Header.Get(headerRuntimeErrorType)
	e.runtime.errorType = strings.Clone(reported)
	if e.phase.at != phaseShutdown && e.phase.at != phaseClosed {
		e.failLocked(&failure{
			status: InitReported, process: Runtime, errorType: functionErrorType(reported), reported: e.runtime.errorType,
			message: "the runtime reported InitError " + e.runtime.errorType,
		})
	}
	return accepted()
}

var validErrorType = regexp.MustCompile(`(Runtime|Function)\.[A-Z][a-zA-Z]+`)

// functionErrorType is the error type that Lambda makes of a reported one.
func functionErrorType(reported string) string {
	switch {
	case validErrorType.MatchString(reported):
		return strings.Clone(reported)
	case strings.HasPrefix(reported, "Function."):
		return errorFunctionOther
	default:
		return errorUnknown
	}
}
