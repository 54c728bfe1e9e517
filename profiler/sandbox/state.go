package sandbox

import (
	"fmt"
	"slices"
)

// state is where an extension, the runtime or the environment stands. The names
// of extension and runtime states are Lambda's: they appear in error messages
// and in platform.extension.
type state string

const (
	stateStarted        state = "Started"
	stateRegistered     state = "Registered"
	stateReady          state = "Ready"   // asked for next
	stateRunning        state = "Running" // was given an event
	stateInitError      state = "InitError"
	stateExitError      state = "ExitError"
	stateExited         state = "Exited"
	stateShutdownFailed state = "ShutdownFailed"

	// Of the runtime only.
	stateResponse      state = "InvocationResponse"
	stateErrorResponse state = "InvocationErrorResponse"
	stateResponseSent  state = "RuntimeResponseSentState"

	// Of the environment only; Lambda shows them to nobody.
	phaseCreated  state = "created"  // nothing was released yet
	phaseInit     state = "init"     // the first process was released
	phaseIdle     state = "idle"     // INIT is over, or an invoke is
	phaseInvoke   state = "invoke"   // an event is out
	phaseFailed   state = "failed"   // INIT or an invoke failed
	phaseShutdown state = "shutdown" // SHUTDOWN is out
	phaseClosed   state = "closed"
)

// transitions is a state machine's table: the states that may follow each.
type transitions map[state][]state

// extensionTable is RIE's (internal/lambda/core/externalagent_states.go), with
// the end of the process allowed everywhere, because processes die everywhere.
var extensionTable = transitions{
	stateStarted:    {stateRegistered, stateExited, stateShutdownFailed},
	stateRegistered: {stateReady, stateInitError, stateExitError, stateExited, stateShutdownFailed},
	stateReady:      {stateRunning, stateExitError, stateExited, stateShutdownFailed},
	stateRunning:    {stateReady, stateExitError, stateExited, stateShutdownFailed},
	stateInitError:  {stateInitError, stateExited, stateShutdownFailed},
	stateExitError:  {stateExitError, stateExited, stateShutdownFailed},
}

// runtimeTable is RIE's (internal/lambda/core/states.go) without SnapStart.
// Ready follows Ready because a runtime may ask again after a broken connection.
var runtimeTable = transitions{
	stateStarted:       {stateReady, stateInitError, stateExited},
	stateReady:         {stateReady, stateRunning, stateExited},
	stateRunning:       {stateResponse, stateErrorResponse, stateExited},
	stateResponse:      {stateResponseSent, stateExited},
	stateErrorResponse: {stateResponseSent, stateExited},
	stateResponseSent:  {stateReady, stateExited},
	stateInitError:     {stateExited},
}

var phaseTable = transitions{
	phaseCreated:  {phaseInit, phaseFailed, phaseShutdown, phaseClosed},
	phaseInit:     {phaseIdle, phaseFailed, phaseShutdown, phaseClosed},
	phaseIdle:     {phaseInvoke, phaseFailed, phaseShutdown, phaseClosed},
	phaseInvoke:   {phaseIdle, phaseFailed, phaseShutdown, phaseClosed},
	phaseFailed:   {phaseFailed, phaseShutdown, phaseClosed},
	phaseShutdown: {phaseClosed},
}

// machine is one state machine. It is not safe for concurrent use: the
// environment's lock guards it.
type machine struct {
	table transitions
	at    state
}

// transitionError is a step that the table does not allow. Its text is what
// Lambda puts behind "Error: " in its answers.
type transitionError struct{ from, to state }

func (e *transitionError) Error() string { return "State transition is not allowed" }

// to makes one step, or returns a *transitionError and stays.
func (m *machine) to(next state) error {
	if !m.may(next) {
		return &transitionError{from: m.at, to: next}
	}
	m.at = next
	return nil
}

// may tells whether the step is allowed.
func (m *machine) may(next state) bool { return slices.Contains(m.table[m.at], next) }

// explain is Lambda's message for a step that was refused. subject is
// "extension NAME" or "runtime".
func explain(err error, subject string) string {
	t, ok := err.(*transitionError)
	if !ok {
		return err.Error()
	}
	return fmt.Sprintf("State transition from %s to %s failed for %s. Error: %s", t.from, t.to, subject, t)
}
