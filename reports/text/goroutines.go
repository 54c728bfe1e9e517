package text

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// goStatement is all goroutines that one go statement started with one function.
type goStatement struct {
	analysis.Goroutine // sums, save what is the same in all
	count              int
	waiting            int64
	longest            analysis.WaitedFor
}

// byStatement sums up goroutines of the same go statement.
func byStatement(goroutines []analysis.Goroutine) []*goStatement {
	var all []*goStatement
	index := map[[2]string]*goStatement{}
	for _, g := range goroutines {
		key := [2]string{g.Function, g.CreatedBy}
		s := index[key]
		if s == nil {
			s = &goStatement{Goroutine: analysis.Goroutine{ID: g.ID, Kind: g.Kind, Function: g.Function, CreatedBy: g.CreatedBy, ReadyBy: g.ReadyBy}}
			index[key] = s
			all = append(all, s)
		}
		s.count++
		s.RunningNS, s.OnCPUNS, s.RunnableNS = s.RunningNS+g.RunningNS, s.OnCPUNS+g.OnCPUNS, s.RunnableNS+g.RunnableNS
		s.SyscallNS += g.SyscallNS
		for _, w := range g.Waiting {
			s.waiting += w.NS
			if w.NS > s.longest.NS {
				s.longest = w
			}
		}
	}
	slices.SortStableFunc(all, func(x, y *goStatement) int { return cmp.Compare(y.busy(), x.busy()) })
	return all
}

// busy is the time in which it did something.
func (s *goStatement) busy() int64 { return s.RunningNS + s.SyscallNS }

func (p *printer) goroutines(r *analysis.Report) {
	if len(r.Goroutines) == 0 {
		return
	}
	all := byStatement(r.Goroutines)
	p.heading("goroutines", fmt.Sprintf("%s from %s, time inside the window%s", plural(len(r.Goroutines), "goroutine"),
		plural(len(all), "go statement"), each(r)))
	t := &table{columns: []column{
		{name: "function", left: true, flex: true},
		{name: "running"},
		{name: "on CPU"},
		{name: "syscall"},
		{name: "runnable"},
		{name: "waiting"},
		{name: "most for", left: true, quiet: true},
	}}
	shown := all[:min(p.Rows, len(all))]
	for _, s := range shown {
		name := figure.Clean(shortFunction(s.Kind, s.Function))
		if s.count > 1 {
			name = fmt.Sprintf("%d × %s", s.count, name)
		}
		d := func(ns int64) string { return figure.Duration(float64(ns)) }
		t.add(name, d(s.RunningNS), d(s.OnCPUNS), d(s.SyscallNS), d(s.RunnableNS), d(s.waiting), figure.Shorten(figure.Clean(s.longest.Reason), 16))
	}
	p.print(t)
	p.more(len(all)-len(shown), "")
}

// shortFunction leaves out the path of the package, as Go's own tools do, and
// puts the kind of what is not the program's own before it.
func shortFunction(kind, function string) string {
	function = function[strings.LastIndexByte(function, '/')+1:]
	switch kind {
	case analysis.KindGC, analysis.KindFinalizer, analysis.KindRuntime:
		return kind + ": " + strings.TrimPrefix(function, "runtime.")
	}
	return function
}
