package markdown

import (
	"fmt"
	"io"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// Diff writes what became of a run in another, for a pull request: the answer,
// what it is made of, and what appeared or vanished. It fails only when w does.
func Diff(w io.Writer, d *analysis.Diff) error {
	var p page
	p.printf("### %s → %s\n\n", code(d.Before.Run), code(d.After.Run))
	p.diffAnswer(d)
	p.diffPhases(d)
	p.diffLedger(d)
	for _, l := range []struct {
		name    string
		changes []analysis.Change
	}{
		{"packages", d.Packages},
		{"certificates", d.Certs},
		{"allocators", d.Allocator},
		{"dlopens", d.Dlopens},
		{"binding", d.Binding},
		{"goroutines", d.Goroutines},
		{"system calls", d.Syscalls},
		{"requests", d.Requests},
		{"files", d.Files},
	} {
		p.changes(l.name, l.changes)
	}
	for _, warning := range d.Warnings {
		p.printf("\n> %s\n", escaped(warning))
	}
	_, err := io.WriteString(w, p.String())
	return err
}

func change(ns int64) string { return figure.Signed(ns, figure.Duration(float64(ns))) }

// diffAnswer says whether the change helped.
func (p *page) diffAnswer(d *analysis.Diff) {
	w, t := d.Wall, d.Traced
	if w == nil && t == nil {
		p.printf("Neither untraced cold starts nor ledgers compare: there is no answer.\n")
		return
	}
	if w != nil {
		verdict := map[string]string{analysis.VerdictPays: "Faster", analysis.VerdictHurts: "Slower"}[w.Verdict()]
		switch {
		case w.CI95 == nil:
			verdict = "Undecided"
		case verdict == "":
			verdict = "No clear difference"
		}
		interval := ""
		if w.CI95 != nil {
			interval = fmt.Sprintf(", 95 %% %s … %s", change(w.CI95[0]), change(w.CI95[1]))
		}
		p.printf("**%s: %s**%s. Release → /next, untraced: %s → %s at the median of %d and %d cold starts.\n", verdict,
			figure.Shift(w.ShiftNS, w.Before.P50, figure.Duration(float64(w.ShiftNS))), interval,
			figure.Duration(float64(w.Before.P50)), figure.Duration(float64(w.After.P50)), w.Before.N, w.After.N)
	}
	if t != nil {
		p.printf("\nTraced, exec → /next: %s → %s at the mean (%s), of which %s is initprof's own and %s waiting for a CPU.\n",
			figure.Duration(float64(t.BeforeNS)), figure.Duration(float64(t.AfterNS)), change(t.DeltaNS), change(t.MeasurementDeltaNS), change(t.RunnableDeltaNS))
	}
}

func (p *page) diffPhases(d *analysis.Diff) {
	if len(d.Phases) == 0 {
		return
	}
	p.table("<phase", "before", "after", "change", "<")
	for _, x := range d.Phases {
		p.row(escaped(x.Name), figure.Duration(float64(x.BeforeNS)), figure.Duration(float64(x.AfterNS)), change(x.DeltaNS), x.Status)
	}
	p.row("**exec → /next**", figure.Duration(float64(d.Traced.BeforeNS)), figure.Duration(float64(d.Traced.AfterNS)), "**"+change(d.Traced.DeltaNS)+"**", "")
}

// diffLedger lists the cells that changed most, and sums up the others.
func (p *page) diffLedger(d *analysis.Diff) {
	if len(d.Ledger) == 0 {
		return
	}
	p.table("<on the critical path", "<category", "<state", "before", "after", "change", "<through")
	var rest, before, after int64
	others := 0
	for i, c := range d.Ledger {
		if i >= rows || c.DeltaNS == 0 {
			rest, before, after = rest+c.DeltaNS, before+c.BeforeNS, after+c.AfterNS
			others++
			continue
		}
		p.row(escaped(c.Phase), escaped(c.Category), c.State, figure.Duration(float64(c.BeforeNS)), figure.Duration(float64(c.AfterNS)), change(c.DeltaNS), code(c.Function))
	}
	if others > 0 {
		p.row(fmt.Sprintf("%d others", others), "", "", figure.Duration(float64(before)), figure.Duration(float64(after)), change(rest), "")
	}
}

// changes names what appeared and vanished, and what changed most.
func (p *page) changes(name string, all []analysis.Change) {
	if len(all) == 0 {
		return
	}
	p.printf("\n%s:", name)
	separator := " "
	for _, status := range []string{analysis.StatusAppeared, analysis.StatusVanished, analysis.StatusGrew, analysis.StatusShrank} {
		var names []string
		n := 0
		for i := range all {
			if all[i].Status != status {
				continue
			}
			if n++; n <= 3 {
				text := code(all[i].Key)
				if delta, known := all[i].Delta(); known {
					text += " " + change(delta)
				}
				names = append(names, text)
			}
		}
		if n > len(names) {
			names = append(names, "…")
		}
		if n > 0 {
			p.printf("%s%d %s (%s)", separator, n, status, strings.Join(names, ", "))
			separator = "; "
		}
	}
	p.printf("\n")
}
