// Package ledger blames each nanosecond of a cold start's window on exactly one
// thing: it finds the chain of work and waits that ended with the request that
// ends the window (the critical path), and divides it into cells of phase ×
// category × state.
//
// It reads one cold start's timeline (trace), phases (phase), what is known of
// its start-up (startup) and names (symbolize); profile and analysis stand to
// its right. docs/ledger.md describes the account in words.
package ledger

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Names names addresses: a *symbolize.Resolver.
type Names interface {
	Resolve(pid int, at int64, address uint64, kernel, returnAddress bool) symbolize.Location
}

// Input is one cold start.
type Input struct {
	Timeline *trace.Timeline
	Phases   *phase.Result
	Startup  *startup.Result // nil: no exact spans are known
	Names    Names           // nil: only rules without functions and modules match
	Rules    *Rules          // nil: the built-in ones
	// Goroutines says that each change of a goroutine's status was recorded, so
	// that paths can follow goroutines. Otherwise they follow threads alone.
	Goroutines bool
	Costs      Costs // of the tracer, zero: DefaultCosts
}

// Result is the account of one cold start.
type Result struct {
	Start, End int64
	Steps      []Step // tile [Start, End), by time
	Overlapped []Overlap
	// UnknownWakerNS is the part of the steps in which it is not known what was
	// waited for; UnattributedNS the part in which the chain is lost altogether.
	UnknownWakerNS, UnattributedNS int64
}

// Step is a stretch of the critical path that is blamed on one thing.
type Step struct {
	Start, End int64
	Phase      string
	Category   string
	State      trace.State
	Thread     *trace.Thread        // nil: a parked goroutine's wait, or the chain is lost
	Goroutine  *trace.GoroutineLife // nil: none, or not known

	Stack   trace.Stack
	StackAt int64 // when it was taken: frames are those of the mappings of then
	PID     int   // whose addresses it holds

	Waker    string // waiting: who ended it
	WaitsFor string // waiting: for what, outside of the subject
	Wait     WaitKind
	Behind   string // runnable: who held the CPU

	// Sampled says that what lies on both sides is of different categories, and
	// nothing tells where in between the one ended: both got a half. Samples is
	// how many samples bound it.
	Sampled bool
	Samples int

	// MeasurementNS is what the step's events cost the tracer, at most NS.
	MeasurementNS int64
}

// NS is the step's length.
func (s *Step) NS() int64 { return s.End - s.Start }

// Overlap is work on CPUs off the critical path.
type Overlap struct {
	Category string
	NS       int64
}

// Measurement is the category of what the tracer itself costs, and Other that
// of what no rule matches.
const (
	Measurement = "measurement"
	Other       = "other"
)

// CellKey names a cell of the ledger.
type CellKey struct {
	Phase, Category string
	State           trace.State
}

// Cell is the sum of the steps of one key.
type Cell struct {
	CellKey
	NS      int64
	Sampled bool
	Samples int
	// Variance of NS that comes from dividing time between two events of
	// different categories, each point of it equally likely as the border.
	Variance float64
}

// Compute makes the account. The error is that of Check: a mistake of this
// package, never of a recording.
func Compute(in Input) (*Result, error) {
	if in.Rules == nil {
		in.Rules = BuiltIn()
	}
	if in.Costs == (Costs{}) {
		in.Costs = DefaultCosts
	}
	w := newWalk(in)
	r := &Result{Start: in.Phases.Start, End: in.Phases.End}
	segments := w.path()
	d := newDivider(w)
	for _, s := range segments {
		r.Steps = append(r.Steps, d.divide(s)...)
		if s.lost {
			r.UnattributedNS += s.to - s.from
		} else if s.wait == WaitUnknown && s.state == trace.StateWaiting {
			r.UnknownWakerNS += s.to - s.from
		}
	}
	r.Overlapped = d.overlapped(segments)
	return r, r.Check()
}

// Check verifies that the steps tile the window and that each has a category.
func (r *Result) Check() error {
	at := r.Start
	for n := range r.Steps {
		s := &r.Steps[n]
		if s.Start != at || s.End <= s.Start {
			return fmt.Errorf("step %d of the critical path is [%d, %d) where the one before it ends at %d", n, s.Start, s.End, at)
		}
		if s.Category == "" || s.Phase == "" {
			return fmt.Errorf("step %d of the critical path has no category or phase", n)
		}
		if s.MeasurementNS < 0 || s.MeasurementNS > s.NS() {
			return fmt.Errorf("step %d of the critical path has %d of %d ns of measurement", n, s.MeasurementNS, s.NS())
		}
		at = s.End
	}
	if at != r.End {
		return fmt.Errorf("the critical path ends at %d, the window at %d", at, r.End)
	}
	return nil
}

// Cells sums up the steps, in the order of phases, the greatest first in each.
func (r *Result) Cells() []Cell {
	sums := map[CellKey]*Cell{}
	var order []*Cell
	phases := map[string]int{}
	at := func(k CellKey) *Cell {
		c := sums[k]
		if c == nil {
			c = &Cell{CellKey: k}
			sums[k] = c
			order = append(order, c)
		}
		return c
	}
	for n := range r.Steps {
		s := &r.Steps[n]
		if _, ok := phases[s.Phase]; !ok {
			phases[s.Phase] = len(phases)
		}
		if own := s.NS() - s.MeasurementNS; own > 0 {
			c := at(CellKey{s.Phase, s.Category, s.State})
			c.NS += own
			if s.Sampled {
				c.Sampled = true
				c.Samples += s.Samples
				// The border lies anywhere in both halves: uniform over 2 NS.
				c.Variance += float64(2*own) * float64(2*own) / 12
			}
		}
		if s.MeasurementNS > 0 {
			at(CellKey{s.Phase, Measurement, s.State}).NS += s.MeasurementNS
		}
	}
	slices.SortStableFunc(order, func(x, y *Cell) int {
		return cmp.Or(cmp.Compare(phases[x.Phase], phases[y.Phase]), cmp.Compare(y.NS, x.NS), cmp.Compare(x.Category, y.Category))
	})
	cells := make([]Cell, len(order))
	for n, c := range order {
		cells[n] = *c
	}
	return cells
}

// Interval is the 95 % interval of a time with that variance.
func Interval(ns, variance float64) *[2]float64 {
	half := 1.96 * math.Sqrt(variance)
	return &[2]float64{ns - half, ns + half}
}
