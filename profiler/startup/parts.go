package startup

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
)

// Part is a share of one of the phases loader and runtime_init, which a
// program's own timer cannot see. The parts of a phase tile it: what none of
// them explains is the part Rest.
type Part struct {
	Phase string
	Name  string
	NS    int64
}

// Names of parts.
const (
	PartMapping      = "map objects"
	PartRelocation   = "relocate objects"
	PartConstructors = "run constructors"
	PartBinding      = "bind symbols"
	PartPackages     = "initialise packages"
	PartCertificates = "load certificates"
	Rest             = "rest"
)

// piece is an interval that explains part of a phase. Of those that overlap,
// the one that began last counts: calls nest.
type piece struct {
	start, end int64
	name       string
}

// parts divides the two phases among what was seen of the thread that starts
// the program.
func (c *computation) parts() {
	var pieces []piece
	add := func(name string, s Span) {
		if s.End > s.Start {
			pieces = append(pieces, piece{s.Start, s.End, name})
		}
	}
	for _, s := range c.objectMappings() {
		add(PartMapping, s.Span)
	}
	for _, o := range c.Objects {
		add(PartRelocation, o.Relocation)
	}
	for _, f := range c.calls(loader.CallInit) {
		add(PartConstructors, c.span(f))
	}
	for _, b := range c.Bindings {
		add(PartBinding, b.Span)
	}
	for _, s := range c.Stages {
		if s.Function == loadGoRoots {
			add(PartCertificates, s.Span)
			continue
		}
		add(s.Function, s.Span)
	}
	for _, p := range c.Packages {
		add(PartPackages, p.Span)
	}
	for _, p := range c.Phases.Phases {
		if p.Name == phase.Loader || p.Name == phase.RuntimeInit {
			c.Parts = append(c.Parts, divide(p, pieces)...)
		}
	}
}

// divide gives each nanosecond of a phase to the piece around it that began last.
func divide(p phase.Phase, pieces []piece) []Part {
	var inside []piece
	edges := []int64{p.Start, p.End}
	for _, x := range pieces {
		x.start, x.end = max(x.start, p.Start), min(x.end, p.End)
		if x.start < x.end {
			inside = append(inside, x)
			edges = append(edges, x.start, x.end)
		}
	}
	if len(inside) == 0 {
		return nil
	}
	slices.Sort(edges)
	edges = slices.Compact(edges)
	slices.SortStableFunc(inside, func(x, y piece) int { return cmp.Compare(x.start, y.start) })
	ns := map[string]int64{}
	var open []piece
	next := 0
	for i := 0; i+1 < len(edges); i++ {
		at := edges[i]
		for next < len(inside) && inside[next].start <= at {
			open = append(open, inside[next])
			next++
		}
		open = slices.DeleteFunc(open, func(x piece) bool { return x.end <= at })
		name := Rest
		if len(open) > 0 {
			name = open[len(open)-1].name
		}
		ns[name] += edges[i+1] - at
	}
	var parts []Part
	for name, n := range ns {
		parts = append(parts, Part{Phase: p.Name, Name: name, NS: n})
	}
	slices.SortFunc(parts, func(x, y Part) int {
		return cmp.Or(cmp.Compare(y.NS, x.NS), cmp.Compare(x.Name, y.Name))
	})
	return parts
}
