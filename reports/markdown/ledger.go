package markdown

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// ledger lists the cells that delayed the end of the window most.
func (p *page) ledger(r *analysis.Report) {
	l := r.Ledger
	if l == nil {
		return
	}
	cells := slices.Clone(l.Cells)
	slices.SortStableFunc(cells, func(x, y analysis.Cell) int { return cmp.Compare(y.NS, x.NS) })
	p.table("<on the critical path", "<category", "<state", "time", "share", "95 % of the mean")
	var rest int64
	for i, c := range cells {
		if i >= rows {
			rest += c.NS
			continue
		}
		interval := "–"
		if c.CI95 != nil {
			interval = figure.Duration(float64(c.CI95[0])) + " … " + figure.Duration(float64(c.CI95[1]))
		}
		p.row(escaped(c.Phase), escaped(c.Category), c.State, figure.Duration(float64(c.NS)), figure.Percent(float64(c.NS), float64(l.WallNS)), interval)
	}
	if rest > 0 {
		p.row("others", "", "", figure.Duration(float64(rest)), figure.Percent(float64(rest), float64(l.WallNS)), "")
	}
}
