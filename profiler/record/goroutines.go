package record

import (
	"fmt"

	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// goroutinePlan is how the goroutines of a session's cold starts are to be seen.
type goroutinePlan struct {
	plan    *probe.Goroutines
	missing error
}

// planGoroutines plans for one of the programs that were executed. The command
// itself wins over what it executes in turn.
func (s *session) planGoroutines(path string, p probe.Program, o *symbolize.Object) {
	if s.goroutines.plan != nil && path != s.opts.ColdStart.Command[0] {
		return
	}
	_, version := o.Language()
	plan, err := probe.PlanGoroutines(p, o, version)
	switch {
	case plan != nil:
		plan.Path = path
		s.goroutines = goroutinePlan{plan: plan}
	case s.goroutines.plan == nil && (s.goroutines.missing == nil || p.Go):
		s.goroutines.missing = err
	}
}

// watchGoroutines puts the plan into effect, once all programs are known.
func (s *session) watchGoroutines() {
	if s.goroutines.plan == nil && s.goroutines.missing == nil {
		s.goroutines.missing = fmt.Errorf("%w: no Go program was executed", probe.ErrNoGoroutines)
	}
	s.tracer.WatchGoroutines(s.goroutines.plan, s.goroutines.missing)
}

// goroutineAddresses are where goroutines came from and what they run.
func goroutineAddresses(events []trace.Event) []symbolize.Address {
	var all []symbolize.Address
	for _, e := range events {
		if g, ok := e.(*trace.Goroutine); ok && g.StartPC != 0 {
			all = append(all, symbolize.Address{PID: g.PID, Time: g.Time, Value: g.StartPC},
				symbolize.Address{PID: g.PID, Time: g.Time, Value: g.CreatedPC, Return: true})
		}
	}
	return all
}
