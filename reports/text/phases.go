package text

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/reports/figure"
)

// composition prints one line on what INIT was made of.
func (p *printer) composition(r *analysis.Report) {
	if r.Wall == nil {
		return
	}
	head := windowName(r) + " " + figure.Duration(float64(r.Wall.P50))
	if r.Wall.N > 1 {
		head += " at the median"
	}
	var names []string
	var weights []int64
	switch {
	case r.Ledger != nil:
		byCategory := map[string]int64{}
		for _, c := range r.Ledger.Cells {
			if byCategory[c.Category] == 0 {
				names = append(names, c.Category)
			}
			byCategory[c.Category] += c.NS
		}
		for _, name := range names {
			weights = append(weights, byCategory[name])
		}
	default:
		for _, ph := range r.Phases {
			names = append(names, ph.Name)
			weights = append(weights, ph.Delta.Mean*int64(ph.Delta.N))
		}
	}
	order := make([]int, len(names))
	for i := range order {
		order[i] = i
	}
	shares := stat.Apportion(100, weights)
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(weights[b], weights[a]) })
	var parts []string
	const shown = 4
	var rest int64
	for k, i := range order {
		if k < shown {
			parts = append(parts, fmt.Sprintf("%d %% %s", shares[i], figure.Clean(names[i])))
		} else {
			rest += shares[i]
		}
	}
	if len(order) > shown {
		parts = append(parts, fmt.Sprintf("%d %% in %d others", rest, len(order)-shown))
	}
	text := head
	if len(parts) > 0 {
		text += ": " + strings.Join(parts, ", ")
	}
	var also []string
	if r.Threads != nil {
		var cpu, runnable int64
		for _, t := range r.Threads {
			cpu, runnable = cpu+t.OnCPUNS, runnable+t.RunnableNS
		}
		also = append(also, figure.Duration(float64(cpu))+" on CPUs, "+figure.Duration(float64(runnable))+" runnable")
	}
	if r.Syscalls != nil {
		count, ns := sumSyscalls(r.Syscalls)
		also = append(also, figure.Count(count)+" system calls took "+figure.Duration(float64(ns)))
	}
	if r.Faults != nil {
		also = append(also, figure.Count(r.Faults.Minor+r.Faults.Major)+" page faults "+figure.Duration(float64(r.Faults.NS)))
	}
	if len(also) > 0 {
		text += ". Over all threads: " + strings.Join(also, ", ")
	}
	p.line("")
	p.wrap(text+".", 0, plain)
}

func windowName(r *analysis.Report) string {
	switch until := r.Settings.Until; until {
	case "", "next":
		return "exec → /next"
	case "exit":
		return "exec → exit"
	default:
		return "exec → " + figure.Clean(until)
	}
}

// nearest is the traced cold start whose window is nearest to the median.
func nearest(r *analysis.Report) *analysis.Run {
	var best *analysis.Run
	distance := func(run *analysis.Run) int64 {
		d := *run.WallNS - r.Wall.P50
		return max(d, -d)
	}
	for i := range r.Runs {
		run := &r.Runs[i]
		if r.Wall == nil || !run.Traced || run.Outcome != analysis.OutcomeOK || run.WallNS == nil {
			continue
		}
		if best == nil || distance(run) < distance(best) {
			best = run
		}
	}
	return best
}

// distributions prints one row a window, over cold starts.
func (p *printer) distributions(r *analysis.Report) {
	rows := []struct {
		name    string
		summary *analysis.Summary
	}{
		{windowName(r), r.Wall},
		{"release → /next, untraced", r.Untraced},
		{"init", r.Init},
		{"slack: /next → end of init", r.Slack},
		{"first invoke", r.FirstInvoke},
	}
	var largest int64
	single := true
	for _, row := range rows {
		if row.summary != nil {
			largest = max(largest, row.summary.Max)
			single = single && row.summary.N == 1
		}
	}
	if largest == 0 {
		return
	}
	t := &table{columns: []column{{name: "ms", left: true, flex: true}}}
	if single {
		t.columns = append(t.columns, column{})
	} else {
		for _, name := range []string{"n", "min", "p50"} {
			t.columns = append(t.columns, column{name: name})
		}
		if p.roomy() {
			t.columns = append(t.columns, column{name: "95 % of p50", quiet: true, left: true})
		}
		for _, name := range []string{"p90", "p99", "max", "mean"} {
			t.columns = append(t.columns, column{name: name})
		}
	}
	decimals := figure.Decimals(largest)
	for _, row := range rows {
		s := row.summary
		if s == nil || s.N == 0 {
			continue
		}
		ms := func(v int64) string { return figure.Milliseconds(v, decimals) }
		if single {
			t.add(row.name, cell{ms(s.P50), bold})
			continue
		}
		cells := []any{row.name, figure.Group(int64(s.N)), ms(s.Min), cell{ms(s.P50), bold}}
		if p.roomy() {
			cells = append(cells, interval(s, decimals))
		}
		t.add(append(cells, ms(s.P90), p99(s, decimals), ms(s.Max), ms(s.Mean))...)
	}
	p.line("")
	p.print(t)
	if single {
		return
	}
	p.modes(windowName(r), r, true)
	p.modes("release → /next, untraced", r, false)
}

// roomy tells whether there is room for what a narrow terminal does without.
func (p *printer) roomy() bool { return p.Width >= 90 }

func interval(s *analysis.Summary, decimals int) string {
	if s.CI95 == nil {
		return "–"
	}
	return figure.Milliseconds(s.CI95[0], decimals) + "…" + figure.Milliseconds(s.CI95[1], decimals)
}

func p99(s *analysis.Summary, decimals int) string {
	if s.P99IsMax() {
		return "(=max)"
	}
	return figure.Milliseconds(s.P99, decimals)
}

// modes names two modes where there are two: the median then describes none of
// the cold starts.
func (p *printer) modes(name string, r *analysis.Report, traced bool) {
	var values []int64
	for _, run := range r.Runs {
		v := run.WallNS
		if !traced {
			v = run.ReleaseToNextNS
		}
		if run.Traced == traced && run.Outcome == analysis.OutcomeOK && v != nil {
			values = append(values, *v)
		}
	}
	if m := stat.Modes(values); m != nil {
		low, high := m.Modes[0], m.Modes[1]
		p.wrap(fmt.Sprintf("! %s has two modes: %d cold starts near %s and %d near %s (%s: %s)", name,
			low.N, figure.Duration(float64(low.Median)), high.N, figure.Duration(float64(high.Median)),
			stat.ModesCriterion, figure.P(m.P)), indent, yellow)
	}
}

// phases prints the tiling of the window, each bar where its phase lies.
func (p *printer) phases(r *analysis.Report) {
	if len(r.Phases) == 0 {
		return
	}
	about := "tile " + windowName(r)
	if run := nearest(r); run != nil && len(r.Runs) > 1 {
		about += fmt.Sprintf("; cold start %d (%s) is nearest to the median", run.Index, figure.Duration(float64(*run.WallNS)))
	}
	p.heading("phases", about)
	single := r.Wall != nil && r.Wall.N == 1
	var whole, largest int64
	starts := 0
	weights := make([]int64, len(r.Phases))
	for i, ph := range r.Phases {
		whole = max(whole, ph.Cumulative.P50)
		largest = max(largest, ph.Cumulative.Max)
		starts = max(starts, ph.Delta.N)
		weights[i] = ph.Delta.Mean * int64(ph.Delta.N)
	}
	decimals := figure.Decimals(largest)
	shares := stat.Apportion(1000, weights)
	t := &table{columns: []column{{name: "ended by", left: true, flex: true}, {name: "delta ms"}}}
	if !single {
		t.columns[1].name = "delta p50"
	}
	spread := !single && p.roomy()
	if spread {
		t.columns = append(t.columns, column{name: "min … max", quiet: true, left: true})
	}
	t.columns = append(t.columns, column{name: "cumulative", quiet: true}, column{name: "share"}, column{left: true})
	fixed := indent
	for i, ph := range r.Phases {
		name := figure.Clean(ph.Name)
		if ph.Delta.N < starts {
			name += fmt.Sprintf(" (in %d of %d)", ph.Delta.N, starts)
		}
		row := []any{
			cell{name, map[string]ink{analysis.SourceCheckpoint: cyan, analysis.SourceRule: blue}[ph.Source]},
			cell{figure.Milliseconds(ph.Delta.P50, decimals), bold},
		}
		if spread {
			row = append(row, figure.Milliseconds(ph.Delta.Min, decimals)+" … "+figure.Milliseconds(ph.Delta.Max, decimals))
		}
		row = append(row, figure.Milliseconds(ph.Cumulative.P50, decimals), fmt.Sprintf("%d.%d %%", shares[i]/10, shares[i]%10), "")
		t.add(row...)
	}
	for i, c := range t.columns {
		w := figure.Width(c.name)
		for _, row := range t.rows {
			w = max(w, figure.Width(row[i].text))
		}
		fixed += w + 2
	}
	room := min(max(p.Width-fixed, 12), 60)
	for i, ph := range r.Phases {
		last := len(t.columns) - 1
		t.rows[i][last] = cell{bar(ph.Cumulative.P50-ph.Delta.P50, ph.Cumulative.P50, whole, room), green}
	}
	p.print(t)
}

// spans prints work that may overlap.
func (p *printer) spans(r *analysis.Report) {
	if len(r.Spans) == 0 {
		return
	}
	p.heading("spans", "own cost of work that may overlap with other work, ms")
	t := &table{columns: []column{{name: "span", left: true, flex: true}, {name: "n"}, {name: "own p50"}, {name: "max"}, {name: "overlapped p50"}}}
	var largest int64
	for _, s := range r.Spans {
		largest = max(largest, s.Own.Max)
	}
	decimals := figure.Decimals(largest)
	for _, s := range r.Spans {
		overlap := ""
		if s.Overlap != nil {
			overlap = figure.Milliseconds(s.Overlap.P50, decimals)
		}
		t.add(figure.Clean(s.Name), figure.Group(int64(s.Own.N)), cell{figure.Milliseconds(s.Own.P50, decimals), bold},
			figure.Milliseconds(s.Own.Max, decimals), overlap)
	}
	p.print(t)
}
