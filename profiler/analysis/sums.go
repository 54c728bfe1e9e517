package analysis

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/trace"
)

// sums holds totals over the traced cold starts of one kind.
type sums struct {
	n     int // cold starts with a window
	timed int // of those, with a timeline

	walls  []int64
	phases []*phaseValues
	spans  []*spanValues

	order      []string // of the phases of cold start orderOf
	orderOf    int
	otherOrder []int

	syscalls   map[string]*counts
	faults     map[[2]string]*counts // mapping and kind
	files      map[string]*counts
	threads    map[string]*counts
	tids       map[string]int
	requests   []*requestValues
	imports    map[string]*importValues // by path
	startup    startupSums
	goroutines goroutineSums
	ledger     ledgerSums
	init       initSums

	stacks struct {
		complete  int64
		truncated [len(trace.Truncations)]int64
	}
}

// counts are totals; which are used depends on what they count.
type counts struct {
	count, errors, bytes int64
	ns, runnable, wait   int64
}

type phaseValues struct {
	name              string
	source            phase.Source
	delta, cumulative []int64
}

type spanValues struct {
	name         string
	own, overlap []int64
}

type requestValues struct {
	method, path  string
	occurrence    int // of that method and path within a cold start
	n, start      int64
	answered, sum int64
	status        int
}

func newSums() sums {
	return sums{
		syscalls: map[string]*counts{}, faults: map[[2]string]*counts{}, files: map[string]*counts{},
		threads: map[string]*counts{}, tids: map[string]int{}, imports: map[string]*importValues{},
		startup: newStartupSums(), goroutines: newGoroutineSums(), ledger: newLedgerSums(), init: newInitSums(),
	}
}

func at[K comparable](m map[K]*counts, key K) *counts {
	c := m[key]
	if c == nil {
		c = &counts{}
		m[key] = c
	}
	return c
}

func (s *sums) add(c ColdStart, run Run) {
	if c.Phases == nil {
		return
	}
	s.n++
	if run.WallNS != nil {
		s.walls = append(s.walls, *run.WallNS)
	}
	s.addPhases(c)
	s.addRequests(c.Phases)
	if c.Timeline == nil {
		return
	}
	s.timed++
	s.startup.add(c.Phases, c.Startup)
	s.goroutines.add(c)
	s.ledger.add(c)
	s.init.add(c)
	tl, from, to := c.Timeline, c.Phases.Start, c.Phases.End
	for _, call := range tl.Calls {
		if call.Begin < from || call.Begin >= to {
			continue
		}
		n := at(s.syscalls, tl.SyscallName(call.Syscall))
		n.count++
		n.ns += min(call.Until, to) - call.Begin
		if call.Failed() {
			n.errors++
		}
		s.stack(call.Stack)
	}
	for _, f := range tl.Faults {
		if f.Begin < from || f.Begin >= to {
			continue
		}
		n := at(s.faults, [2]string{cmp.Or(f.Region.Path, "[unknown]"), f.Region.Kind})
		if f.Major {
			n.errors++
		} else {
			n.count++
		}
		s.stack(f.Stack)
	}
	for _, f := range tl.Files(from, to) {
		n := at(s.files, f.Path)
		n.count += int64(f.Opens)
		n.bytes += f.Read
		n.ns += f.NS
	}
	s.addImports(tl, from, to)
	for _, t := range tl.Threads {
		label := t.Label()
		alive := false
		for i := range t.Between(from, to) {
			alive = true
			n := at(s.threads, label)
			switch i.State {
			case trace.StateRunnable:
				n.runnable += i.NS()
			case trace.StateWaiting:
				n.wait += i.NS()
			default:
				n.ns += i.NS()
			}
			if i.Left != nil && i.Left.Time == i.Start {
				s.stack(i.Left.Stack)
			}
		}
		if alive {
			s.tids[label] = t.TID
		}
		s.addFaultTime(t, from, to)
	}
	for _, sample := range tl.Samples {
		if from <= sample.Time && sample.Time < to {
			s.stack(sample.Stack)
		}
	}
}

// addFaultTime gives each fault its own time, whatever it spent it on, without
// that of the faults nested in it.
func (s *sums) addFaultTime(t *trace.Thread, from, to int64) {
	for i := range t.Between(from, to) {
		if f := i.Fault; f != nil {
			at(s.faults, [2]string{cmp.Or(f.Region.Path, "[unknown]"), f.Region.Kind}).ns += i.NS()
		}
	}
}

func (s *sums) stack(stack trace.Stack) {
	switch {
	case int(stack.Truncated) < len(s.stacks.truncated) && stack.Truncated != trace.Complete:
		s.stacks.truncated[stack.Truncated]++
	case len(stack.User) > 0:
		s.stacks.complete++
	}
}

func (s *sums) addPhases(c ColdStart) {
	var order []string
	for _, p := range c.Phases.Phases {
		order = append(order, p.Name)
		i := slices.IndexFunc(s.phases, func(v *phaseValues) bool { return v.name == p.Name })
		if i < 0 {
			i = len(s.phases)
			s.phases = append(s.phases, &phaseValues{name: p.Name, source: p.Source})
		}
		s.phases[i].delta = append(s.phases[i].delta, p.End-p.Start)
		s.phases[i].cumulative = append(s.phases[i].cumulative, p.End-c.Phases.Start)
	}
	switch {
	case s.orderOf == 0:
		s.order, s.orderOf = order, c.Index
	case !slices.Equal(s.order, order):
		s.otherOrder = append(s.otherOrder, c.Index)
	}
	for _, span := range c.Phases.Spans {
		i := slices.IndexFunc(s.spans, func(v *spanValues) bool { return v.name == span.Name })
		if i < 0 {
			i = len(s.spans)
			s.spans = append(s.spans, &spanValues{name: span.Name})
		}
		s.spans[i].own = append(s.spans[i].own, span.End-span.Start)
		s.spans[i].overlap = append(s.spans[i].overlap, span.OverlapNS)
	}
}

func (s *sums) addRequests(p *phase.Result) {
	seen := map[string]int{}
	for _, q := range p.Requests {
		if q.Start > p.End { // the one that ends the window belongs to it
			continue
		}
		name := q.Method + " " + q.Path
		seen[name]++
		i := slices.IndexFunc(s.requests, func(v *requestValues) bool {
			return v.method == q.Method && v.path == q.Path && v.occurrence == seen[name]
		})
		if i < 0 {
			i = len(s.requests)
			s.requests = append(s.requests, &requestValues{method: q.Method, path: q.Path, occurrence: seen[name]})
		}
		v := s.requests[i]
		v.n++
		v.start += q.Start - p.Start
		if q.End != 0 && q.End >= q.Start && q.Start < p.End {
			v.answered++
			v.sum += q.End - q.Start
		}
		v.status = cmp.Or(q.Status, v.status)
	}
}

// report divides the totals.
func (s *sums) report(r *Report, single bool) error {
	if s.n == 0 {
		return nil
	}
	r.Wall = summary(s.walls)
	r.Phases = []Phase{}
	for _, v := range s.phases {
		r.Phases = append(r.Phases, Phase{Name: v.name, Source: string(v.source), Delta: stat.Summarize(v.delta), Cumulative: stat.Summarize(v.cumulative)})
	}
	slices.SortStableFunc(r.Phases, func(x, y Phase) int { return cmp.Compare(x.Cumulative.P50, y.Cumulative.P50) })
	for _, v := range s.spans {
		r.Spans = append(r.Spans, SpanStatistic{Name: v.name, Own: stat.Summarize(v.own), Overlap: summary(v.overlap)})
	}
	r.Requests = []Request{}
	for _, v := range s.requests {
		q := Request{Method: v.method, Path: v.path, StartNS: mean(v.start, v.n)}
		if v.answered > 0 {
			q.NS = new(mean(v.sum, v.answered))
		}
		if v.status != 0 {
			q.Status = new(v.status)
		}
		r.Requests = append(r.Requests, q)
	}
	slices.SortStableFunc(r.Requests, func(x, y Request) int { return cmp.Compare(x.StartNS, y.StartNS) })
	if s.timed > 0 {
		s.reportTimelines(r, single)
	}
	r.InitPath = s.init.report()
	return s.ledger.report(r, single)
}

func (s *sums) reportTimelines(r *Report, single bool) {
	n := int64(s.timed)
	recorded := func(signal string) bool {
		return r.Settings.Signals == nil || slices.Contains(r.Settings.Signals, signal)
	}
	if recorded("syscalls") {
		r.Syscalls = []Syscall{}
		names, ns := divided(s.syscalls, n)
		for i, name := range names {
			c := s.syscalls[name]
			r.Syscalls = append(r.Syscalls, Syscall{Name: name, Count: each(c.count, n), Errors: each(c.errors, n), NS: ns[i]})
		}
		r.Files = []File{}
		names, ns = divided(s.files, n)
		for i, name := range names {
			c := s.files[name]
			r.Files = append(r.Files, File{Path: name, Opens: each(c.count, n), Bytes: each(c.bytes, n), NS: ns[i]})
		}
		s.reportImports(r)
	}
	if recorded("faults") {
		f := &Faults{ByMapping: []MappingFault{}}
		var minor, major int64
		keys, ns := divided(s.faults, n)
		for i, key := range keys {
			c := s.faults[key]
			minor, major = minor+c.count, major+c.errors
			f.NS += ns[i]
			f.ByMapping = append(f.ByMapping, MappingFault{Mapping: key[0], Kind: key[1], Minor: each(c.count, n), Major: each(c.errors, n), NS: ns[i]})
		}
		f.Minor, f.Major = each(minor, n), each(major, n)
		r.Faults = f
	}
	if recorded("off_cpu") {
		r.Threads = []Thread{}
		names, ns := divided(s.threads, n)
		for i, name := range names {
			c := s.threads[name]
			t := Thread{Name: name, OnCPUNS: ns[i], RunnableNS: mean(c.runnable, n), WaitingNS: mean(c.wait, n)}
			if single {
				t.TID = s.tids[name]
			}
			r.Threads = append(r.Threads, t)
		}
	}
	if recorded("binding") {
		s.startup.report(r, n, r.Subject.Linkage == "dynamic")
	}
	if s.goroutines.known {
		r.Goroutines = s.goroutines.report(n, single)
		r.Warnings = append(r.Warnings, s.goroutines.caveats(n)...)
	}
	r.Stacks = &Stacks{Complete: each(s.stacks.complete, n), Truncated: []TruncatedStacks{}}
	for reason, name := range trace.Truncations {
		if count := s.stacks.truncated[reason]; count > 0 {
			r.Stacks.Truncated = append(r.Stacks.Truncated, TruncatedStacks{Reason: name, Count: each(count, n)})
		}
	}
	slices.SortFunc(r.Stacks.Truncated, func(x, y TruncatedStacks) int { return cmp.Compare(x.Reason, y.Reason) })
}

// divided lists the keys, most time first, with their mean times, rounded so
// that the sum holds.
func divided[K comparable](m map[K]*counts, n int64) ([]K, []int64) {
	keys := make([]K, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, func(x, y K) int {
		return cmp.Or(cmp.Compare(m[y].ns, m[x].ns), cmp.Compare(fmt.Sprint(x), fmt.Sprint(y)))
	})
	totals := make([]int64, len(keys))
	for i, key := range keys {
		totals[i] = m[key].ns
	}
	return keys, stat.Divide(totals, n)
}

func each(total, n int64) float64 { return float64(total) / float64(n) }

func mean(total, n int64) int64 { return stat.Divide([]int64{total}, n)[0] }
