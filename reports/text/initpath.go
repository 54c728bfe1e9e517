package text

import (
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// initPath tells how much of the subject's time reaches INIT, where INIT waited
// for others too.
func (p *printer) initPath(r *analysis.Report) {
	x := r.InitPath
	if x == nil || x.HiddenNS == 0 {
		return
	}
	p.heading("init", "whom the end of INIT waited for, from the first release on"+each(r))
	t := &table{columns: []column{{name: "process", left: true, flex: true}, {name: "until", left: true}, {name: "time"}, {name: "share"}}}
	for _, part := range x.Parts {
		t.add(figure.Clean(part.Process), part.Until, cell{figure.Duration(float64(part.NS)), bold}, figure.Percent(float64(part.NS), float64(x.InitNS)))
	}
	p.print(t)
	text := fmt.Sprintf("of the subject's %s, %s reach INIT and %s hide beside the others", figure.Duration(float64(x.SubjectNS+x.HiddenNS)),
		figure.Duration(float64(x.SubjectNS)), figure.Duration(float64(x.HiddenNS)))
	if hidden := mostHidden(x.Categories); hidden != "" {
		text += ": " + hidden
	}
	p.wrap(text, indent, plain)
}

// mostHidden lists the categories that hide most.
func mostHidden(categories []analysis.InitCategory) string {
	const shown = 3
	all := slices.Clone(categories)
	slices.SortStableFunc(all, func(a, b analysis.InitCategory) int { return int(b.HiddenNS - a.HiddenNS) })
	var parts []string
	for _, c := range all[:min(shown, len(all))] {
		if c.HiddenNS > 0 {
			parts = append(parts, figure.Duration(float64(c.HiddenNS))+" "+figure.Clean(c.Category))
		}
	}
	return strings.Join(parts, ", ")
}
