package profile

import (
	"strconv"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/trace"
)

// Goroutines is what goroutines did: on_cpu, runqueue, fault, syscall, runnable,
// waiting, all in nanoseconds. A stack is the goroutine's own: where it parked,
// or else its system call's, or else its first function below its go statement.
//
// How long it was on a CPU is measured, where there is sampled: each of its
// samples stands for the time between two, or less, if they were more than that
// time holds. What no sample stands for has the first function and NotSampled.
const Goroutines Signal = "goroutines"

// NotSampled is the leaf of time on a CPU that no sample stands for.
const NotSampled = "[not sampled]"

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
func (b *Builder) addGoroutines(c ColdStart, p phase.Phase, samples map[*trace.GoroutineLife][]*trace.ThreadSample) {
	for _, g := range c.Timeline.Goroutines {
		name := goroutineLabel(c, g)
		onCPU := map[*trace.Thread]int64{}
		var threads []*trace.Thread // in the order in which it ran on them
		for i := range g.Between(p.Start, p.End) {
			if i.Reason == trace.NotSeen {
				continue
			}
			if i.State == trace.GoOnCPU {
				if onCPU[i.Thread] == 0 {
					threads = append(threads, i.Thread)
				}
				onCPU[i.Thread] += i.NS()
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
		for _, t := range threads {
			l := labels{phase: p.Name, state: trace.GoOnCPU.String(), goroutine: name, thread: t.Label()}
			var hits []*trace.ThreadSample
			for _, s := range samples[g] {
				if s.Thread == t && p.Start <= s.Time && s.Time < p.End {
					hits = append(hits, s)
				}
			}
			b.addOnCPU(c, g, hits, onCPU[t], l)
		}
	}
}

// addOnCPU divides what a goroutine had of a CPU among its samples.
func (b *Builder) addOnCPU(c ColdStart, g *trace.GoroutineLife, samples []*trace.ThreadSample, total int64, l labels) {
	weights := make([]int64, len(samples))
	for n := range weights {
		weights[n] = 1
	}
	values := make([]int64, trace.GoStateCount)
	rest := total
	for n, ns := range stat.Apportion(min(total, int64(len(samples))*b.opts.Period.Nanoseconds()), weights) {
		values[trace.GoOnCPU] = ns
		rest -= ns
		if ns == 0 {
			continue
		}
		b.signals[Goroutines].add(c, g.PID, samples[n].Time, samples[n].Stack, l, values...)
	}
	if rest > 0 {
		values[trace.GoOnCPU] = rest
		b.signals[Goroutines].addUnder(c, g.PID, g.Start, trace.Stack{User: []uint64{g.StartPC}}, NotSampled, false, l, values...)
	}
}

// onCPUSamples are the samples with a stack that hit goroutines on a CPU.
func onCPUSamples(tl *trace.Timeline) map[*trace.GoroutineLife][]*trace.ThreadSample {
	samples := map[*trace.GoroutineLife][]*trace.ThreadSample{}
	for _, s := range tl.Samples {
		g := s.Thread.GoroutineAt(s.Time)
		if g == nil || s.Stack.Empty() {
			continue
		}
		for i := range g.Between(s.Time, s.Time+1) {
			if i.State == trace.GoOnCPU && i.Thread == s.Thread {
				samples[g] = append(samples[g], s)
			}
		}
	}
	return samples
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
