// Package profile turns the timeline of a cold start into weighted stacks, one
// set a signal, and these into pprof profiles.
//
// It stands between phase and analysis: reports/flame draws the same stacks.
package profile

import (
	"fmt"
	"io"
	"strings"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Signals that profiles are made of.
const (
	CPU      = "cpu"
	OffCPU   = "off_cpu"
	Syscalls = "syscalls"
	Faults   = "faults"
)

// All lists the signals, in the order of reports.
var All = []string{CPU, OffCPU, Syscalls, Faults}

// Sample is a weighted stack.
type Sample struct {
	Stack  []symbolize.Location // leaf first
	Values []int64              // as the sample types of its signal
	Labels map[string]string
}

// types are the pprof sample types of each signal; the last one is the default.
var types = map[string][]*pprofile.ValueType{
	CPU:      {{Type: "samples", Unit: "count"}, {Type: "cpu", Unit: "nanoseconds"}},
	OffCPU:   {{Type: "waits", Unit: "count"}, {Type: "off_cpu", Unit: "nanoseconds"}},
	Syscalls: {{Type: "syscalls", Unit: "count"}, {Type: "syscall", Unit: "nanoseconds"}},
	Faults: {
		{Type: "minor_faults", Unit: "count"}, {Type: "major_faults", Unit: "count"}, {Type: "fault", Unit: "nanoseconds"},
	},
}

// Source is one cold start.
type Source struct {
	Timeline *trace.Timeline
	Found    phase.Result
	Resolver *symbolize.Resolver
	SampleHz int
}

// Collect returns the weighted stacks of a signal inside the window, clipped at
// the borders of phases.
func (s Source) Collect(signal string) []Sample {
	c := collector{Source: s}
	end := s.Found.End
	if end == 0 {
		end = s.Timeline.Stop
	}
	switch signal {
	case CPU:
		c.cpu(s.Found.Start, end)
	case OffCPU:
		c.offCPU(s.Found.Start, end)
	case Syscalls:
		c.syscalls(s.Found.Start, end)
	case Faults:
		c.faults(s.Found.Start, end)
	}
	return c.samples
}

type collector struct {
	Source
	samples []Sample
}

func (c *collector) cpu(from, to int64) {
	if c.SampleHz == 0 {
		return
	}
	period := int64(1e9) / int64(c.SampleHz)
	for _, s := range c.Timeline.Samples {
		if s.Time < from || s.Time >= to {
			continue
		}
		state := trace.StateUser
		if s.Kernel {
			state = trace.StateKernel
		}
		c.add(s.PID, s.Time, s.Stack, []int64{1, period}, s.Thread, "state", state.String())
	}
}

func (c *collector) offCPU(from, to int64) {
	for _, t := range c.Timeline.Threads {
		for i := range t.Between(from, to) {
			if i.State != trace.StateWaiting && i.State != trace.StateRunnable {
				continue
			}
			labels := []string{"state", i.State.String()}
			if i.Syscall != nil {
				labels = append(labels, "syscall", c.Timeline.SyscallName(i.Syscall.Syscall))
			}
			at := i.Start
			if i.Left != nil {
				at = i.Left.Time
			}
			c.split(i.Start, i.End, func(ns int64, first bool, phase string) {
				count := int64(0)
				if first {
					count = 1
				}
				c.add(t.PID, at, i.Stack(), []int64{count, ns}, t, append(labels, "phase", phase)...)
			})
		}
	}
}

func (c *collector) syscalls(from, to int64) {
	for _, call := range c.Timeline.Calls {
		if call.Until < from || call.Begin >= to {
			continue
		}
		name := c.Timeline.SyscallName(call.Syscall)
		at := call.Begin
		if strings.HasPrefix(name, "execve") && call.Returned() && call.Return == 0 {
			at = call.Until + 1 // its stack is the new program's
		}
		c.split(max(call.Begin, from), min(call.Until, to), func(ns int64, first bool, phase string) {
			count := int64(0)
			if first {
				count = 1
			}
			c.add(call.PID, at, call.Stack, []int64{count, ns}, call.Thread, "syscall", name, "phase", phase)
		})
	}
}

func (c *collector) faults(from, to int64) {
	for _, f := range c.Timeline.Faults {
		if f.Begin < from || f.Begin >= to {
			continue
		}
		minor, major := int64(1), int64(0)
		if f.Major {
			minor, major = 0, 1
		}
		c.split(f.Begin, min(f.Until, to), func(ns int64, first bool, phase string) {
			if !first {
				minor, major = 0, 0
			}
			c.add(f.PID, f.Begin, f.Stack, []int64{minor, major, ns}, f.Thread, "mapping", f.Region.Path, "phase", phase)
		})
	}
}

// split calls f for each part of [from, to) that lies in one phase.
func (c *collector) split(from, to int64, f func(ns int64, first bool, phase string)) {
	first := true
	for _, p := range c.Found.Phases {
		a, b := max(from, p.Start), min(to, p.End)
		if a < b || (a == b && first && from == to && a < p.End) {
			f(b-a, first, p.Name)
			first = false
		}
	}
	if first {
		f(max(0, to-from), true, "")
	}
}

func (c *collector) add(pid int, at int64, s trace.Stack, values []int64, t *trace.Thread, labels ...string) {
	sample := Sample{Stack: c.locations(pid, at, s), Values: values, Labels: map[string]string{}}
	for i := 0; i+1 < len(labels); i += 2 {
		if labels[i+1] != "" {
			sample.Labels[labels[i]] = labels[i+1]
		}
	}
	if _, ok := sample.Labels["phase"]; !ok {
		if p := c.Found.At(at); p != "" {
			sample.Labels["phase"] = p
		}
	}
	if t != nil {
		sample.Labels["thread"] = t.Label()
	}
	c.samples = append(c.samples, sample)
}

// locations names a stack. The frames of the tracer itself on top of the
// kernel's part are cut off, and the caller of a function without a frame,
// which frame pointers skip, is put back.
func (c *collector) locations(pid int, at int64, s trace.Stack) []symbolize.Location {
	all := make([]symbolize.Location, 0, len(s.Kernel)+len(s.User)+1)
	for i, a := range s.Kernel {
		l := c.Resolver.Resolve(pid, at, a, true, i > 0)
		if name := l.Function(); name == "__schedule" || name == "schedule" {
			all = all[:0]
			continue
		}
		all = append(all, l)
	}
	for i, a := range s.User {
		l := c.Resolver.Resolve(pid, at, a, false, i > 0)
		if l.Module == "" && i > 0 && len(l.Frames) == 0 {
			break // no code lies there: the frame pointer was none
		}
		all = append(all, l)
		if i == 0 && len(l.Frames) > 0 && strings.HasSuffix(l.Frames[0].File, ".s") && s.Caller != 0 &&
			(len(s.User) == 1 || s.User[1] != s.Caller) {
			if caller := c.Resolver.Resolve(pid, at, s.Caller, false, true); len(caller.Frames) > 0 && caller.Module == l.Module {
				all = append(all, caller)
			}
		}
	}
	return all
}

// Builder makes one pprof profile of many cold starts.
type Builder struct {
	profile   *pprofile.Profile
	mappings  map[string]*pprofile.Mapping
	functions map[string]*pprofile.Function
	locations map[string]*pprofile.Location
	samples   map[string]*pprofile.Sample
}

// NewBuilder starts the profile of a signal. main is the subject's file, whose
// mapping comes first.
func NewBuilder(signal, main, buildID string, comments []string) *Builder {
	b := &Builder{
		profile: &pprofile.Profile{
			SampleType: types[signal], Comments: comments,
			DefaultSampleType: types[signal][len(types[signal])-1].Type,
		},
		mappings: map[string]*pprofile.Mapping{}, functions: map[string]*pprofile.Function{},
		locations: map[string]*pprofile.Location{}, samples: map[string]*pprofile.Sample{},
	}
	b.mapping(main, buildID)
	return b
}

func (b *Builder) mapping(path, buildID string) *pprofile.Mapping {
	if path == "" {
		path = "[unknown]"
	}
	m := b.mappings[path]
	if m == nil {
		m = &pprofile.Mapping{
			ID: uint64(len(b.profile.Mapping) + 1), File: path, BuildID: buildID,
			HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true,
		}
		b.mappings[path] = m
		b.profile.Mapping = append(b.profile.Mapping, m)
	}
	if m.BuildID == "" {
		m.BuildID = buildID
	}
	return m
}

// Add adds the samples of one cold start.
func (b *Builder) Add(samples []Sample) {
	for _, s := range samples {
		var key strings.Builder
		for _, l := range s.Stack {
			fmt.Fprintf(&key, "%s+%x;", l.Module, l.Address)
		}
		for _, name := range []string{"phase", "state", "thread", "syscall", "mapping"} {
			key.WriteString("|" + s.Labels[name])
		}
		known := b.samples[key.String()]
		if known == nil {
			known = &pprofile.Sample{Value: make([]int64, len(s.Values)), Label: map[string][]string{}}
			for name, value := range s.Labels {
				known.Label[name] = []string{value}
			}
			for _, l := range s.Stack {
				known.Location = append(known.Location, b.location(l))
			}
			b.samples[key.String()] = known
			b.profile.Sample = append(b.profile.Sample, known)
		}
		for i, v := range s.Values {
			known.Value[i] += v
		}
	}
}

func (b *Builder) location(l symbolize.Location) *pprofile.Location {
	key := fmt.Sprintf("%s+%x", l.Module, l.Address)
	if known := b.locations[key]; known != nil {
		return known
	}
	out := &pprofile.Location{ID: uint64(len(b.profile.Location) + 1), Mapping: b.mapping(l.Module, l.BuildID), Address: l.Address}
	for _, f := range l.Frames {
		out.Line = append(out.Line, pprofile.Line{Function: b.function(f), Line: int64(f.Line)})
	}
	if len(out.Line) == 0 { // an address without a name keeps module and offset
		out.Line = []pprofile.Line{{Function: b.function(symbolize.Frame{Function: Unnamed(l)})}}
	}
	b.locations[key] = out
	b.profile.Location = append(b.profile.Location, out)
	return out
}

// Unnamed is how a location without a name is shown: module+offset.
func Unnamed(l symbolize.Location) string {
	module := l.Module[strings.LastIndexByte(l.Module, '/')+1:]
	if module == "" {
		module = "[unknown]"
	}
	return fmt.Sprintf("%s+%#x", module, l.Address)
}

func (b *Builder) function(f symbolize.Frame) *pprofile.Function {
	key := f.Function + "\x00" + f.File
	known := b.functions[key]
	if known == nil {
		known = &pprofile.Function{
			ID: uint64(len(b.profile.Function) + 1), Name: f.Function, SystemName: f.Function, Filename: f.File,
		}
		b.functions[key] = known
		b.profile.Function = append(b.profile.Function, known)
	}
	return known
}

// Write checks the profile and writes it, compressed.
func (b *Builder) Write(w io.Writer) error {
	if err := b.profile.CheckValid(); err != nil {
		return fmt.Errorf("profile: %w", err)
	}
	return b.profile.Write(w)
}
