package analysis

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/stat"
)

// ledgerSums holds the accounts of all cold starts: of each only what its cells
// are, for their intervals.
type ledgerSums struct {
	walls         []int64 // by cold start, in the order of adding
	unattributed  int64
	unknownWakers int64
	cells         map[ledger.CellKey]*cellTotals
	order         []*cellTotals
	phases        map[string]int // order of their first appearance
	overlapped    map[string]int64
	longest       map[string]*longTotals
	strangers     map[string]int64 // who else held the CPU that the path waited for
	last          *ColdStart       // the only one of a report on one
}

type cellTotals struct {
	ledger.Cell         // NS is the total
	values      []int64 // by cold start; shorter where the last ones lack it
}

type longTotals struct {
	LongStep
	ns, count int64
}

func newLedgerSums() ledgerSums {
	return ledgerSums{
		cells: map[ledger.CellKey]*cellTotals{}, phases: map[string]int{}, overlapped: map[string]int64{}, longest: map[string]*longTotals{},
		strangers: map[string]int64{},
	}
}

func (s *ledgerSums) add(c ColdStart) {
	l := c.Ledger
	if l == nil {
		return
	}
	s.last = &c
	n := len(s.walls)
	s.walls = append(s.walls, l.End-l.Start)
	s.unattributed += l.UnattributedNS
	s.unknownWakers += l.UnknownWakerNS
	for _, x := range l.Cells() {
		t := s.cells[x.CellKey]
		if t == nil {
			t = &cellTotals{Cell: ledger.Cell{CellKey: x.CellKey}}
			s.cells[x.CellKey] = t
			s.order = append(s.order, t)
			if _, known := s.phases[x.Phase]; !known {
				s.phases[x.Phase] = len(s.phases)
			}
		}
		for len(t.values) < n {
			t.values = append(t.values, 0)
		}
		t.values = append(t.values, x.NS)
		t.NS += x.NS
		t.Sampled = t.Sampled || x.Sampled
		t.Samples += x.Samples
		t.Variance += x.Variance
	}
	for _, o := range l.Overlapped {
		s.overlapped[o.Category] += o.NS
	}
	s.addSteps(c)
}

// report divides the totals, and checks that the cells sum to the whole.
func (s *ledgerSums) report(r *Report, single bool) error {
	n := int64(len(s.walls))
	if n == 0 {
		return nil
	}
	var wall int64
	for _, w := range s.walls {
		wall += w
	}
	slices.SortStableFunc(s.order, func(x, y *cellTotals) int {
		return cmp.Or(cmp.Compare(s.phases[x.Phase], s.phases[y.Phase]), cmp.Compare(y.NS, x.NS),
			cmp.Compare(x.Category, y.Category), cmp.Compare(x.State, y.State))
	})
	totals := make([]int64, len(s.order))
	for i, t := range s.order {
		totals[i] = t.NS
	}
	l := &Ledger{
		WallNS: mean(wall, n), UnattributedNS: mean(s.unattributed, n), UnknownWakerNS: mean(s.unknownWakers, n),
		Cells: []Cell{}, Overlapped: []Overlap{},
	}
	var sum int64
	for i, ns := range stat.Divide(totals, n) {
		sum += ns
		l.Cells = append(l.Cells, s.cell(s.order[i], ns))
	}
	if sum != l.WallNS {
		return fmt.Errorf("the ledger's cells sum to %d ns of %d: this is a mistake of initprof", sum, l.WallNS)
	}
	categories := sortedByValue(s.overlapped)
	for _, name := range categories {
		l.Overlapped = append(l.Overlapped, Overlap{Category: name, NS: mean(s.overlapped[name], n)})
	}
	l.Longest = s.longestSteps(n)
	l.Varying = s.varying()
	r.Ledger = l
	if single {
		r.CriticalPath = criticalPath(*s.last)
	}
	return nil
}

func (s *ledgerSums) cell(t *cellTotals, ns int64) Cell {
	c := Cell{Phase: t.Phase, Category: t.Category, State: t.State.String(), NS: ns, Basis: BasisMeasured}
	for len(t.values) < len(s.walls) {
		t.values = append(t.values, 0)
	}
	_, interval := stat.MeanCI95(t.values)
	if t.Sampled {
		c.Basis = BasisSampled
		c.Samples = new(int64(t.Samples))
		if interval == nil { // one cold start: as sure as its events are close
			interval = ledger.Interval(float64(ns), t.Variance)
		}
	}
	if interval != nil {
		c.CI95 = &[2]int64{int64(max(0, interval[0])), int64(interval[1])}
	}
	return c
}

// leastVaried is how many cold starts it takes to compare quarters of them.
const leastVaried = 8

// varying compares the slowest quarter with the fastest.
func (s *ledgerSums) varying() []Varying {
	n := len(s.walls)
	if n < leastVaried {
		return nil
	}
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(x, y int) int { return cmp.Compare(s.walls[x], s.walls[y]) })
	quarter := n / 4
	of := func(t *cellTotals, which []int) int64 {
		var sum int64
		for _, i := range which {
			sum += t.values[i]
		}
		return mean(sum, int64(len(which)))
	}
	out := []Varying{}
	for _, t := range s.order {
		v := Varying{Phase: t.Phase, Category: t.Category, State: t.State.String(), FastNS: of(t, order[:quarter]), SlowNS: of(t, order[n-quarter:])}
		if v.FastNS != v.SlowNS {
			out = append(out, v)
		}
	}
	difference := func(v Varying) int64 { return max(v.SlowNS-v.FastNS, v.FastNS-v.SlowNS) }
	slices.SortStableFunc(out, func(x, y Varying) int { return cmp.Compare(difference(y), difference(x)) })
	return out
}

// addSteps adds each step to those like it.
func (s *ledgerSums) addSteps(c ColdStart) {
	n := namer{names: c.Names}
	var last *longTotals
	for i := range c.Ledger.Steps {
		x := &c.Ledger.Steps[i]
		own := x.NS() - x.MeasurementNS
		if own == 0 {
			continue
		}
		if strings.HasSuffix(x.Behind, ledger.NotSubject) {
			s.strangers[strings.TrimSuffix(x.Behind, ledger.NotSubject)] += own
		}
		step := LongStep{
			Phase: x.Phase, Category: x.Category, State: x.State.String(), Thread: threadOf(x),
			WaitsFor: x.WaitsFor, RunnableBehind: x.Behind, Stack: n.stack(x),
		}
		key := strings.Join(append([]string{step.Phase, step.Category, step.State, step.Thread, step.WaitsFor, step.RunnableBehind}, step.Stack...), "\x00")
		t := s.longest[key]
		if t == nil {
			t = &longTotals{LongStep: step}
			s.longest[key] = t
		}
		t.ns += own
		if t != last { // else it goes on
			t.count++
		}
		last = t
	}
}

// busyShare is the share of INIT that others may take before a report warns.
const busyShare = 0.05

// caveats warns of a machine on which the subject had to wait for others, since
// that belongs to no work of its own although its ledger holds it.
func (s *ledgerSums) caveats() []string {
	var walls, taken int64
	for _, ns := range s.walls {
		walls += ns
	}
	most := ""
	for name, ns := range s.strangers {
		taken += ns
		if most == "" || ns > s.strangers[most] || ns == s.strangers[most] && name < most {
			most = name
		}
	}
	if float64(taken) <= busyShare*float64(walls) {
		return nil
	}
	return []string{fmt.Sprintf("the machine was busy: %.0f %% of exec → /next is waiting for a CPU that other programs held, most of all %s; an idle machine tells more",
		100*float64(taken)/float64(walls), most)}
}

// shownSteps is how many of the longest steps a report holds.
const shownSteps = 40

func (s *ledgerSums) longestSteps(n int64) []LongStep {
	all := make([]*longTotals, 0, len(s.longest))
	keys := map[*longTotals]string{}
	for key, t := range s.longest {
		all = append(all, t)
		keys[t] = key
	}
	slices.SortFunc(all, func(x, y *longTotals) int { return cmp.Or(cmp.Compare(y.ns, x.ns), cmp.Compare(keys[x], keys[y])) })
	out := []LongStep{}
	for _, t := range all[:min(len(all), shownSteps)] {
		t.NS, t.Count = mean(t.ns, n), each(t.count, n)
		out = append(out, t.LongStep)
	}
	return out
}

func threadOf(x *ledger.Step) string {
	if x.Thread == nil {
		return ""
	}
	return x.Thread.Label()
}

// criticalPath lists the steps of one cold start; neighbours that are alike are
// one. The tracer's share of a step stands at its end.
func criticalPath(c ColdStart) []PathStep {
	n := namer{names: c.Names}
	out := []PathStep{}
	at := c.Ledger.Start
	var open *PathStep
	var measured, longest int64
	flush := func() {
		if open == nil {
			return
		}
		if own := open.NS - measured; own > 0 {
			step := *open
			step.NS = own
			out = append(out, step)
			open.StartNS += own
		}
		if measured > 0 {
			share := *open
			share.NS, share.Category, share.Stack = measured, ledger.Measurement, []string{}
			out = append(out, share)
		}
		open, measured, longest = nil, 0, 0
	}
	for i := range c.Ledger.Steps {
		x := &c.Ledger.Steps[i]
		step := PathStep{
			StartNS: x.Start - at, NS: x.NS(), Phase: x.Phase, Category: x.Category, State: x.State.String(), Thread: threadOf(x),
			Waker: x.Waker, WaitsFor: x.WaitsFor, RunnableBehind: x.Behind,
		}
		if x.Goroutine != nil && x.Goroutine.ID != 0 {
			step.Goroutine = new(x.Goroutine.ID)
			if f := StartFunction(c.Names, x.Goroutine); f != unknownFunction {
				step.GoroutineFunction = f
			}
		}
		if open == nil || !alike(open, &step) {
			flush()
			open = &step
			open.NS = 0
		}
		open.NS += x.NS()
		measured += x.MeasurementNS
		if x.NS() > longest { // its stack tells most
			longest = x.NS()
			open.Stack = n.stack(x)
		}
	}
	flush()
	return out
}

func alike(x, y *PathStep) bool {
	same := x.Goroutine == nil && y.Goroutine == nil || x.Goroutine != nil && y.Goroutine != nil && *x.Goroutine == *y.Goroutine
	return same && x.Phase == y.Phase && x.Category == y.Category && x.State == y.State && x.Thread == y.Thread &&
		x.Waker == y.Waker && x.WaitsFor == y.WaitsFor && x.RunnableBehind == y.RunnableBehind
}

// namer writes stacks in terms of the source.
type namer struct{ names Names }

func (n *namer) stack(x *ledger.Step) []string {
	frames := []string{}
	if n.names == nil {
		return frames
	}
	add := func(addresses []uint64, kernel bool) {
		for i, address := range addresses {
			l := n.names.Resolve(x.PID, x.StackAt, address, kernel, i > 0)
			for _, f := range l.Frames {
				frames = append(frames, frameText(f.Function, f.File, f.Line))
			}
			if len(l.Frames) == 0 {
				frames = append(frames, fmt.Sprintf("%s+%#x", cmp.Or(path.Base(l.Module), "[unknown]"), l.Address))
			}
		}
	}
	add(x.Stack.User, false)
	return frames
}

func frameText(function, file string, line int) string {
	if file == "" {
		return function
	}
	return fmt.Sprintf("%s (%s:%d)", function, path.Base(file), line)
}
