// Package profile turns what threads did in the windows of cold starts into
// pprof profiles, one a signal. It reads timelines (trace), phases (phase) and
// frames (symbolize); analysis and the reports stand to its right. The flame
// graphs are drawn from these profiles too (Stacks), so that both say the same.
//
// Values are totals over the cold starts added, of which the comments hold the
// number. Whatever lasts longer than a phase is split at the phase's borders,
// and nothing outside of a window counts.
package profile

import (
	"cmp"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Signal is what a profile measures; it is also the name of its file.
type Signal string

// The signals. Each has the number of its events first and time next.
const (
	CPU      Signal = "cpu"      // samples/count, cpu/nanoseconds
	OffCPU   Signal = "off_cpu"  // waits/count, off_cpu/nanoseconds: runnable and waiting
	Syscalls Signal = "syscalls" // syscalls/count, syscall/nanoseconds: entry to exit
	Faults   Signal = "faults"   // minor_faults/count, major_faults/count, fault/nanoseconds
	Wall     Signal = "wall"     // wall/nanoseconds: the critical path
	Binding  Signal = "binding"  // bindings/count, binding/nanoseconds: lazy ones, and objects relocated
)

// Recorded lists those that are recorded, Signals also what is made of them.
var (
	Recorded = []Signal{CPU, OffCPU, Syscalls, Faults, Binding, Goroutines}
	Signals  = append([]Signal{Wall}, Recorded...)
)

// types lists the sample types of a signal, time last, which is the default.
func (s Signal) types() []*pprofile.ValueType {
	count := func(name string) *pprofile.ValueType { return &pprofile.ValueType{Type: name, Unit: "count"} }
	ns := func(name string) *pprofile.ValueType { return &pprofile.ValueType{Type: name, Unit: "nanoseconds"} }
	switch s {
	case Wall:
		return []*pprofile.ValueType{ns("wall")}
	case CPU:
		return []*pprofile.ValueType{count("samples"), ns("cpu")}
	case OffCPU:
		return []*pprofile.ValueType{count("waits"), ns("off_cpu")}
	case Syscalls:
		return []*pprofile.ValueType{count("syscalls"), ns("syscall")}
	case Binding:
		return []*pprofile.ValueType{count("bindings"), ns("binding")}
	case Faults:
		return []*pprofile.ValueType{count("minor_faults"), count("major_faults"), ns("fault")}
	case Goroutines:
		return goroutineTypes()
	}
	return nil
}

// Symbolizer names addresses: a *symbolize.Resolver.
type Symbolizer interface {
	Resolve(pid int, at int64, address uint64, kernel, returnAddress bool) symbolize.Location
}

// Options describes all cold starts of a builder.
type Options struct {
	Tool    string        // version of initprof
	Kernel  string        // release
	Main    string        // path of the main binary, whose mapping comes first
	BuildID string        // of the main binary
	Period  time.Duration // between two samples of a CPU; 0: no samples
	Time    time.Time     // when recording began; zero: not told
}

// ColdStart is one traced cold start.
type ColdStart struct {
	Timeline   *trace.Timeline
	Phases     *phase.Result
	Startup    *startup.Result // nil: no bindings are known
	Ledger     *ledger.Result  // nil: no critical path is known
	Symbolizer Symbolizer      // nil: addresses stay without names
	Lost       uint64          // events
}

// Builder adds up cold starts. It keeps what profiles hold and nothing of the
// cold starts themselves.
type Builder struct {
	opts       Options
	signals    map[Signal]*profileBuilder
	coldStarts int
	lost       uint64
	wall       int64
}

// NewBuilder returns a builder without any cold start.
func NewBuilder(opts Options) *Builder {
	b := &Builder{opts: opts, signals: map[Signal]*profileBuilder{}}
	for _, s := range Signals {
		b.signals[s] = newProfileBuilder(s, opts)
	}
	return b
}

// count tells whether a cold start has a window to take in.
func (b *Builder) count(c ColdStart) bool {
	if c.Timeline == nil || c.Phases == nil {
		return false
	}
	b.coldStarts++
	b.lost += c.Lost
	b.wall += c.Phases.End - c.Phases.Start
	return true
}

// AddWall takes in the critical path of a cold start and nothing else.
func (b *Builder) AddWall(c ColdStart) {
	if b.count(c) {
		b.addWall(c)
	}
}

// Add takes in the window of a cold start. One without timeline is left out.
func (b *Builder) Add(c ColdStart) {
	if !b.count(c) {
		return
	}
	samples := onCPUSamples(c.Timeline)
	for _, p := range c.Phases.Phases {
		b.addPhase(c, p)
		b.addGoroutines(c, p, samples)
	}
	from, to := c.Phases.Start, c.Phases.End
	for _, s := range c.Timeline.Samples {
		if p := c.Phases.At(s.Time); p != nil {
			labels := labels{phase: p.Name, thread: s.Thread.Label(), state: trace.StateUser.String()}
			labels.goroutine = goroutineLabel(c, s.Thread.GoroutineAt(s.Time))
			i := s.Thread.At(s.Time)
			if s.Kernel {
				labels.state = trace.StateKernel.String()
				if i != nil && i.Fault != nil {
					labels.state = trace.StateFault.String()
				}
				if i != nil && i.Syscall != nil {
					labels.syscall = c.Timeline.SyscallName(i.Syscall.Syscall)
				}
			}
			b.signals[CPU].add(c, s.PID, s.Time, s.Stack, labels, 1, b.opts.Period.Nanoseconds())
		}
	}
	for _, call := range c.Timeline.Calls {
		for p, ns := range split(c.Phases, call.Begin, call.Until, from, to) {
			l := labels{phase: p.Name, thread: call.Thread.Label(), syscall: c.Timeline.SyscallName(call.Syscall)}
			b.signals[Syscalls].add(c, call.PID, call.Begin, call.Stack, l, begins(p, call.Begin), ns)
		}
	}
	b.addBindings(c, from, to)
	b.addWall(c)
	for _, f := range c.Timeline.Faults {
		for p, ns := range split(c.Phases, f.Begin, f.Until, from, to) {
			l := labels{phase: p.Name, thread: f.Thread.Label(), mapping: cmp.Or(f.Region.Path, "[unknown]")}
			minor, major := begins(p, f.Begin), int64(0)
			if f.Major {
				minor, major = 0, minor
			}
			b.signals[Faults].add(c, f.PID, f.Begin, f.Stack, l, minor, major, ns)
		}
	}
}

// addPhase adds the time that threads spent off the CPUs. A wait counts where
// it began; the parts into which a call, a fault or an occupant divides it do
// not count again.
func (b *Builder) addPhase(c ColdStart, p phase.Phase) {
	for _, t := range c.Timeline.Threads {
		for i := range t.Between(p.Start, p.End) {
			if i.State.OnCPU() {
				continue
			}
			l := labels{phase: p.Name, thread: t.Label(), state: i.State.String(), goroutine: goroutineLabel(c, t.GoroutineAt(i.Start))}
			if i.Syscall != nil {
				l.syscall = c.Timeline.SyscallName(i.Syscall.Syscall)
			}
			count := int64(0)
			if i.Left != nil && i.Left.Time == i.Start {
				count = 1
			}
			b.signals[OffCPU].add(c, t.PID, i.Start, i.Stack(), l, count, i.NS())
		}
	}
}

// begins is 1 if the phase holds that time, else 0.
func begins(p *phase.Phase, at int64) int64 {
	if p.Start <= at && at < p.End {
		return 1
	}
	return 0
}

// split yields the phases that an interval, which begins inside the window,
// touches, with its length in each. An instant touches one, for 0 ns.
func split(r *phase.Result, begin, until, from, to int64) func(func(*phase.Phase, int64) bool) {
	return func(yield func(*phase.Phase, int64) bool) {
		if begin < from || begin >= to {
			return
		}
		for n := range r.Phases {
			p := &r.Phases[n]
			ns := min(until, p.End) - max(begin, p.Start)
			if (ns > 0 || begins(p, begin) == 1) && !yield(p, max(ns, 0)) {
				return
			}
		}
	}
}

// Profile returns the profile of a signal over all cold starts added so far,
// nil for a signal that is none. It is the builder's own: it changes with Add.
func (b *Builder) Profile(s Signal) *pprofile.Profile {
	pb := b.signals[s]
	if pb == nil {
		return nil
	}
	pb.Comments = []string{
		strings.TrimSpace("initprof " + b.opts.Tool),
		"kernel " + cmp.Or(b.opts.Kernel, "unknown"),
		"cold starts: " + strconv.Itoa(b.coldStarts) + " (values are totals; -divide_by " + strconv.Itoa(max(1, b.coldStarts)) + " gives the mean)",
		"lost events: " + strconv.FormatUint(b.lost, 10),
	}
	pb.DurationNanos = b.wall
	return &pb.Profile
}

// Write writes the profile of a signal as pprof reads it, gzip-compressed.
func (b *Builder) Write(s Signal, w io.Writer) error {
	p := b.Profile(s)
	if p == nil {
		return fmt.Errorf("no signal %q", s)
	}
	return p.Write(w)
}
