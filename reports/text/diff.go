package text

import (
	"fmt"
	"io"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// Diff writes what became of a run in another: whether it is faster, where the
// difference lies, and what appeared, vanished, grew and shrank.
func Diff(w io.Writer, d *analysis.Diff, o Options) error {
	p := newPrinter(o)
	p.diffRun("before", &d.Before)
	p.diffRun("after", &d.After)
	p.line("")
	p.wrap(diffAnswer(d), 0, bold)
	if s := diffBlame(d); s != "" {
		p.wrap(s, 0, plain)
	}
	p.diffWalls(d)
	p.diffPhases(d)
	p.diffLedger(d)
	p.diffFunctions(d)
	for _, l := range []struct {
		name, about string
		changes     []analysis.Change
	}{
		{"packages", "of Go, time to initialise", d.Packages},
		{"certificates", "time to load", d.Certs},
		{"allocators", "time to set up", d.Allocator},
		{"dlopens", "time inside", d.Dlopens},
		{"binding", "symbols that the dynamic linker bound", d.Binding},
		{"goroutines", "time running and in system calls", d.Goroutines},
		{"system calls", "time from entry to exit, on the critical path or not", d.Syscalls},
		{"requests", "time to the answer", d.Requests},
		{"files", "time in system calls on them", d.Files},
	} {
		p.changes(l.name, l.about, l.changes)
	}
	p.warnings(d.Warnings)
	return p.flush(w)
}

func (p *printer) diffRun(name string, r *analysis.DiffRun) {
	command := make([]string, len(r.Command))
	for i, arg := range r.Command {
		command[i] = quote(arg)
	}
	starts := fmt.Sprintf("%d traced, %d untraced", r.Traced, r.Untraced)
	if r.Failed > 0 {
		starts += fmt.Sprintf(", %d failed", r.Failed)
	}
	const label = 8
	rest := figure.Clean(r.Run) + "  " + starts + "  " + strings.Join(command, " ")
	p.line(p.paint(fmt.Sprintf("%-*s", label, name), bold) + figure.Shorten(rest, p.Width-label))
}

// change is a signed duration.
func change(ns int64) string { return figure.Signed(ns, figure.Duration(float64(ns))) }

// diffAnswer says whether the change helped, from untraced cold starts.
func diffAnswer(d *analysis.Diff) string {
	w := d.Wall
	if w == nil {
		if d.Traced == nil {
			return "Neither untraced cold starts nor ledgers compare: there is no answer."
		}
		return fmt.Sprintf("Traced, exec → /next went from %s to %s: %s at the mean. A run without untraced cold starts does not say what that is unwatched.",
			figure.Duration(float64(d.Traced.BeforeNS)), figure.Duration(float64(d.Traced.AfterNS)),
			figure.Shift(d.Traced.DeltaNS, d.Traced.BeforeNS, figure.Duration(float64(d.Traced.DeltaNS))))
	}
	verdict := "No clear difference"
	switch w.Verdict() {
	case analysis.VerdictPays:
		verdict = "Faster"
	case analysis.VerdictHurts:
		verdict = "Slower"
	}
	if w.CI95 == nil {
		verdict = "Undecided"
	}
	text := fmt.Sprintf("%s: release → /next, untraced, %s → %s at the median, shift %s", verdict,
		figure.Duration(float64(w.Before.P50)), figure.Duration(float64(w.After.P50)),
		figure.Shift(w.ShiftNS, w.Before.P50, figure.Duration(float64(w.ShiftNS))))
	if w.CI95 != nil {
		text += fmt.Sprintf(", 95 %% %s … %s", change(w.CI95[0]), change(w.CI95[1]))
	}
	if d.Before.Session == "" || d.Before.Session != d.After.Session {
		text += "; two sessions, so drift of the host is in it"
	}
	return text + "."
}

// diffBlame names where most of the traced difference lies.
func diffBlame(d *analysis.Diff) string {
	t := d.Traced
	if t == nil || len(d.Causes) == 0 {
		return ""
	}
	if t.DeltaNS == 0 && d.Causes[0].DeltaNS == 0 {
		return "Traced, no cell of the ledger differs."
	}
	text := fmt.Sprintf("Traced, exec → /next went from %s to %s at the mean (%s), of which %s is initprof's own and %s waiting for a CPU.",
		figure.Duration(float64(t.BeforeNS)), figure.Duration(float64(t.AfterNS)), change(t.DeltaNS), change(t.MeasurementDeltaNS), change(t.RunnableDeltaNS))
	const named = 3
	var parts []string
	for _, c := range d.Causes {
		if len(parts) == named || len(parts) > 0 && abs(c.DeltaNS) < abs(d.Causes[0].DeltaNS)/10 {
			break
		}
		if c.Category == "measurement" || c.DeltaNS == 0 {
			continue
		}
		part := fmt.Sprintf("%s %s in %s", change(c.DeltaNS), figure.Clean(c.Category), figure.Clean(c.Phase))
		if c.Function != "" {
			part += " through " + figure.Clean(c.Function)
		}
		parts = append(parts, part)
	}
	if len(parts) > 0 {
		text += " Most changed: " + strings.Join(parts, "; ") + "."
	}
	return text
}

func abs(v int64) int64 { return max(v, -v) }

// diffWalls shows the distributions behind the answer.
func (p *printer) diffWalls(d *analysis.Diff) {
	w := d.Wall
	if w == nil {
		return
	}
	p.heading("release → /next, untraced", "ms")
	decimals := figure.Decimals(max(w.Before.Max, w.After.Max))
	t := &table{columns: []column{{left: true}, {name: "n", quiet: true}, {name: "min"}, {name: "p50"}, {name: "95 % of p50"}, {name: "p90"}, {name: "max"}, {name: "mean"}}}
	ms := func(v int64) string { return figure.Milliseconds(v, decimals) }
	for _, x := range []struct {
		name string
		s    analysis.Summary
	}{{"before", w.Before}, {"after", w.After}} {
		interval := "–"
		if x.s.CI95 != nil {
			interval = ms(x.s.CI95[0]) + "…" + ms(x.s.CI95[1])
		}
		t.add(x.name, figure.Group(int64(x.s.N)), ms(x.s.Min), cell{ms(x.s.P50), bold}, interval, ms(x.s.P90), ms(x.s.Max), ms(x.s.Mean))
	}
	p.print(t)
}

// tint is red for what takes longer, green for what takes less.
func tint(delta int64) ink {
	switch {
	case delta > 0:
		return red
	case delta < 0:
		return green
	}
	return dim
}

// diffPhases shows the tiling of both windows; the deltas sum to the whole.
func (p *printer) diffPhases(d *analysis.Diff) {
	if len(d.Phases) == 0 {
		return
	}
	p.heading("phases", "mean per traced cold start; the changes sum to the last line")
	var most int64 = 1
	for _, x := range d.Phases {
		most = max(most, abs(x.DeltaNS))
	}
	t := &table{columns: []column{{name: "ended by", left: true, flex: true}, {name: "before"}, {name: "after"}, {name: "change"}, {left: true}, {left: true}}}
	moved := false
	for _, x := range d.Phases {
		before, after := figure.Duration(float64(x.BeforeNS)), figure.Duration(float64(x.AfterNS))
		switch x.Status {
		case analysis.StatusAppeared:
			before, moved = "–", true
		case analysis.StatusVanished:
			after, moved = "–", true
		}
		t.add(figure.Clean(x.Name), before, after, cell{change(x.DeltaNS), tint(x.DeltaNS)}, cell{bar(0, abs(x.DeltaNS), most, 16), tint(x.DeltaNS)}, cell{x.Status, dim})
	}
	t.add(cell{"exec → /next", bold}, figure.Duration(float64(d.Traced.BeforeNS)), figure.Duration(float64(d.Traced.AfterNS)), cell{change(d.Traced.DeltaNS), bold}, "", "")
	p.print(t)
	if moved {
		p.wrap("where a checkpoint appeared or vanished, time moved between the phase and the one behind it", indent, dim)
	}
}

// diffLedger shows the cells that changed most, and sums up the others.
func (p *printer) diffLedger(d *analysis.Diff) {
	if d.Traced == nil || len(d.Ledger) == 0 {
		return
	}
	p.heading("ledger", "what the difference is made of, along the critical path, mean per traced cold start")
	t := &table{columns: []column{
		{name: "change"},
		{name: "before"},
		{name: "after"},
		{name: "phase", left: true},
		{name: "category", left: true},
		{name: "state", left: true},
		{name: "through", left: true, flex: true, quiet: true},
	}}
	var rest, before, after int64
	shown := 0
	for i, c := range d.Ledger {
		if i >= 2*p.Rows || c.DeltaNS == 0 {
			rest, before, after = rest+c.DeltaNS, before+c.BeforeNS, after+c.AfterNS
			continue
		}
		shown++
		t.add(cell{change(c.DeltaNS), tint(c.DeltaNS)}, cellTime(c.BeforeNS), cellTime(c.AfterNS),
			figure.Clean(c.Phase), figure.Clean(c.Category), c.State, figure.Clean(c.Function))
	}
	if n := len(d.Ledger) - shown; n > 0 {
		t.add(change(rest), cellTime(before), cellTime(after), cell{plural(n, "other cell"), dim}, "", "", "")
	}
	t.add(cell{change(d.Traced.DeltaNS), bold}, cellTime(d.Traced.BeforeNS), cellTime(d.Traced.AfterNS), cell{"exec → /next", bold}, "", "", "")
	p.print(t)
}

// cellTime leaves what is nothing blank.
func cellTime(ns int64) string {
	if ns == 0 {
		return "–"
	}
	return figure.Duration(float64(ns))
}

// diffFunctions shows whose own time changed most.
func (p *printer) diffFunctions(d *analysis.Diff) {
	if len(d.Functions) == 0 {
		return
	}
	p.heading("functions", "on the critical path; itself, and with all it calls; in brackets what they wait for")
	t := &table{columns: []column{{name: "itself"}, {name: "total"}, {name: "before"}, {name: "after"}, {left: true}, {name: "function", left: true, flex: true}, {name: "mostly in", left: true, quiet: true}}}
	for _, f := range d.Functions[:min(len(d.Functions), p.Rows)] {
		self, total := f.AfterNS-f.BeforeNS, f.TotalAfterNS-f.TotalBeforeNS
		t.add(cell{change(self), tint(self)}, cell{change(total), tint(total)}, cellTime(f.TotalBeforeNS), cellTime(f.TotalAfterNS), cell{f.Status, dim}, figure.Clean(f.Key), figure.Clean(f.Phase))
	}
	p.print(t)
	if n := len(d.Functions) - p.Rows; n > 0 {
		p.line(strings.Repeat(" ", indent) + p.paint(fmt.Sprintf("… %s more in the JSON", figure.Group(int64(n))), dim))
	}
}

// changes shows what appeared and vanished first, then what changed most.
func (p *printer) changes(name, about string, all []analysis.Change) {
	if len(all) == 0 {
		return
	}
	n := map[string]int{}
	var sum int64
	for i := range all {
		n[all[i].Status]++
		delta, _ := all[i].Delta()
		sum += delta
	}
	var parts []string
	for _, status := range statuses {
		if n[status] > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", n[status], status))
		}
	}
	p.heading(name, strings.Join(parts, ", ")+"; "+about+", "+change(sum)+" in all")
	t := &table{columns: []column{{name: "change"}, {name: "before"}, {name: "after"}, {name: "count", left: true, quiet: true}, {left: true}, {left: true, flex: true}}}
	shown := 0
	for _, pass := range []bool{true, false} { // what is new or gone is seldom noise
		for i := range all {
			c := &all[i]
			if is := c.Status == analysis.StatusAppeared || c.Status == analysis.StatusVanished; is != pass || pass && shown >= p.Rows || shown >= p.Rows+p.Rows/2 {
				continue
			}
			shown++
			var delta cell
			if ns, known := c.Delta(); known {
				delta = cell{change(ns), tint(ns)}
			}
			t.add(delta, timed(c.Before), timed(c.After), counts(c), cell{c.Status, dim}, figure.Clean(c.Key))
		}
	}
	p.print(t)
	if left := len(all) - shown; left > 0 {
		p.line(strings.Repeat(" ", indent) + p.paint(fmt.Sprintf("… %s more in the JSON", figure.Group(int64(left))), dim))
	}
}

var statuses = []string{analysis.StatusAppeared, analysis.StatusVanished, analysis.StatusGrew, analysis.StatusShrank}

func timed(ns *int64) string {
	if ns == nil {
		return "–"
	}
	return figure.Duration(float64(*ns))
}

// counts shows how often, where that changed.
func counts(c *analysis.Change) string {
	text := func(v *float64) string {
		if v == nil {
			return "0"
		}
		return figure.Count(*v)
	}
	switch {
	case c.BeforeCount == nil && c.AfterCount == nil:
		return ""
	case c.BeforeCount != nil && c.AfterCount != nil && *c.BeforeCount == *c.AfterCount:
		return text(c.AfterCount)
	}
	return text(c.BeforeCount) + " → " + text(c.AfterCount)
}
