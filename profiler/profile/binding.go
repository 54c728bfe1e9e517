package profile

import (
	"path"

	"github.com/initprof/initprof/profiler/startup"
)

// addBindings adds the symbols that were bound at their first call, each under
// its caller, and the relocation of objects, in which the others were bound.
// The leaf of each stack is what was bound, so that a flame graph names it.
func (b *Builder) addBindings(c ColdStart, from, to int64) {
	if c.Startup == nil {
		return
	}
	for _, x := range c.Startup.Bindings {
		for p, ns := range split(c.Phases, x.Start, x.End, from, to) {
			l := labels{phase: p.Name, thread: x.Thread.Label(), mapping: x.Object, state: startup.Lazy}
			name := x.Symbol
			if name == "" {
				name = "[unknown symbol]"
			}
			if x.Target != "" {
				name += " → " + path.Base(x.Target)
			}
			b.signals[Binding].addUnder(c, x.PID, x.End, x.Stack, name, true, l, begins(p, x.Start), ns)
		}
	}
	for _, o := range c.Startup.Objects {
		if o.Relocation.Thread == nil {
			continue
		}
		count := int64(0)
		if o.Facts != nil {
			count = int64(len(o.Facts.GlobDats))
			if o.Mode == startup.Eager {
				count += int64(o.Facts.Lazy())
			}
		}
		for p, ns := range split(c.Phases, o.Relocation.Start, o.Relocation.End, from, to) {
			l := labels{phase: p.Name, thread: o.Relocation.Thread.Label(), mapping: o.Path, state: startup.Eager}
			b.signals[Binding].addUnder(c, o.PID, o.Relocation.End, o.Stack, "relocate "+path.Base(o.Path), true, l, begins(p, o.Relocation.Start)*count, ns)
		}
	}
}
