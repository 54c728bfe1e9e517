package trace

import (
	"cmp"
	"slices"
	"sort"
)

// segment is a part of a thread's life seen from the scheduler alone.
type segment struct {
	start, end int64
	kind       segmentKind
	left       *Switch
	waker      *Waking
	behind     *Occupant
}

type segmentKind uint8

const (
	segmentRunning segmentKind = iota
	segmentRunnable
	segmentWaiting
)

// scheduler walks the edges of one thread.
type scheduler struct {
	b        *builder
	t        *threadBuilder
	segments []segment
	open     segment // its end is not known yet
	// early is a wake-up that came while the thread still ran. Usually it
	// cancels the sleep. But if the thread leaves the CPU next and nothing
	// else wakes it, then it did not come in time for that and was this one.
	early *Waking
}

// schedule tiles the thread's life with what the scheduler did.
func (b *builder) schedule(t *threadBuilder) []segment {
	s := &scheduler{b: b, t: t, open: segment{start: t.Start, kind: segmentRunning}}
	if t.StartUnknown {
		b.tl.Repairs.Threads += unknownStart(t.Thread)
	}
	for n, e := range t.edges {
		if e.at > t.End {
			break
		}
		if n == 0 {
			switch e.kind {
			case edgeBorn:
				s.open.kind = segmentRunnable
				continue
			case edgeWake:
				s.open.kind, s.open.waker = segmentRunnable, e.waking
				continue
			case edgeIn:
				continue
			}
		}
		s.edge(e)
	}
	s.close(t.End, nil)
	return s.segments
}

// unknownStart is 1 if the thread began in the midst of the recording although
// its fork should have been seen, 0 for those that existed before it.
func unknownStart(t *Thread) int {
	for _, exec := range t.Process.Execs {
		if exec.Time < t.Start {
			return 1
		}
	}
	return 0
}

func (s *scheduler) edge(e edge) {
	switch e.kind {
	case edgeRuns, edgeExit:
		if s.open.kind != segmentRunning {
			s.b.tl.Repairs.Switches++
			s.close(e.at, nil)
			s.open.kind = segmentRunning
		}
		s.early = nil
	case edgeIn:
		switch {
		case s.open.kind == segmentRunning && s.early != nil && s.early.Time > s.open.start:
			// It must have left the CPU, unseen, before it was woken.
			s.b.tl.Repairs.Switches++
			s.close(s.early.Time, nil)
			s.open.kind, s.open.waker = segmentRunnable, s.early
		case s.open.kind == segmentRunning:
			if len(s.segments) > 0 {
				s.b.tl.Repairs.Switches++
			}
		case s.open.kind == segmentWaiting && s.early != nil:
			s.open.kind, s.open.waker = segmentRunnable, s.early
		}
		s.close(e.at, e.sw)
		s.open.kind = segmentRunning
		s.early = nil
	case edgeOut:
		if s.open.kind != segmentRunning {
			s.b.tl.Repairs.Switches++
		}
		s.close(e.at, nil)
		s.open.kind, s.open.left = segmentWaiting, e.sw
		if e.sw.State == SwitchPreempted {
			s.open.kind = segmentRunnable
		}
	case edgeWake:
		switch s.open.kind {
		case segmentRunning:
			s.early = e.waking
		case segmentWaiting:
			left := s.open.left
			s.open.waker = e.waking
			s.close(e.at, nil)
			s.open.kind, s.open.left, s.open.waker = segmentRunnable, left, e.waking
			s.early = nil
		}
	}
}

// close ends the open segment, which in says was switched in, and opens
// another, still without a kind, at the same time.
func (s *scheduler) close(at int64, in *Switch) {
	if s.open.start < at {
		s.open.end = at
		if s.open.kind == segmentRunnable {
			s.segments = append(s.segments, s.b.behind(s.t, s.open, in)...)
		} else {
			s.segments = append(s.segments, s.open)
		}
	}
	s.open = segment{start: at}
}

// behind splits a runnable segment by who held the CPU meanwhile. The CPU is
// the one that the thread was preempted on, where it stays queued, or else the
// one that it was woken to, which is known from its being switched in there.
//
// The thread that leaves at a switch held the CPU since the switch before: the
// recording holds all switches of a CPU only as long as a thread of the
// subject is runnable, so that a switch's own next thread may be stale.
func (b *builder) behind(t *threadBuilder, s segment, in *Switch) []segment {
	var cpu int
	switch {
	case s.left != nil && s.left.State == SwitchPreempted:
		cpu = s.left.CPU
	case in != nil:
		cpu = in.CPU
	default:
		return []segment{s}
	}
	switches := b.cpus[cpu]
	from := sort.Search(len(switches), func(i int) bool { return switches[i].Time > s.start })
	var parts []segment
	add := func(until int64, o *Occupant) {
		if o != nil && (o.TID == t.TID || slices.Contains(t.OldTIDs, o.TID)) {
			o = nil // contradicts itself
		}
		part := s
		part.end, part.behind = until, o
		if n := len(parts); n > 0 && sameOccupant(parts[n-1].behind, o) {
			parts[n-1].end = until
		} else if until > s.start {
			parts = append(parts, part)
		}
		s.start = max(s.start, until)
	}
	i := from
	for ; i < len(switches) && switches[i].Time <= s.end; i++ {
		w := switches[i]
		add(w.Time, &Occupant{PID: w.PID, TID: w.TID, Comm: w.Comm, CPU: cpu})
	}
	if s.start < s.end {
		var o *Occupant
		if i > 0 {
			w := switches[i-1]
			o = &Occupant{PID: w.NextPID, TID: w.NextTID, Comm: w.NextComm, CPU: cpu}
		}
		add(s.end, o)
	}
	return parts
}

func sameOccupant(a, b *Occupant) bool {
	if a == nil || b == nil {
		return a == b
	}
	return a.TID == b.TID && a.PID == b.PID
}

// context is what a thread is inside of: from here up to the next context.
type context struct {
	at    int64
	call  *Call
	fault *PageFault
}

// resolveContexts bounds the thread's calls and faults.
func (b *builder) resolveContexts(t *threadBuilder) {
	slices.Sort(t.inUser)
	t.resolveCalls(b)
	t.resolveFaults()
}

func (t *threadBuilder) resolveCalls(b *builder) {
	order := func(s *Syscall) int64 {
		if t.entered[s] {
			return s.Time
		}
		return s.End
	}
	slices.SortStableFunc(t.calls, func(x, y *Syscall) int { return cmp.Compare(order(x), order(y)) })
	for _, s := range t.calls {
		var last *Call
		if len(t.Calls) > 0 {
			last = t.Calls[len(t.Calls)-1]
		}
		call := &Call{Syscall: s, Begin: s.Time, Until: t.End, Thread: t.Thread}
		if s.End != 0 {
			call.Until = min(max(s.End, s.Time), t.End)
		}
		if !t.entered[s] {
			if last != nil && last.End == 0 && last.Number == s.Number {
				// The two halves of one call, parted by a change of the TID.
				whole := *last.Syscall
				whole.End, whole.Return = s.End, s.Return
				last.Syscall, last.Until = &whole, call.Until
				continue
			}
			call.Begin = t.Start
			if last != nil {
				// It came back once already: the entry of this one was lost,
				// and so its length; but not that it came to an end.
				b.tl.Repairs.Calls++
				call.Begin = call.Until
			}
		}
		if call.Begin < t.Start || call.Begin > t.End {
			continue
		}
		if last != nil {
			if last.Until > call.Begin {
				b.tl.Repairs.Calls++
				last.Until = call.Begin
			}
			last.closeOpen(t)
		}
		t.Calls = append(t.Calls, call)
	}
	if len(t.Calls) > 0 {
		t.Calls[len(t.Calls)-1].closeOpen(t)
	}
}

// closeOpen ends a call whose exit is missing when the thread is next seen in
// user mode.
func (c *Call) closeOpen(t *threadBuilder) {
	if c.End != 0 {
		return
	}
	n, _ := slices.BinarySearch(t.inUser, c.Begin+1)
	if n < len(t.inUser) && t.inUser[n] < c.Until {
		c.Until = t.inUser[n]
	}
}

func (t *threadBuilder) resolveFaults() {
	slices.SortStableFunc(t.faults, func(x, y *Fault) int { return cmp.Compare(x.Time, y.Time) })
	var inside []*PageFault
	for n, f := range t.faults {
		if f.Time < t.Start || f.Time > t.End {
			continue
		}
		fault := &PageFault{Fault: f, Begin: f.Time, Until: min(max(f.End, f.Time), t.End), Thread: t.Thread}
		if f.End == 0 {
			fault.Until = t.End
			if n+1 < len(t.faults) {
				fault.Until = min(fault.Until, max(t.faults[n+1].Time, f.Time))
			}
			if u, _ := slices.BinarySearch(t.inUser, f.Time+1); u < len(t.inUser) {
				fault.Until = min(fault.Until, t.inUser[u])
			}
		}
		// A fault lies within the call and the faults that it interrupted,
		// and a call cannot begin inside it.
		c := sort.Search(len(t.Calls), func(i int) bool { return t.Calls[i].Until > fault.Begin })
		if c < len(t.Calls) {
			if call := t.Calls[c]; call.Begin <= fault.Begin {
				fault.Until = min(fault.Until, call.Until)
			} else {
				fault.Until = min(fault.Until, call.Begin)
			}
		}
		for len(inside) > 0 && inside[len(inside)-1].Until <= fault.Begin {
			inside = inside[:len(inside)-1]
		}
		if len(inside) > 0 {
			fault.Until = min(fault.Until, inside[len(inside)-1].Until)
		}
		inside = append(inside, fault)
		t.Faults = append(t.Faults, fault)
	}
}

// contexts lists the changes of the thread's context, the first at its start.
func (t *threadBuilder) contexts() []context {
	var all []context
	set := func(at int64, call *Call, fault *PageFault) {
		if n := len(all); n > 0 && all[n-1].at == at {
			all[n-1] = context{at, call, fault}
			return
		}
		all = append(all, context{at, call, fault})
	}
	set(t.Start, nil, nil)
	var inside []*PageFault
	var call *Call
	innermost := func() *PageFault {
		if len(inside) == 0 {
			return nil
		}
		return inside[len(inside)-1]
	}
	// leave closes what ends up to that time, innermost first.
	leave := func(until int64) {
		for {
			f := innermost()
			switch {
			case f != nil && f.Until <= until:
				inside = inside[:len(inside)-1]
				set(f.Until, call, innermost())
			case f == nil && call != nil && call.Until <= until:
				at := call.Until
				call = nil
				set(at, nil, nil)
			default:
				return
			}
		}
	}
	calls, faults := t.Calls, t.Faults
	for len(calls) > 0 || len(faults) > 0 {
		if len(faults) == 0 || len(calls) > 0 && calls[0].Begin <= faults[0].Begin {
			leave(calls[0].Begin)
			call = calls[0]
			set(call.Begin, call, innermost())
			calls = calls[1:]
			continue
		}
		leave(faults[0].Begin)
		inside = append(inside, faults[0])
		set(faults[0].Begin, call, faults[0])
		faults = faults[1:]
	}
	leave(t.End)
	return all
}

// tile intersects scheduling with context. After exit the thread is in the
// kernel, whatever it was in before.
func tile(segments []segment, contexts []context, exit int64) []Interval {
	intervals := make([]Interval, 0, len(segments)+len(contexts))
	c := 0
	for _, s := range segments {
		for at := s.start; at < s.end; {
			for c+1 < len(contexts) && contexts[c+1].at <= at {
				c++
			}
			until := s.end
			if c+1 < len(contexts) {
				until = min(until, contexts[c+1].at)
			}
			if exit > at {
				until = min(until, exit)
			}
			i := Interval{Start: at, End: until, Syscall: contexts[c].call, Fault: contexts[c].fault, Left: s.left, Waker: s.waker, Behind: s.behind}
			switch {
			case s.kind == segmentRunnable:
				i.State = StateRunnable
			case s.kind == segmentWaiting:
				i.State = StateWaiting
			case i.Fault != nil:
				i.State = StateFault
			case i.Syscall != nil || exit != 0 && at >= exit:
				i.State = StateKernel
			}
			intervals = append(intervals, i)
			at = until
		}
	}
	return intervals
}
