package profile

import (
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/trace"
)

// addWall adds the critical path. The leaf of what did not run is what it
// waited for, or who held the CPU, and that of the tracer's own share says so.
func (b *Builder) addWall(c ColdStart) {
	if c.Ledger == nil {
		return
	}
	for i := range c.Ledger.Steps {
		s := &c.Ledger.Steps[i]
		l := labels{phase: s.Phase, category: s.Category, state: s.State.String(), waker: s.Waker, goroutine: goroutineLabel(c, s.Goroutine)}
		if s.Thread != nil {
			l.thread = s.Thread.Label()
		}
		leaf := ""
		switch {
		case s.State == trace.StateRunnable:
			leaf = "[runnable behind " + s.Behind + "]"
		case s.State == trace.StateWaiting && s.WaitsFor != "":
			leaf = "[waits for " + s.WaitsFor + "]"
		case s.State == trace.StateWaiting:
			leaf = "[unknown waker]"
		}
		if own := s.NS() - s.MeasurementNS; own > 0 {
			b.signals[Wall].addUnder(c, s.PID, s.StackAt, s.Stack, leaf, false, l, own)
		}
		if s.MeasurementNS > 0 {
			l.category = ledger.Measurement
			b.signals[Wall].addUnder(c, s.PID, s.StackAt, s.Stack, "[measurement]", false, l, s.MeasurementNS)
		}
	}
}
