package loader

import (
	"fmt"

	"github.com/initprof/initprof/profiler/probe"
)

// Names of the loader's functions, as events carry them.
const (
	Fixup      = "_dl_fixup"
	Relocate   = "_dl_relocate_object"
	Init       = "_dl_init"
	CallInit   = "call_init"
	Dlopen     = "_dl_open"
	MuslDlopen = "dlopen"
	MuslDlsym  = "dlsym"
)

// MuslStages are the functions that musl's loader goes through one after
// another, ending with the jump to the program's entry: it relocated itself,
// threads are up and the other objects are loaded.
var MuslStages = []string{"__dls2b", "__dls3"}

// planned are the functions that a recording wants, with what is read at each.
var planned = []struct {
	name   string
	action probe.Action
}{
	{Fixup, probe.RecordCallBinding},
	{Relocate, probe.RecordCallObject},
	{CallInit, probe.RecordCallObject},
	{Init, probe.RecordCallObject},
	{Dlopen, probe.RecordCallText0},
	{"__dls2b", probe.RecordMark},
	{"__dls3", probe.RecordMark},
	{MuslDlopen, probe.RecordCallText0},
	{MuslDlsym, probe.RecordCallText1},
}

// Plan plans the probes of the loader's functions. What was not found, or would
// be single-stepped, is missing with its reason.
func (l *Loader) Plan(allowStepping bool) probe.Plan {
	var plan probe.Plan
	if l.Kind == Unknown {
		plan.Missing = append(plan.Missing, "the loader is neither glibc's nor musl's: its time is one span, from exec to the program's entry")
		return plan
	}
	for _, want := range planned {
		f := l.Function(want.name)
		switch {
		case !knows(l.Kind, want.name):
		case !f.Found():
			plan.Missing = append(plan.Missing, fmt.Sprintf("%s: %s", want.name, f.Reason))
		default:
			f.plan(&plan, want.action, allowStepping)
		}
	}
	return plan
}

func knows(k Kind, name string) bool {
	for _, n := range FunctionNames[k] {
		if n == name {
			return true
		}
	}
	return false
}

func (f Function) plan(plan *probe.Plan, action probe.Action, allowStepping bool) {
	add := func(p Point, action probe.Action, apart bool) {
		kind := probe.Call
		if !action.IsCall() {
			kind = probe.Enter
		}
		plan.Points = append(plan.Points, probe.Point{
			Offset: p.Offset, Action: action, Kind: kind, Name: f.Name, ReturnsApart: apart, Steps: !p.Cost.Cheap(),
		})
	}
	switch {
	case f.Entry.Cost.Cheap() || allowStepping:
		add(f.Entry, action, false)
	case action.IsCall() && cheap(f.Calls) && cheap(f.Returns):
		for _, p := range f.Calls {
			add(p, action, true)
		}
		for _, p := range f.Returns {
			add(p, probe.RecordReturn, false)
		}
	default:
		plan.Missing = append(plan.Missing, probe.WouldStep(f.Name))
	}
}

// cheap reports whether there are points and each is cheap.
func cheap(points []Point) bool {
	for _, p := range points {
		if !p.Cost.Cheap() {
			return false
		}
	}
	return len(points) > 0
}
