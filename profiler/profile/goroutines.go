package profile

import (
	"strconv"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// Goroutines is what goroutines did: on_cpu, runqueue, fault, syscall, runnable,
// waiting, all in nanoseconds. A stack is the goroutine's own: where it parked,
// or else its system call's, or else its first function below its go statement.
const Goroutines Signal = "goroutines"

// goroutineTypes lists a sample type for each state. The default is the last
// one: what goroutines wait for.
func goroutineTypes() []*pprofile.ValueType {
	var types []*pprofile.ValueType
	for s := range trace.GoStateCount {
		types = append(types, &pprofile.ValueType{Type: s.String(), Unit: "nanoseconds"})
	}
	return types
}

// addGoroutines adds the time of all goroutines in a phase.
func (b *Builder) addGoroutines(c ColdStart, p phase.Phase) {
	for _, g := range c.Timeline.Goroutines {
		name := goroutineLabel(c, g)
		for i := range g.Between(p.Start, p.End) {
			if i.Reason == trace.NotSeen {
				continue
			}
			values := make([]int64, trace.GoStateCount)
			values[i.State] = i.NS()
			l := labels{phase: p.Name, state: i.State.String(), goroutine: name, reason: i.Reason}
			if i.Thread != nil {
				l.thread = i.Thread.Label()
			}
			stack := i.Stack
			if i.Call != nil {
				l.syscall = c.Timeline.SyscallName(i.Call.Syscall)
				stack = i.Call.Stack
			}
			if stack.Empty() {
				stack = trace.Stack{User: []uint64{g.StartPC}}
			}
			b.signals[Goroutines].add(c, g.PID, max(g.Start, i.Start), stack, l, values...)
		}
	}
}

// goroutineLabel names a goroutine by its ID and its first function.
func goroutineLabel(c ColdStart, g *trace.GoroutineLife) string {
	if g == nil {
		return ""
	}
	label := strconv.FormatUint(g.ID, 10)
	if c.Symbolizer != nil && g.StartPC != 0 {
		l := c.Symbolizer.Resolve(g.PID, g.Start, g.StartPC, false, false)
		if f := l.Function(); f != "" {
			label += " " + f
		}
	}
	return label
}

// isGoroutines tells the profile of goroutines by its sample types.
func isGoroutines(p *pprofile.Profile) bool { return p.SampleType[0].Type == trace.GoOnCPU.String() }
