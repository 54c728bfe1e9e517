package sandbox

import (
	"errors"
	"testing"
)

var allStates = []state{
	stateStarted, stateRegistered, stateReady, stateRunning, stateInitError, stateExitError, stateExited,
	stateShutdownFailed, stateResponse, stateErrorResponse, stateResponseSent,
	phaseCreated, phaseInit, phaseIdle, phaseInvoke, phaseFailed, phaseShutdown, phaseClosed,
}

func TestMachineWalks(t *testing.T) {
	tests := []struct {
		name  string
		table transitions
		walk  []state
	}{
		{"extension", extensionTable, []state{stateStarted, stateRegistered, stateReady, stateRunning, stateReady, stateRunning, stateExited}},
		{"extension gives up", extensionTable, []state{stateStarted, stateRegistered, stateInitError, stateInitError, stateExited}},
		{"extension gives up later", extensionTable, []state{stateStarted, stateRegistered, stateReady, stateExitError, stateExitError, stateShutdownFailed}},
		{"runtime", runtimeTable, []state{stateStarted, stateReady, stateReady, stateRunning, stateResponse, stateResponseSent, stateReady}},
		{"runtime reports", runtimeTable, []state{stateStarted, stateReady, stateRunning, stateErrorResponse, stateResponseSent, stateReady, stateExited}},
		{"environment", phaseTable, []state{phaseCreated, phaseInit, phaseIdle, phaseInvoke, phaseIdle, phaseShutdown, phaseClosed}},
		{"environment fails", phaseTable, []state{phaseCreated, phaseInit, phaseFailed, phaseFailed, phaseShutdown, phaseClosed}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			m := machine{table: test.table, at: test.walk[0]}
			for _, next := range test.walk[1:] {
				from := m.at
				if err := m.to(next); err != nil {
					t.Fatalf("%s → %s: %v", from, next, err)
				}
			}
		})
	}
}

// TestMachineRefuses goes through every pair: what the table does not list is
// refused, and leaves the machine where it was.
func TestMachineRefuses(t *testing.T) {
	for name, table := range map[string]transitions{"extension": extensionTable, "runtime": runtimeTable, "environment": phaseTable} {
		for _, from := range allStates {
			for _, to := range allStates {
				m := machine{table: table, at: from}
				allowed := m.may(to)
				err := m.to(to)
				var refused *transitionError
				switch {
				case allowed && (err != nil || m.at != to):
					t.Errorf("%s: %s → %s: %v, at %s", name, from, to, err, m.at)
				case !allowed && (!errors.As(err, &refused) || m.at != from):
					t.Errorf("%s: %s → %s is not allowed, but: %v, at %s", name, from, to, err, m.at)
				}
			}
		}
	}
	// The ends of a life.
	for _, end := range []state{stateExited, stateShutdownFailed, phaseClosed} {
		for _, to := range allStates {
			for _, table := range []transitions{extensionTable, runtimeTable, phaseTable} {
				m := machine{table: table, at: end}
				if m.may(to) {
					t.Errorf("%s → %s: from a state that ends a life", end, to)
				}
			}
		}
	}
}

func TestExplain(t *testing.T) {
	m := machine{table: extensionTable, at: stateReady}
	got := explain(m.to(stateInitError), "extension x")
	if want := "State transition from Ready to InitError failed for extension x. Error: State transition is not allowed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
