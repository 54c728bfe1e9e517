package text

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/reports/figure"
)

// ledgerStates are the columns of the ledger.
var ledgerStates = []string{analysis.StateUser, analysis.StateKernel, analysis.StateFault, analysis.StateRunnable, analysis.StateWaiting}

// ledger prints the exclusive account by category.
func (p *printer) ledger(r *analysis.Report) {
	l := r.Ledger
	if l == nil {
		return
	}
	about := "each nanosecond of " + windowName(r) + " blamed once, along the critical path" + each(r)
	p.heading("ledger", about)
	type row struct {
		category string
		ns       int64
		states   map[string]int64
		phases   map[string]int64
		sampled  bool
	}
	rows := map[string]*row{}
	var order []*row
	of := func(category string) *row {
		x := rows[category]
		if x == nil {
			x = &row{category: category, states: map[string]int64{}, phases: map[string]int64{}}
			rows[category] = x
			order = append(order, x)
		}
		return x
	}
	for _, c := range l.Cells {
		x := of(c.Category)
		x.ns += c.NS
		x.states[c.State] += c.NS
		x.phases[c.Phase] += c.NS
		x.sampled = x.sampled || c.Basis == analysis.BasisSampled
	}
	overlapped := map[string]int64{}
	for _, o := range l.Overlapped {
		overlapped[o.Category] = o.NS
		of(o.Category)
	}
	slices.SortStableFunc(order, func(x, y *row) int {
		return cmp.Or(cmp.Compare(y.ns, x.ns), cmp.Compare(overlapped[y.category], overlapped[x.category]), cmp.Compare(x.category, y.category))
	})
	weights := make([]int64, len(order))
	for i, x := range order {
		weights[i] = x.ns
	}
	shares := stat.Apportion(1000, weights)
	t := &table{columns: []column{{name: "category", left: true, flex: true}, {name: "time"}, {name: "share"}}}
	states := ledgerStates
	if p.Width < 100 { // the rest is on a CPU
		states = states[3:]
	}
	for _, s := range states {
		t.columns = append(t.columns, column{name: s, quiet: true})
	}
	overlaps := p.Width >= 72
	if overlaps {
		t.columns = append(t.columns, column{name: "overlapped", quiet: true})
	}
	wide := p.Width >= 120
	if wide {
		t.columns = append(t.columns, column{name: "mostly in", left: true, quiet: true})
	}
	duration := func(ns int64) string {
		if ns == 0 {
			return ""
		}
		return figure.Duration(float64(ns))
	}
	for i, x := range order {
		name := figure.Clean(x.category)
		if x.sampled {
			name += " ~"
		}
		cells := []any{name, cell{duration(x.ns), bold}, fmt.Sprintf("%d.%d %%", shares[i]/10, shares[i]%10)}
		for _, s := range states {
			cells = append(cells, duration(x.states[s]))
		}
		if overlaps {
			cells = append(cells, duration(overlapped[x.category]))
		}
		if wide {
			cells = append(cells, figure.Clean(greatest(x.phases)))
		}
		t.add(cells...)
	}
	p.print(t)
	note := "~ part of its user time lies between two events of different categories, and each got a half"
	if l.UnknownWakerNS > 0 {
		note += "; of " + figure.Duration(float64(l.UnknownWakerNS)) + " it is not known who ended the wait"
	}
	if l.UnattributedNS > 0 {
		note += "; in " + figure.Duration(float64(l.UnattributedNS)) + " the chain is lost"
	}
	p.wrap(note, indent, dim)
}

// greatest returns the key of the greatest value.
func greatest(m map[string]int64) string {
	best := ""
	for k, v := range m {
		if best == "" || v > m[best] || v == m[best] && k < best {
			best = k
		}
	}
	return best
}

// longest prints the longest steps of the critical path with their stacks.
func (p *printer) longest(r *analysis.Report) {
	if r.Ledger == nil || len(r.Ledger.Longest) == 0 {
		return
	}
	p.heading("longest steps", "on the critical path, those with the same stack taken together"+each(r))
	for i, s := range r.Ledger.Longest {
		if i == p.Rows {
			p.wrap(fmt.Sprintf("… more in initprof blame and in the JSON (%d)", len(r.Ledger.Longest)-i), indent, dim)
			break
		}
		p.step(s, r.Ledger.WallNS)
	}
}

func (p *printer) step(s analysis.LongStep, wall int64) {
	text := fmt.Sprintf("%s  %s  %s, %s in %s", figure.Duration(float64(s.NS)), figure.Percent(float64(s.NS), float64(wall)), s.Category, s.State, s.Phase)
	if s.WaitsFor != "" {
		text += ", waits for " + s.WaitsFor
	}
	if s.RunnableBehind != "" {
		text += ", behind " + s.RunnableBehind
	}
	if s.Count > 1 {
		text += fmt.Sprintf(" (%s times)", figure.Count(s.Count))
	}
	p.wrap(figure.Clean(text), indent, bold)
	if len(s.Stack) > 0 {
		p.line(strings.Repeat(" ", 2*indent) + p.paint(figure.Shorten(figure.Clean(source(s.Stack)), p.Width-2*indent), dim))
	}
}

// source joins the frames of a stack that tell most: the innermost, and from
// there outwards.
func source(stack []string) string {
	const shown = 4
	if len(stack) > shown {
		return strings.Join(stack[:shown], " ← ") + " ← …"
	}
	return strings.Join(stack, " ← ")
}

// varying prints what makes slow cold starts slow.
func (p *printer) varying(r *analysis.Report) {
	if r.Ledger == nil || len(r.Ledger.Varying) == 0 {
		return
	}
	p.heading("what varies", "the mean of the slowest quarter of the cold starts against that of the fastest")
	t := &table{columns: []column{{name: "phase", left: true, flex: true}, {name: "category", left: true, flex: true}, {name: "state", left: true}, {name: "fastest"}, {name: "slowest"}, {name: "change"}}}
	for _, v := range r.Ledger.Varying[:min(p.Rows, len(r.Ledger.Varying))] {
		d := v.SlowNS - v.FastNS
		sign := "+"
		if d < 0 {
			sign, d = "−", -d
		}
		t.add(figure.Clean(v.Phase), figure.Clean(v.Category), v.State, figure.Duration(float64(v.FastNS)), figure.Duration(float64(v.SlowNS)),
			cell{sign + figure.Duration(float64(d)), bold})
	}
	p.print(t)
}

// Blame writes the cells of a ledger by their share of the critical path, each
// with the stack on which it spent most.
func Blame(w io.Writer, r *analysis.Report, o Options) error {
	p := newPrinter(o)
	l := r.Ledger
	if l == nil {
		p.line("this run has no ledger: nothing was traced")
		return p.flush(w)
	}
	p.line(p.paint(fmt.Sprintf("%s %s%s", windowName(r), figure.Duration(float64(l.WallNS)), each(r)), bold))
	cells := slices.Clone(l.Cells)
	slices.SortStableFunc(cells, func(x, y analysis.Cell) int { return cmp.Compare(y.NS, x.NS) })
	t := &table{columns: []column{
		{name: "time"},
		{name: "share"},
		{name: "95 % of the mean", left: true, quiet: true},
		{name: "phase", left: true},
		{name: "category", left: true},
		{name: "state", left: true},
		{name: "mostly", left: true, flex: true, quiet: true},
	}}
	for _, c := range cells {
		interval := ""
		if c.CI95 != nil {
			interval = figure.Duration(float64(c.CI95[0])) + "…" + figure.Duration(float64(c.CI95[1]))
		}
		t.add(cell{figure.Duration(float64(c.NS)), bold}, figure.Percent(float64(c.NS), float64(l.WallNS)), interval,
			figure.Clean(c.Phase), figure.Clean(c.Category), c.State, figure.Clean(mostly(l, c)))
	}
	p.print(t)
	return p.flush(w)
}

// mostly names what a cell spends most on, as far as the longest steps tell.
func mostly(l *analysis.Ledger, c analysis.Cell) string {
	for _, s := range l.Longest {
		if s.Phase != c.Phase || s.Category != c.Category || s.State != c.State {
			continue
		}
		switch {
		case s.WaitsFor != "":
			return s.WaitsFor
		case s.RunnableBehind != "":
			return "behind " + s.RunnableBehind
		case len(s.Stack) > 0:
			return s.Stack[0]
		}
	}
	return ""
}

// Chain writes the critical path of one cold start as a tree: each hop is
// somebody whom the one above it had to wait for.
func Chain(w io.Writer, r *analysis.Report, hops []analysis.Hop, o Options) error {
	p := newPrinter(o)
	if len(hops) == 0 {
		p.line("this cold start has no critical path: it was not traced")
		return p.flush(w)
	}
	p.wrap("The time at which something was done is behind @, how long it took on the critical path behind +.", 0, dim)
	last := hops[0]
	p.line(p.paint(fmt.Sprintf("%s @%s", windowName(r), figure.Duration(float64(last.StartNS+last.NS))), bold))
	depth := 0
	for _, h := range hops {
		var parts []string
		for _, part := range h.Parts[:min(len(h.Parts), 4)] {
			parts = append(parts, figure.Duration(float64(part.NS))+" "+part.Name)
		}
		branch := strings.Repeat("  ", min(depth, 12)) + "└─"
		head := fmt.Sprintf("%s @%s +%s", figure.Clean(h.Name), figure.Duration(float64(h.StartNS)), figure.Duration(float64(h.NS)))
		p.line(branch + p.paint(figure.Shorten(head, p.Width-figure.Width(branch)), bold))
		under := strings.Repeat("  ", min(depth, 12)+2)
		p.line(under + p.paint(figure.Shorten(figure.Clean(strings.Join(parts, ", ")), p.Width-figure.Width(under)), dim))
		depth++
	}
	return p.flush(w)
}
