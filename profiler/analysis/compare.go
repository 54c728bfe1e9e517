package analysis

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/stat"
)

// DiffInput is one of two runs to compare.
type DiffInput struct {
	Name      string
	Report    *Report                 // over all cold starts
	Accounted int                     // cold starts that Stacks and Report.Ledger are of
	Stacks    []profile.WeightedStack // of the critical path, totals over them
}

// DiffStacks are the critical paths of both runs, so that frames can be
// compared: in nanoseconds per cold start, the subject's own file called the
// same in both, and addresses without a name left out of its name.
type DiffStacks struct{ Before, After []profile.WeightedStack }

// Compare tells what became of before in after. It fails if the parts of the
// difference do not sum to the whole.
func Compare(before, after DiffInput) (*Diff, *DiffStacks, error) {
	b, a := before.Report, after.Report
	d := &Diff{Schema: DiffSchema, Before: newDiffRun(before), After: newDiffRun(after), Warnings: caveatsOf(b, a)}
	warning := ""
	if d.Wall, warning = newDiffWall(untraced(b), untraced(a)); warning != "" {
		d.Warnings = append(d.Warnings, warning)
	}
	for _, side := range []struct {
		name string
		of   *DiffRun
	}{{"before", &d.Before}, {"after", &d.After}} {
		if side.of.Untraced == 0 {
			d.Warnings = append(d.Warnings, fmt.Sprintf("%s has no untraced cold start that went well: what INIT takes unwatched cannot be compared; record it with --untraced 12", side.name))
		}
		if side.of.Failed > 0 {
			d.Warnings = append(d.Warnings, fmt.Sprintf("%s: %d of %d cold starts failed and are in no figure; 'initprof report %s' says how",
				side.name, side.of.Failed, side.of.Failed+side.of.Traced+side.of.Untraced, side.of.Run))
		}
	}
	stacks := &DiffStacks{}
	if b.Ledger != nil && a.Ledger != nil {
		stacks.Before = normalise(before, a.Subject.Command)
		stacks.After = normalise(after, a.Subject.Command)
		if err := d.account(b.Ledger, a.Ledger, phaseOrder(b, a), stacks); err != nil {
			return nil, nil, err
		}
	} else {
		for _, side := range []DiffInput{before, after} {
			if side.Report.Ledger == nil {
				d.Warnings = append(d.Warnings, side.Name+" has no ledger, so that the difference cannot be explained: record it with --signals all, as root")
			}
		}
	}
	d.lists(b, a)
	d.Warnings = append(d.Warnings, sideWarnings("before", b)...)
	d.Warnings = append(d.Warnings, sideWarnings("after", a)...)
	return d, stacks, nil
}

func newDiffRun(in DiffInput) DiffRun {
	r := DiffRun{Run: in.Name, Command: in.Report.Subject.Command, SHA256: in.Report.Subject.SHA256, Session: in.Report.Session}
	for _, run := range in.Report.Runs {
		switch {
		case run.Outcome != OutcomeOK:
			r.Failed++
		case run.Traced:
			r.Traced++
		default:
			r.Untraced++
		}
	}
	return r
}

func untraced(r *Report) (values []int64) {
	for _, run := range r.Runs {
		if !run.Traced && run.Outcome == OutcomeOK && run.ReleaseToNextNS != nil {
			values = append(values, *run.ReleaseToNextNS)
		}
	}
	return values
}

// shownWarnings is how many warnings of each run a diff repeats.
const shownWarnings = 10

func sideWarnings(name string, r *Report) (warnings []string) {
	for i, w := range r.Warnings {
		if i == shownWarnings {
			return append(warnings, fmt.Sprintf("%s: %d more warnings in its report", name, len(r.Warnings)-i))
		}
		warnings = append(warnings, name+": "+w)
	}
	return warnings
}

// caveatsOf lists what else than the change may have made the difference.
func caveatsOf(b, a *Report) []string {
	warnings := []string{}
	differ := func(what, x, y, hint string) {
		if x != y {
			warnings = append(warnings, fmt.Sprintf("the runs differ in %s: %s before, %s after%s", what, cmp.Or(x, "none"), cmp.Or(y, "none"), hint))
		}
	}
	if b.Session == "" || b.Session != a.Session {
		warnings = append(warnings, "the runs are of different sessions: what else changed on this host in between is part of the difference; "+
			"'initprof bench before=… after=…' interleaves the cold starts")
	}
	name := func(r *Report) string {
		if len(r.Subject.Command) == 0 {
			return ""
		}
		return r.Subject.Command[0][strings.LastIndexByte(r.Subject.Command[0], '/')+1:]
	}
	if name(b) != name(a) && b.Subject.Language != a.Subject.Language {
		differ("the subject", name(b)+" ("+b.Subject.Language+")", name(a)+" ("+a.Subject.Language+")", "; these are two programs, of which little compares")
	} else if name(b) != name(a) {
		differ("the subject", name(b), name(a), "; if these are two programs, little compares")
	}
	number := func(v any, known bool) string {
		if !known {
			return ""
		}
		return fmt.Sprint(v)
	}
	s, t := b.Settings, a.Settings
	for _, x := range []struct{ what, before, after string }{
		{"--as", s.As, t.As},
		{"--until", s.Until, t.Until},
		{"the initialization type", s.InitializationType, t.InitializationType},
		{"the page cache", s.PageCache, t.PageCache},
		{"the assumed latency", s.Latency, t.Latency},
		{"the network", s.Network, t.Network},
		{"the signals", strings.Join(s.Signals, ","), strings.Join(t.Signals, ",")},
		{"the sample rate", number(deref(s.SampleHz), s.SampleHz != nil), number(deref(t.SampleHz), t.SampleHz != nil)},
		{"the memory limit", number(deref(s.MemoryMB), s.MemoryMB != nil), number(deref(t.MemoryMB), t.MemoryMB != nil)},
		{"the number of CPUs", number(deref(s.CPUs), s.CPUs != nil), number(deref(t.CPUs), t.CPUs != nil)},
		{"the CPU quota", number(deref(s.CPUQuota), s.CPUQuota != nil), number(deref(t.CPUQuota), t.CPUQuota != nil)},
		{"the kernel", b.Host.Kernel, a.Host.Kernel},
		{"the architecture", b.Host.Arch, a.Host.Arch},
		{"the CPU", b.Host.CPUModel, a.Host.CPUModel},
		{"the version of initprof", b.Tool.Version, a.Tool.Version},
	} {
		differ(x.what, x.before, x.after, "")
	}
	return warnings
}

func deref[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// phaseOrder lists the phases of both runs: those of after, and the others
// behind what they followed.
func phaseOrder(b, a *Report) []string {
	var order []string
	for _, p := range a.Phases {
		order = append(order, p.Name)
	}
	previous := ""
	for _, p := range b.Phases {
		if !slices.Contains(order, p.Name) {
			order = slices.Insert(order, slices.Index(order, previous)+1, p.Name)
		}
		previous = p.Name
	}
	return order
}

type causeKey struct{ phase, category string }

type cellKey struct{ phase, category, state string }

// account takes the one ledger from the other.
func (d *Diff) account(b, a *Ledger, order []string, stacks *DiffStacks) error {
	cells := map[cellKey]*DiffCell{}
	causes := map[causeKey]*DiffCause{}
	phases := map[string]*DiffPhase{}
	add := func(c Cell, before, after int64) {
		x := ensure(cells, cellKey{c.Phase, c.Category, c.State}, DiffCell{Phase: c.Phase, Category: c.Category, State: c.State})
		x.BeforeNS, x.AfterNS, x.DeltaNS = x.BeforeNS+before, x.AfterNS+after, x.DeltaNS+after-before
		y := ensure(causes, causeKey{c.Phase, c.Category}, DiffCause{Phase: c.Phase, Category: c.Category})
		y.BeforeNS, y.AfterNS, y.DeltaNS = y.BeforeNS+before, y.AfterNS+after, y.DeltaNS+after-before
		z := ensure(phases, c.Phase, DiffPhase{Name: c.Phase})
		z.BeforeNS, z.AfterNS, z.DeltaNS = z.BeforeNS+before, z.AfterNS+after, z.DeltaNS+after-before
	}
	d.Traced = &DiffTraced{BeforeNS: b.WallNS, AfterNS: a.WallNS, DeltaNS: a.WallNS - b.WallNS}
	inBefore, inAfter := map[string]bool{}, map[string]bool{}
	for _, c := range b.Cells {
		add(c, c.NS, 0)
		inBefore[c.Phase] = true
	}
	for _, c := range a.Cells {
		add(c, 0, c.NS)
		inAfter[c.Phase] = true
	}
	changes := newChangeTrees(stacks)
	d.Ledger, d.Causes, d.Phases = []DiffCell{}, []DiffCause{}, []DiffPhase{}
	for k, c := range cells {
		c.Through = changes.cells[k].through(c.DeltaNS)
		if c.Category == ledger.Measurement {
			d.Traced.MeasurementDeltaNS += c.DeltaNS
		} else if c.State == StateRunnable {
			d.Traced.RunnableDeltaNS += c.DeltaNS
		}
		d.Ledger = append(d.Ledger, *c)
	}
	for k, c := range causes {
		c.Through = changes.causes[k].through(c.DeltaNS)
		d.Causes = append(d.Causes, *c)
	}
	for name, p := range phases {
		if !inBefore[name] {
			p.Status = StatusAppeared
		} else if !inAfter[name] {
			p.Status = StatusVanished
		}
		d.Phases = append(d.Phases, *p)
	}
	slices.SortFunc(d.Ledger, func(x, y DiffCell) int {
		return cmp.Or(cmp.Compare(size(y.DeltaNS), size(x.DeltaNS)), cmp.Compare(x.Phase, y.Phase), cmp.Compare(x.Category, y.Category), cmp.Compare(x.State, y.State))
	})
	slices.SortFunc(d.Causes, func(x, y DiffCause) int {
		return cmp.Or(cmp.Compare(size(y.DeltaNS), size(x.DeltaNS)), cmp.Compare(x.Phase, y.Phase), cmp.Compare(x.Category, y.Category))
	})
	slices.SortFunc(d.Phases, func(x, y DiffPhase) int {
		return cmp.Or(cmp.Compare(slices.Index(order, x.Name), slices.Index(order, y.Name)), cmp.Compare(x.Name, y.Name))
	})
	d.Functions = functionChanges(stacks)
	if n := len(d.Functions); n > mostChanges {
		d.Functions = d.Functions[:mostChanges]
		d.Warnings = append(d.Warnings, fmt.Sprintf("%d functions that changed least are left out", n-mostChanges))
	}
	return d.check(stacks)
}

func ensure[K comparable, V any](m map[K]*V, key K, fresh V) *V {
	v := m[key]
	if v == nil {
		v = &fresh
		m[key] = v
	}
	return v
}

func size(ns int64) int64 { return max(ns, -ns) }

// check fails unless every division of the difference sums to the whole.
func (d *Diff) check(stacks *DiffStacks) error {
	var cells, causes, phases, frames int64
	for _, c := range d.Ledger {
		cells += c.DeltaNS
	}
	for _, c := range d.Causes {
		causes += c.DeltaNS
	}
	for _, p := range d.Phases {
		phases += p.DeltaNS
	}
	for _, s := range stacks.After {
		frames += s.Value
	}
	for _, s := range stacks.Before {
		frames -= s.Value
	}
	for _, part := range []struct {
		name string
		sum  int64
	}{{"the ledger's cells", cells}, {"its causes", causes}, {"its phases", phases}, {"the stacks", frames}} {
		if part.sum != d.Traced.DeltaNS {
			return fmt.Errorf("the differences of %s sum to %d ns of %d: this is a mistake of initprof", part.name, part.sum, d.Traced.DeltaNS)
		}
	}
	return nil
}

// normalise divides stacks by their cold starts, so that sums hold, and names
// frames alike in both runs.
func normalise(in DiffInput, command []string) []profile.WeightedStack {
	totals := make([]int64, len(in.Stacks))
	for i, s := range in.Stacks {
		totals[i] = s.Value
	}
	out := make([]profile.WeightedStack, 0, len(in.Stacks))
	for i, ns := range stat.Divide(totals, int64(max(in.Accounted, 1))) {
		if ns == 0 {
			continue
		}
		s := in.Stacks[i]
		s.Value = ns
		s.Stack = slices.Clone(s.Stack)
		for k := range s.Stack {
			f := &s.Stack[k]
			f.Function, _, _ = strings.Cut(f.Function, "+0x") // where it lies changes with each build
			if own := in.Report.Subject.Command; len(own) > 0 && len(command) > 0 && f.Module == own[0] {
				if f.Function == own[0][strings.LastIndexByte(own[0], '/')+1:] { // an address without a name
					f.Function = command[0][strings.LastIndexByte(command[0], '/')+1:]
				}
				f.Module = command[0]
			}
		}
		out = append(out, s)
	}
	return out
}
