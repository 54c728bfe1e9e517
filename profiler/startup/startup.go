// Package startup accounts for what a program does before and beside its own
// code while it starts: what the dynamic loader mapped, relocated and bound,
// the stages of Go's runtime and the initialisation of packages, certificates
// that were loaded and allocators that were set up.
//
// It reads one cold start's timeline (trace), phases (phase), names (symbolize)
// and the facts of its objects (loader); profile and analysis stand to its
// right. All times are CLOCK_MONOTONIC, all durations nanoseconds; only what
// began inside the window counts.
package startup

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// Resolver tells what stood at an address: a *symbolize.Resolver.
type Resolver interface {
	Mapping(pid int, at int64, address uint64) *trace.Mapping
	Resolve(pid int, at int64, address uint64, kernel, returnAddress bool) symbolize.Location
}

// Input is one cold start.
type Input struct {
	Timeline *trace.Timeline
	Phases   *phase.Result
	Resolver Resolver
	Facts    loader.Objects // of the files that were mapped
}

// Span is a stretch of one thread's time.
type Span struct {
	Start, End int64
	Thread     *trace.Thread
}

// NS is the span's length.
func (s Span) NS() int64 { return s.End - s.Start }

// Result is what one cold start did.
type Result struct {
	Bindings   []Binding // lazy ones, by time
	Objects    []Object  // by the time of their relocation
	Dlopens    []Lookup  // by time
	Dlsyms     []Lookup  // by time
	Stages     []Stage   // of Go's runtime and others, by time
	Packages   []Package // of Go, by time
	Certs      []Cert
	Allocators []Allocator
	Parts      []Part // of the phases loader and runtime_init
	Warnings   []string
}

// Stage is one call of a function that a start passes.
type Stage struct {
	Span
	Function     string
	Minor, Major int
}

// Compute accounts for one cold start.
func Compute(in Input) *Result {
	c := &computation{Input: in, Result: &Result{}}
	if in.Timeline == nil || in.Phases == nil {
		return c.Result
	}
	c.loader()
	c.musl()
	c.golang()
	c.certs()
	c.allocators()
	c.parts()
	return c.Result
}

type computation struct {
	Input
	*Result
	maps []objectMapping // nil: not looked for yet

	jemallocPrefix string // of the functions of a jemalloc that was built with one
}

// warn keeps each warning once.
func (c *computation) warn(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(c.Warnings, text) {
		c.Warnings = append(c.Warnings, text)
	}
}

// inside reports whether a time lies in the window.
func (c *computation) inside(at int64) bool {
	return at >= c.Phases.Start && at < c.Phases.End
}

// calls yields the calls of a probed function that began inside the window.
func (c *computation) calls(names ...string) (calls []*trace.ThreadFunction) {
	for _, f := range c.Timeline.Functions {
		if c.inside(f.Time) && slices.Contains(names, f.Name) {
			calls = append(calls, f)
		}
	}
	return calls
}

// span clips a call to the window. One that was left without a return is empty:
// when that was is not known.
func (c *computation) span(f *trace.ThreadFunction) Span {
	return Span{Start: f.Time, End: max(f.Time, min(f.End, c.Phases.End)), Thread: f.Thread}
}

func byStart[T any](list []T, start func(T) int64) {
	slices.SortStableFunc(list, func(x, y T) int { return cmp.Compare(start(x), start(y)) })
}

// faults counts the faults that a thread took within a span.
func faults(s Span) (minor, major int, ns int64) {
	if s.Thread == nil {
		return 0, 0, 0
	}
	for _, f := range s.Thread.Faults {
		if f.Begin < s.Start || f.Begin >= s.End {
			continue
		}
		ns += f.Until - f.Begin
		if f.Major {
			major++
		} else {
			minor++
		}
	}
	return minor, major, ns
}
