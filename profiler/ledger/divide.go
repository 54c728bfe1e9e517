package ledger

import (
	"cmp"
	"slices"
	"sort"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/trace"
)

// divider splits segments at whatever changes what they are blamed on, and
// gives each piece its category.
type divider struct {
	*walk
	match  *matcher
	points map[*trace.Thread][]stackPoint
	spans  map[*trace.Thread][]exactSpan // by start
	costs  map[*trace.Thread][]cost      // by time
}

// stackPoint is an instant at which it is known what a thread was doing.
type stackPoint struct {
	at     int64
	stack  trace.Stack
	taken  int64 // when; before at for the end of a call
	sample bool
}

// exactSpan is a stretch of a thread's time of which probes tell what it is.
type exactSpan struct {
	start, end int64
	kind, name string
}

type cost struct {
	at int64
	ns float64
}

func newDivider(w *walk) *divider {
	d := &divider{
		walk: w, match: newMatcher(w), points: map[*trace.Thread][]stackPoint{},
		spans: map[*trace.Thread][]exactSpan{}, costs: map[*trace.Thread][]cost{},
	}
	d.collectPoints()
	d.collectSpans()
	return d
}

func (d *divider) point(t *trace.Thread, at int64, stack trace.Stack, taken int64) {
	if !stack.Empty() {
		d.points[t] = append(d.points[t], stackPoint{at: at, stack: stack, taken: taken})
	}
}

func (d *divider) charge(t *trace.Thread, at int64, ns float64) {
	d.costs[t] = append(d.costs[t], cost{at, ns})
}

func (d *divider) collectPoints() {
	for _, c := range d.Timeline.Calls {
		d.point(c.Thread, c.Begin, c.Stack, c.Begin)
		d.point(c.Thread, c.Until, c.Stack, c.Begin)
		d.charge(c.Thread, c.Begin, d.Costs.Syscall/2)
		d.charge(c.Thread, c.Until, d.Costs.Syscall/2)
	}
	for _, f := range d.Timeline.Faults {
		d.point(f.Thread, f.Begin, f.Stack, f.Begin)
		d.point(f.Thread, f.Until, f.Stack, f.Begin)
		d.charge(f.Thread, f.Begin, d.Costs.Fault/2)
		d.charge(f.Thread, f.Until, d.Costs.Fault/2)
	}
	for _, s := range d.Timeline.Samples {
		if !s.Stack.Empty() {
			d.points[s.Thread] = append(d.points[s.Thread], stackPoint{at: s.Time, stack: s.Stack, taken: s.Time, sample: true})
		}
		d.charge(s.Thread, s.Time, d.Costs.Sample)
	}
	for _, f := range d.Timeline.Functions {
		d.point(f.Thread, f.Time, f.Stack, f.Time)
		d.charge(f.Thread, f.Time, d.Costs.Call)
		if f.End != 0 {
			d.point(f.Thread, f.End, f.Stack, f.Time)
		}
	}
	for _, t := range d.Timeline.Threads {
		for n := range t.Intervals {
			if i := &t.Intervals[n]; i.Left != nil && i.Left.Time == i.Start {
				d.point(t, i.Start, i.Left.Stack, i.Start)
				d.charge(t, i.Start, d.Costs.Sched)
			}
		}
	}
	for _, m := range d.Timeline.Marks {
		if t := d.threadAt(m.PID, m.TID, m.Time); t != nil {
			d.charge(t, m.Time, d.Costs.Mark)
		}
	}
	for _, n := range d.Timeline.GoNotes {
		ns := d.Costs.Status
		if n.Seen {
			ns = d.Costs.Seen
		}
		d.charge(n.Thread, n.Time, ns)
	}
	for t := range d.points {
		slices.SortStableFunc(d.points[t], func(x, y stackPoint) int { return cmp.Compare(x.at, y.at) })
	}
	for t := range d.costs {
		slices.SortStableFunc(d.costs[t], func(x, y cost) int { return cmp.Compare(x.at, y.at) })
	}
}

// Kinds of exact spans, as rules name them.
const (
	SpanBinding     = "binding"
	SpanRelocation  = "relocation"
	SpanConstructor = "constructor"
	SpanStage       = "stage"
	SpanPackage     = "package"
	SpanCerts       = "certs"
	SpanAllocator   = "allocator"
)

func (d *divider) collectSpans() {
	add := func(s startup.Span, kind, name string) {
		if s.Thread != nil && s.Start < s.End {
			d.spans[s.Thread] = append(d.spans[s.Thread], exactSpan{s.Start, s.End, kind, name})
		}
	}
	for _, f := range d.Timeline.Functions {
		if f.Name == loader.CallInit && f.End != 0 {
			add(startup.Span{Start: f.Time, End: f.End, Thread: f.Thread}, SpanConstructor, f.Name)
		}
	}
	d.collectStart(add)
	if r := d.Startup; r != nil {
		for _, x := range r.Bindings {
			add(x.Span, SpanBinding, x.Symbol)
		}
		for _, x := range r.Objects {
			add(x.Relocation, SpanRelocation, x.Path)
		}
		for _, x := range r.Stages {
			add(x.Span, SpanStage, x.Function)
		}
		for _, x := range r.Packages {
			add(x.Span, SpanPackage, x.Path)
		}
		for _, x := range r.Certs {
			add(x.Span, SpanCerts, x.Path)
		}
		for _, x := range r.Allocators {
			// What is summed up over calls, or runs beside the program, is no span.
			if x.TimeNS == x.NS() && x.Function != "runtime.gcStart" {
				add(x.Span, SpanAllocator, x.Function)
			}
		}
	}
	for t := range d.spans {
		slices.SortStableFunc(d.spans[t], func(x, y exactSpan) int {
			return cmp.Or(cmp.Compare(x.start, y.start), cmp.Compare(y.end, x.end))
		})
	}
}

// collectStart adds what libc runs between a program's entry and its main: the
// program's own constructors, which the loader's call_init does not call.
func (d *divider) collectStart(add func(s startup.Span, kind, name string)) {
	entered := map[*trace.Thread]int64{}
	for _, m := range d.Timeline.Marks {
		t := d.threadAt(m.PID, m.TID, m.Time)
		if t == nil {
			continue
		}
		switch since, ok := entered[t]; {
		case m.Kind == trace.MarkEntry:
			entered[t] = m.Time
		case m.Kind == trace.MarkMain && ok:
			add(startup.Span{Start: since, End: m.Time, Thread: t}, SpanConstructor, "_start")
			delete(entered, t)
		}
	}
}

// spanAt returns the innermost span at that time: calls nest, so it is the one
// that began last.
func (d *divider) spanAt(t *trace.Thread, at int64) *exactSpan {
	spans := d.spans[t]
	n := sort.Search(len(spans), func(n int) bool { return spans[n].start > at })
	for n--; n >= 0; n-- {
		if spans[n].end > at {
			return &spans[n]
		}
	}
	return nil
}

// borders lists the instants inside (from, to) at which a piece has to end.
func (d *divider) borders(s segment) []int64 {
	all := []int64{s.from, s.to}
	add := func(at int64) {
		if s.from < at && at < s.to {
			all = append(all, at)
		}
	}
	for _, p := range d.Phases.Phases {
		add(p.Start)
	}
	if s.thread != nil {
		for _, x := range d.spans[s.thread] {
			if x.start >= s.to {
				break
			}
			add(x.start)
			add(x.end)
		}
		if s.inUser() {
			points := d.points[s.thread]
			n := sort.Search(len(points), func(n int) bool { return points[n].at > s.from })
			for ; n < len(points) && points[n].at < s.to; n++ {
				add(points[n].at)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// divide makes the steps of a segment.
func (d *divider) divide(s segment) []Step {
	var steps []Step
	borders := d.borders(s)
	for n := 0; n+1 < len(borders); n++ {
		steps = append(steps, d.piece(s, borders[n], borders[n+1])...)
	}
	if s.thread != nil && s.state.OnCPU() {
		d.measure(s, steps)
	}
	return steps
}

// piece makes the steps of a part that nothing known divides: one, or two where
// what is known of its ends differs.
func (d *divider) piece(s segment, from, to int64) []Step {
	step := Step{
		Start: from, End: to, State: s.state, Thread: s.thread, Goroutine: s.life,
		Waker: s.waker, WaitsFor: s.waitsFor, Wait: s.wait, Behind: s.behind, StackAt: from,
	}
	if p := d.Phases.At(from); p != nil {
		step.Phase = p.Name
	}
	facts := situation{phase: step.Phase, state: s.state, wait: s.wait}
	if s.thread != nil {
		facts.thread = s.thread.Label()
		facts.span = d.spanAt(s.thread, from)
		step.PID = s.thread.PID
	}
	if s.life != nil {
		step.PID = s.life.PID
		facts.goroutine = d.firstFunction(s.life)
	}
	if !s.inUser() {
		step.Stack = s.stack
		if s.stack.Empty() && s.life != nil && s.interval == nil { // it has not run yet
			step.Stack, step.StackAt = trace.Stack{User: []uint64{s.life.StartPC}}, max(from, s.life.Start)
		}
		if i := s.interval; i != nil {
			step.Stack, step.StackAt = stackOf(i)
			facts.interval(d.Timeline, i)
		}
		facts.stack = d.match.stack(step.PID, step.StackAt, step.Stack)
		step.Category = d.Rules.category(&facts)
		return []Step{step}
	}
	left, right := d.around(s.thread, from, to)
	half := func(p *stackPoint) Step {
		x := step
		f := facts
		if p != nil {
			x.Stack, x.StackAt = onlyUser(p.stack), p.taken
			if p.sample {
				x.Samples = 1
			}
			f.stack = d.match.stack(x.PID, x.StackAt, x.Stack)
		}
		x.Category = d.Rules.category(&f)
		return x
	}
	first, second := half(left), half(right)
	switch {
	case left == nil && right != nil:
		return []Step{second}
	case right == nil || first.Category == second.Category || to-from < 2:
		return []Step{first}
	}
	middle := from + (to-from)/2
	first.End, second.Start = middle, middle
	first.Sampled, second.Sampled = true, true
	return []Step{first, second}
}

// inUser reports whether the thread was in user mode, or was taken off the CPU
// there, where no stack tells what it was doing.
func (s *segment) inUser() bool {
	if s.thread == nil || s.interval == nil {
		return s.thread != nil && s.state == trace.StateUser
	}
	i := s.interval
	return i.Syscall == nil && i.Fault == nil && (i.Left == nil || i.Left.Stack.Empty())
}

// stackOf returns the stack that an interval off user mode spends its time on,
// and when it was taken.
func stackOf(i *trace.Interval) (trace.Stack, int64) {
	switch {
	case i.Left != nil && !i.Left.Stack.Empty():
		return i.Left.Stack, i.Left.Time
	case i.Fault != nil && !i.Fault.Stack.Empty():
		return i.Fault.Stack, i.Fault.Begin
	case i.Syscall != nil:
		return i.Syscall.Stack, i.Syscall.Begin
	}
	return trace.Stack{}, i.Start
}

// onlyUser is a stack without its part in the kernel.
func onlyUser(s trace.Stack) trace.Stack { s.Kernel = nil; return s }

// around returns what is known of a thread nearest to both ends of a stretch in
// user mode, within the same program.
func (d *divider) around(t *trace.Thread, from, to int64) (left, right *stackPoint) {
	points := d.points[t]
	n := sort.Search(len(points), func(n int) bool { return points[n].at > from })
	if n > 0 && d.sameProgram(t, points[n-1].taken, from) {
		left = &points[n-1]
	}
	n = sort.Search(len(points), func(n int) bool { return points[n].at >= to })
	if n < len(points) && d.sameProgram(t, to, points[n].taken) {
		right = &points[n]
	}
	return left, right
}

func (d *divider) sameProgram(t *trace.Thread, from, to int64) bool {
	for _, e := range t.Process.Execs {
		if from < e.Time && e.Time <= to {
			return false
		}
	}
	return true
}

// measure cuts the tracer's share out of the steps of one segment: what its
// events cost, as far as the segment is long enough.
func (d *divider) measure(s segment, steps []Step) {
	costs := d.costs[s.thread]
	n := sort.Search(len(costs), func(n int) bool { return costs[n].at >= s.from })
	owed := 0.0
	for k := range steps {
		x := &steps[k]
		for ; n < len(costs) && costs[n].at < x.End; n++ {
			owed += costs[n].ns
		}
		x.MeasurementNS = min(int64(owed), x.NS())
		owed -= float64(x.MeasurementNS)
	}
}

// overlapped sums up what the subject ran on CPUs off the path.
func (d *divider) overlapped(path []segment) []Overlap {
	sums := map[string]int64{}
	d.beside(path, func(x *Step) {
		sums[x.Category] += x.NS() - x.MeasurementNS
		sums[Measurement] += x.MeasurementNS
	})
	var all []Overlap
	for category, ns := range sums {
		if ns > 0 {
			all = append(all, Overlap{category, ns})
		}
	}
	slices.SortFunc(all, func(x, y Overlap) int {
		return cmp.Or(cmp.Compare(y.NS, x.NS), cmp.Compare(x.Category, y.Category))
	})
	return all
}

// beside yields what the subject ran on CPUs off the path.
func (d *divider) beside(path []segment, yield func(*Step)) {
	taken := map[*trace.Thread][][2]int64{}
	for _, s := range path {
		if s.thread != nil {
			taken[s.thread] = append(taken[s.thread], [2]int64{s.from, s.to})
		}
	}
	for _, t := range d.Timeline.Threads {
		on := taken[t]
		for i := range t.Between(d.Phases.Start, d.Phases.End) {
			if !i.State.OnCPU() {
				continue
			}
			at := i.Start
			free := func(until int64) {
				if at < until {
					s := segment{from: at, to: until, state: i.State, thread: t, interval: &i}
					if d.Goroutines {
						s.life = t.GoroutineAt(at)
					}
					steps := d.divide(s)
					for n := range steps {
						yield(&steps[n])
					}
				}
			}
			for len(on) > 0 && on[0][1] <= at {
				on = on[1:]
			}
			for k := 0; k < len(on) && on[k][0] < i.End; k++ {
				free(on[k][0])
				at = max(at, on[k][1])
			}
			free(i.End)
		}
	}
}
