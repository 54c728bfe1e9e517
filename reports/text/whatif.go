package text

import (
	"fmt"
	"io"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// WhatIf writes a prediction.
func WhatIf(w io.Writer, x *analysis.WhatIf, o Options) error {
	p := newPrinter(o)
	duration := func(ns int64) string { return figure.Duration(float64(ns)) }
	if x.Work.Max == 0 {
		p.wrap(fmt.Sprintf("Nothing in these %s matches %s.", plural(x.Wall.N, "cold start"), figure.Clean(x.Without)), 0, yellow)
		return p.flush(w)
	}
	p.line(p.paint(figure.Clean("without "+x.Without), bold))
	saved := duration(x.Saved.Mean)
	if x.SavedMeanCI95 != nil {
		saved += fmt.Sprintf(" (95 %% of the mean: %s…%s)", duration(max(0, x.SavedMeanCI95[0])), duration(x.SavedMeanCI95[1]))
	}
	p.wrap(fmt.Sprintf("INIT takes %s instead of %s: %s less, %s of it. Over %s the gain lies between %s and %s.",
		duration(x.Predicted.Mean), duration(x.Wall.Mean), saved, figure.Percent(float64(x.Saved.Mean), float64(x.Wall.Mean)),
		plural(x.Wall.N, "cold start"), duration(x.Saved.Min), duration(x.Saved.Max)), indent, plain)
	p.wrap(fmt.Sprintf("The work itself is %s on all threads; what of it overlaps with other work saves nothing. Replayed from traced cold starts: "+
		"everything waits for what it waited for, and who holds the CPUs stays the same.", duration(x.Work.Mean)), indent, dim)
	return p.flush(w)
}
