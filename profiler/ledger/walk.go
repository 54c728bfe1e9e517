package ledger

import (
	"slices"
	"sort"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// actor is who has to get on for the window to end: a thread, or a goroutine
// whichever thread runs it.
type actor struct {
	thread *trace.Thread
	life   *trace.GoroutineLife
}

// segment is a part of an actor's time, and what it depends on.
type segment struct {
	from, to int64
	state    trace.State
	thread   *trace.Thread
	life     *trace.GoroutineLife
	interval *trace.Interval // of the thread; nil for a parked goroutine
	stack    trace.Stack     // of a parked goroutine
	behind   string

	// What ended a wait: who of the subject, at what time. The wait between then
	// and the segment's end, if any, was for something outside.
	cause    *actor
	causeAt  int64
	through  *trace.Thread // that carried a wake-up from causeAt to the segment's end
	waker    string
	sent     *carrier // the request whose answer ended the wait
	wait     WaitKind
	waitsFor string

	lost bool // the chain is lost here
}

// walk knows a cold start by the dependencies of what it did.
type walk struct {
	Input
	byTID    map[int][]*trace.Thread
	carriers map[*trace.Descriptor][]carrier // calls that carried a request, by time
	requests []carrier
	peers    *Peers // nil until a wait needs them
}

// carrier is the call that carried a request to the environment.
type carrier struct {
	*trace.Call
	answered int64 // exit of the call that read the answer; 0: none
	name     string
}

func newWalk(in Input) *walk {
	w := &walk{Input: in, byTID: map[int][]*trace.Thread{}, carriers: map[*trace.Descriptor][]carrier{}}
	for _, t := range in.Timeline.Threads {
		w.byTID[t.TID] = append(w.byTID[t.TID], t)
		for _, tid := range t.OldTIDs {
			w.byTID[tid] = append(w.byTID[tid], t)
		}
	}
	type key struct {
		pid   int
		start int64
	}
	answers := map[key]phase.Request{}
	for _, q := range in.Phases.Requests {
		answers[key{q.PID, q.Start}] = q
	}
	for _, c := range in.Timeline.Calls {
		if c.Request == nil {
			continue
		}
		q := answers[key{c.PID, c.Begin}]
		x := carrier{Call: c, answered: q.End, name: c.Request.Method + " " + q.Path}
		w.requests = append(w.requests, x)
		if c.File != nil {
			w.carriers[c.File] = append(w.carriers[c.File], x)
		}
	}
	return w
}

// maxJumps is how often a path may change its actor at one instant. Real wakers
// run when they wake; only events that contradict each other lead in circles.
const maxJumps = 64

// path walks back from the end of the window and returns its segments by time.
func (w *walk) path() []segment {
	var back []segment
	start, at := w.Phases.Start, w.Phases.End
	emit := func(s segment) {
		s.from = max(s.from, start)
		if s.from < s.to {
			back = append(back, s)
		}
	}
	a := w.last()
	jumps := 0
	for at > start {
		if a == nil {
			emit(segment{from: start, to: at, state: trace.StateWaiting, lost: true, wait: WaitUnknown})
			break
		}
		s := w.before(*a, at)
		if s.cause == nil || jumps > maxJumps {
			s.cause = nil
			emit(s)
			if s.lost {
				break
			}
			at, jumps = s.from, 0
			continue
		}
		jumps++
		if s.causeAt < at {
			w.emitWait(s, emit)
			jumps = 0
		}
		a, at = s.cause, min(at, s.causeAt)
	}
	slices.Reverse(back)
	return back
}

// emitWait emits what lies between a wait's cause and its end.
func (w *walk) emitWait(s segment, emit func(segment)) {
	if s.through == nil {
		wait := s
		wait.from = s.causeAt
		emit(wait)
		return
	}
	at := s.to
	for at > s.causeAt {
		part := w.onThread(s.through, at, s.causeAt, nil)
		part.cause = nil
		emit(part)
		at = part.from
	}
}

// last finds who ended the window.
func (w *walk) last() *actor {
	end := w.Phases.End
	for _, c := range w.Timeline.Calls {
		if c.Begin == end && (c.Request != nil || !w.Phases.Reached || w.Phases.FirstNext != end) {
			return w.actorOn(c.Thread, end)
		}
	}
	for _, e := range w.Timeline.Exits {
		if e.Time == end {
			if t := w.threadAt(e.PID, e.TID, end); t != nil {
				return w.actorOn(t, end)
			}
		}
	}
	for _, m := range w.Timeline.Marks {
		if m.Time == end {
			if t := w.threadAt(m.PID, m.TID, end); t != nil {
				return w.actorOn(t, end)
			}
		}
	}
	// Only the environment saw the end, or it was not reached: who sent
	// something last, or else the thread that began.
	var sender *trace.Thread
	for _, c := range w.Timeline.Calls {
		if c.Begin < end && w.Timeline.Writes(c) && c.File != nil && c.File.Kind == trace.DescriptorSocket && c.Thread.End >= end {
			sender = c.Thread
		}
	}
	if sender == nil {
		for _, e := range w.Timeline.Execs {
			if sender = w.threadAt(e.PID, e.TID, e.Time); sender != nil {
				break
			}
		}
	}
	if sender == nil && len(w.Timeline.Threads) > 0 {
		sender = w.Timeline.Threads[0]
	}
	if sender == nil {
		return nil
	}
	return w.actorOn(sender, end)
}

// actorOn returns whom a thread served just before that time.
func (w *walk) actorOn(t *trace.Thread, at int64) *actor {
	if w.Goroutines {
		if g := t.GoroutineAt(at - 1); g != nil {
			return &actor{life: g}
		}
	}
	return &actor{thread: t}
}

// threadAt returns the subject's thread that lived then, nil if it is none.
func (w *walk) threadAt(pid, tid int, at int64) *trace.Thread {
	var found *trace.Thread
	for _, t := range w.byTID[tid] {
		if t.PID == pid && t.Start <= at && at <= t.End {
			found = t
		}
	}
	return found
}

// before returns the segment of an actor that ends at that time.
func (w *walk) before(a actor, at int64) segment {
	if a.life != nil {
		return w.onGoroutine(a.life, at)
	}
	return w.onThread(a.thread, at, a.thread.Start, nil)
}

// onThread is a thread's segment that ends at that time, no earlier than floor.
func (w *walk) onThread(t *trace.Thread, at, floor int64, g *trace.GoroutineLife) segment {
	s := segment{from: floor, to: at, thread: t, life: g}
	if at <= t.Start {
		if t.Creator == nil {
			s.from, s.state, s.lost, s.wait = w.Phases.Start, trace.StateWaiting, true, WaitUnknown
			return s
		}
		s.cause, s.causeAt = w.actorOn(t.Creator, t.Start), at
		return s
	}
	n := sort.Search(len(t.Intervals), func(n int) bool { return t.Intervals[n].End >= at })
	if n == len(t.Intervals) { // it was gone already
		s.from, s.state, s.wait = max(t.End, floor), trace.StateWaiting, WaitUnknown
		return s
	}
	i := &t.Intervals[n]
	s.from, s.state, s.interval = max(i.Start, floor), i.State, i
	switch i.State {
	case trace.StateRunnable:
		s.behind = w.occupant(i.Behind)
	case trace.StateWaiting:
		if at < i.End {
			s.wait = WaitUnknown // whoever led here did not run then
		} else {
			w.ended(&s, i)
		}
	}
	return s
}

// NotSubject ends the name of who held a CPU and is none of the subject's threads.
const NotSubject = " (not the subject)"

// occupant names who held a CPU.
func (w *walk) occupant(o *trace.Occupant) string {
	switch {
	case o == nil:
		return "unknown"
	case o.TID == 0:
		return "idle CPU"
	}
	for _, t := range w.byTID[o.TID] {
		if t.PID == o.PID {
			return t.Label()
		}
	}
	return o.Comm + NotSubject
}

// onGoroutine is a goroutine's segment that ends at that time.
func (w *walk) onGoroutine(g *trace.GoroutineLife, at int64) segment {
	n := sort.Search(len(g.Intervals), func(n int) bool { return g.Intervals[n].End >= at })
	if n == len(g.Intervals) {
		s := segment{from: g.End, to: at, life: g, state: trace.StateWaiting, wait: WaitUnknown}
		if len(g.Intervals) > 0 { // its last thread goes on with something else
			s.from = max(g.Start, min(g.End, at-1))
		}
		return s
	}
	i := &g.Intervals[n]
	s := segment{from: i.Start, to: at, life: g, stack: i.Stack}
	if at <= i.Start { // before its birth
		w.born(&s, g, i)
		return s
	}
	switch i.State {
	case trace.GoWaits:
		if t := onSystemStack(g, n); t != nil {
			return w.onThread(t, at, i.Start, g)
		}
		s.state = trace.StateWaiting
		if at < i.End || i.Ready == nil {
			s.wait = WaitUnknown
		} else {
			w.readied(&s, g, n)
		}
	case trace.GoCanRun:
		w.scheduled(&s, g, n)
	default:
		if i.Thread.Start < at && at <= i.Thread.End {
			return w.onThread(i.Thread, at, i.Start, g)
		}
		s.thread, s.state = i.Thread, trace.StateUser
	}
	return s
}

// onSystemStack returns the thread that goes on for a goroutine that only counts
// as waiting: while it helps the garbage collector or starts it, its own stack
// has to stand still. Nobody makes it ready then.
func onSystemStack(g *trace.GoroutineLife, n int) *trace.Thread {
	if n == 0 || n+1 == len(g.Intervals) || g.Intervals[n].Ready != nil {
		return nil
	}
	t := g.Intervals[n-1].Thread
	if t == nil || g.Intervals[n+1].Thread != t || t.Start > g.Intervals[n].Start || t.End < g.Intervals[n].End {
		return nil
	}
	return t
}

// born goes on at the go statement, or for the first goroutine at the thread
// that made it.
func (w *walk) born(s *segment, g *trace.GoroutineLife, first *trace.GoInterval) {
	s.from = s.to
	r := first.Ready
	switch {
	case r != nil && r.By != nil && r.By != g:
		s.cause, s.causeAt = &actor{life: r.By}, s.to
	case r != nil && r.Thread != nil:
		s.cause, s.causeAt = &actor{thread: r.Thread}, s.to
	default:
		if len(g.Process.Threads) > 0 {
			s.cause, s.causeAt = &actor{thread: g.Process.Threads[0]}, s.to
			return
		}
		s.from, s.state, s.lost, s.wait = w.Phases.Start, trace.StateWaiting, true, WaitUnknown
	}
}

// scheduled is the last part of a goroutine's wait for the Go scheduler: it is
// behind whatever kept the thread that ran it next.
func (w *walk) scheduled(s *segment, g *trace.GoroutineLife, n int) {
	s.state, s.behind = trace.StateRunnable, "Go's scheduler"
	if n+1 >= len(g.Intervals) || g.Intervals[n+1].Thread == nil {
		return
	}
	t := g.Intervals[n+1].Thread
	part := w.onThread(t, s.to, s.from, nil)
	if part.interval == nil {
		return
	}
	s.from = max(s.from, part.from)
	switch other := t.GoroutineAt(s.to - 1); {
	case part.state == trace.StateRunnable:
		s.behind = part.behind
	case part.state == trace.StateWaiting:
		s.behind = "a thread that slept"
	case other != nil && other != g:
		s.behind = w.goroutineName(other)
	}
}

func (w *walk) goroutineName(g *trace.GoroutineLife) string {
	if w.Names != nil && g.StartPC != 0 {
		l := w.Names.Resolve(g.PID, g.Start, g.StartPC, false, false)
		if f := l.Function(); f != "" {
			return "goroutine " + f
		}
	}
	return "goroutine"
}
