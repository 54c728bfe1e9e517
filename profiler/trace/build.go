package trace

import (
	"cmp"
	"slices"
)

// BuildOptions says what the events themselves do not.
type BuildOptions struct {
	Arch string // GOARCH of the recording, "amd64" or "arm64"; without it calls have no names or files
	Stop int64  // when tracing stopped: what is open then ends there; 0: the last time of any event
}

// Build makes the timelines of one cold start from its events, in whatever
// order they come. It leaves the events alone and keeps pointers to them.
//
// It never fails for what a recording holds: missing edges are bridged with the
// tightest bounds that the thread's other events give and counted in Repairs;
// nothing is made up beyond that. The error is that of Check.
func Build(events []Event, opts BuildOptions) (*Timeline, error) {
	b := &builder{
		calls:     newCallTable(opts.Arch),
		tl:        &Timeline{Arch: opts.Arch},
		subject:   map[int]bool{},
		byTID:     map[int]*threadBuilder{},
		processes: map[int]*Process{},
		owners:    map[Event]*threadBuilder{},
		cpus:      map[int][]*Switch{},
	}
	moments := b.order(events, opts.Stop)
	for _, m := range moments {
		b.take(m)
	}
	b.finish()
	if err := b.tl.Check(); err != nil {
		return nil, err
	}
	return b.tl, nil
}

// moment is one instant of one event: its begin, or the end of an interval.
type moment struct {
	at    int64
	event Event
	end   bool
}

type builder struct {
	calls *callTable
	tl    *Timeline

	subject   map[int]bool           // PIDs of the subject
	byTID     map[int]*threadBuilder // the latest of that TID
	processes map[int]*Process       // the latest of that PID
	threads   []*threadBuilder
	owners    map[Event]*threadBuilder // of calls and faults that began
	cpus      map[int][]*Switch        // by time

	statuses []goEvent // by time

	steps []step // of the tables of files and mappings, by time
}

// threadBuilder gathers the events of one thread, in the order of time.
type threadBuilder struct {
	*Thread
	edges   []edge
	calls   []*Syscall
	entered map[*Syscall]bool // calls whose entry was seen
	faults  []*Fault
	inUser  []int64 // times at which it was seen in user mode
	exit    int64   // time of its Exit event, 0: not seen
	gone    int64   // from here on it can only be exiting; 0: unknown
	last    int64   // of its last event
	own     bool    // an event was its own doing: switches and wake-ups name others too
}

// edge is a change, or a proof, of a thread's scheduling.
type edge struct {
	at     int64
	kind   edgeKind
	sw     *Switch
	waking *Waking
}

type edgeKind uint8

const (
	edgeRuns edgeKind = iota // it did something, so it was on a CPU
	edgeBorn                 // forked: runnable from here
	edgeIn
	edgeOut
	edgeWake
	edgeExit
)

// order lists all moments up to the stop by time, and learns which processes
// are the subject's: only those have events other than Switch and Waking.
func (b *builder) order(events []Event, stop int64) []moment {
	moments := make([]moment, 0, len(events)*3/2)
	add := func(at int64, e Event, end bool) {
		if at > 0 && (stop == 0 || at <= stop) {
			moments = append(moments, moment{at, e, end})
		}
	}
	for _, e := range events {
		if e == nil {
			continue
		}
		h := e.Head()
		add(h.Time, e, false)
		switch e := e.(type) {
		case *Switch:
			continue
		case *Waking:
			b.subject[e.TargetPID] = true
			continue
		case *Fork:
			b.subject[e.ChildPID] = true
		case *Syscall:
			if e.End != 0 {
				add(max(e.End, h.Time), e, true)
			}
		case *Fault:
			if e.End != 0 {
				add(max(e.End, h.Time), e, true)
			}
		case *FunctionCall:
			if e.End != 0 {
				add(max(e.End, h.Time), e, true)
			}
		}
		b.subject[h.PID] = true
	}
	delete(b.subject, 0)
	slices.SortStableFunc(moments, func(x, y moment) int { return cmp.Compare(x.at, y.at) })
	b.tl.Stop = stop
	if len(moments) > 0 {
		b.tl.Start = moments[0].at
		if stop == 0 {
			b.tl.Stop = moments[len(moments)-1].at
		}
	}
	return moments
}

func (b *builder) take(m moment) {
	switch e := m.event.(type) {
	case *Switch:
		b.cpus[e.CPU] = append(b.cpus[e.CPU], e)
		if b.subject[e.PID] && e.TID > 0 {
			t := b.thread(e.PID, e.TID, m.at, false)
			t.rename(e.Comm)
			t.add(edge{at: m.at, kind: edgeOut, sw: e})
			if e.State == SwitchDead {
				t.die(m.at)
			}
		}
		if b.subject[e.NextPID] && e.NextTID > 0 {
			t := b.thread(e.NextPID, e.NextTID, m.at, false)
			t.rename(e.NextComm)
			t.add(edge{at: m.at, kind: edgeIn, sw: e})
		}
	case *Waking:
		if b.subject[e.PID] && e.TID > 0 {
			t := b.thread(e.PID, e.TID, m.at, false)
			t.rename(e.Comm)
			t.add(edge{at: m.at, kind: edgeRuns})
		}
		if e.TargetPID > 0 && e.TargetTID > 0 {
			if t := b.latest(e.TargetPID, e.TargetTID); t == nil || !t.Ended {
				t = b.thread(e.TargetPID, e.TargetTID, m.at, false)
				t.add(edge{at: m.at, kind: edgeWake, waking: e})
			}
		}
	case *Fork:
		b.fork(e)
	case *Exec:
		b.exec(e)
	case *Exit:
		if t := b.runs(&e.Header, m.at, false); t != nil {
			t.add(edge{at: m.at, kind: edgeExit})
			t.exit = m.at
			b.tl.Exits = append(b.tl.Exits, e)
			if e.GroupDead {
				b.bury(t, m.at)
			}
		}
	case *Syscall:
		b.syscall(e, m)
	case *Fault:
		if m.end {
			b.ends(e, m.at)
		} else if t := b.runs(&e.Header, m.at, false); t != nil {
			t.faults = append(t.faults, e)
			b.owners[e] = t
			if !e.Kernel {
				t.inUser = append(t.inUser, m.at)
			}
		}
	case *Sample:
		if t := b.runs(&e.Header, m.at, false); t != nil {
			if !e.Kernel {
				t.inUser = append(t.inUser, m.at)
			}
			b.tl.Samples = append(b.tl.Samples, &ThreadSample{e, t.Thread})
		}
	case *Mark:
		b.runs(&e.Header, m.at, false)
		b.tl.Marks = append(b.tl.Marks, e)
	case *FunctionCall:
		if t := b.runs(&e.Header, m.at, false); t != nil && !m.end {
			b.tl.Functions = append(b.tl.Functions, &ThreadFunction{e, t.Thread})
		}
	case *Goroutine:
		if t := b.runs(&e.Header, m.at, false); t != nil {
			b.statuses = append(b.statuses, goEvent{e, t})
		}
	case *Mapping:
		// It may be written by the tracer on the thread's behalf, so it proves
		// nothing about scheduling.
		if e.PID > 0 {
			b.steps = append(b.steps, step{at: m.at, process: b.process(e.PID, m.at), mapping: e})
		}
	}
}

func (b *builder) syscall(e *Syscall, m moment) {
	if !m.end {
		if t := b.runs(&e.Header, m.at, true); t != nil {
			t.calls = append(t.calls, e)
			t.entered[e] = true
			b.owners[e] = t
		}
		return
	}
	if e.Time <= 0 {
		// The entry is not known: a new thread returning from clone.
		if t := b.runs(&e.Header, m.at, false); t != nil {
			t.calls = append(t.calls, e)
		}
		return
	}
	b.ends(e, m.at)
}

// ends notes that a call or fault that began is over.
func (b *builder) ends(e Event, at int64) {
	if t := b.owners[e]; t != nil && !t.Ended {
		t.add(edge{at: at, kind: edgeRuns})
	}
}

func (b *builder) fork(e *Fork) {
	parent := b.runs(&e.Header, e.Time, false)
	if e.ChildPID <= 0 || e.ChildTID <= 0 {
		return
	}
	if e.ChildPID != e.PID {
		// A new process, even if an older one had the same ID.
		child := b.newProcess(e.ChildPID, e.Time)
		child.ParentPID = e.PID
		if e.PID > 0 {
			b.steps = append(b.steps, step{at: e.Time, process: b.process(e.PID, e.Time), child: child})
		}
	}
	if old := b.byTID[e.ChildTID]; old != nil && !old.Ended {
		b.supersede(old)
	}
	t := b.newThread(e.ChildPID, e.ChildTID, e.Time)
	t.own = true
	if parent != nil {
		t.Creator = parent.Thread
	}
	t.add(edge{at: e.Time, kind: edgeBorn})
}

// exec ends all other threads of the process and gives the caller the leader's
// TID. The kernel swaps the IDs a little before the event (exchange_tids in
// fs/exec.c), so what the leader's TID did after the old leader died is the
// caller's.
func (b *builder) exec(e *Exec) {
	if e.PID <= 0 || e.TID <= 0 {
		return
	}
	caller := b.latest(e.PID, e.TID)
	if e.OldTID > 0 && e.OldTID != e.TID {
		leader := caller
		caller = b.latest(e.PID, e.OldTID)
		if caller == nil || caller.Ended {
			caller = b.thread(e.PID, e.OldTID, e.Time, true)
		}
		if leader != nil && leader != caller {
			switch {
			case leader.StartUnknown && leader.Start > caller.Start && b.diedBefore(e.TID, leader):
				b.merge(caller, leader)
			case !leader.Ended:
				leader.gone = e.Time
			}
		}
		delete(b.byTID, e.OldTID)
		if leader != nil && leader != caller && !leader.Ended {
			b.byTID[e.OldTID] = leader // its last switch may be still to come
		}
		caller.OldTIDs = append(caller.OldTIDs, e.OldTID)
		caller.TID = e.TID
		b.byTID[e.TID] = caller
	} else if caller == nil || caller.Ended {
		caller = b.thread(e.PID, e.TID, e.Time, true)
	}
	caller.own = true
	caller.add(edge{at: e.Time, kind: edgeRuns})
	b.bury(caller, e.Time)
	b.tl.Execs = append(b.tl.Execs, e)
	caller.Process.Execs = append(caller.Process.Execs, e)
	b.steps = append(b.steps, step{at: e.Time, process: caller.Process, exec: e})
}

// diedBefore reports whether another thread had the TID and ended before t.
func (b *builder) diedBefore(tid int, t *threadBuilder) bool {
	for _, other := range b.threads {
		if other != t && other.TID == tid && other.PID == t.PID && other.Ended && other.End <= t.Start {
			return true
		}
	}
	return false
}

// merge moves what from did to into, of which it turned out to be a part.
func (b *builder) merge(into, from *threadBuilder) {
	into.edges = append(into.edges, from.edges...)
	slices.SortStableFunc(into.edges, func(x, y edge) int { return cmp.Compare(x.at, y.at) })
	into.calls = append(into.calls, from.calls...)
	for call := range from.entered {
		into.entered[call] = true
	}
	into.faults = append(into.faults, from.faults...)
	into.inUser = append(into.inUser, from.inUser...)
	into.last = max(into.last, from.last)
	into.own = true
	for event, owner := range b.owners {
		if owner == from {
			b.owners[event] = into
		}
	}
	for _, t := range b.threads {
		if t.Creator == from.Thread {
			t.Creator = into.Thread
		}
	}
	for _, s := range b.tl.Samples {
		if s.Thread == from.Thread {
			s.Thread = into.Thread
		}
	}
	for _, f := range b.tl.Functions {
		if f.Thread == from.Thread {
			f.Thread = into.Thread
		}
	}
	b.threads = slices.DeleteFunc(b.threads, func(t *threadBuilder) bool { return t == from })
}

// bury notes that all threads of t's process, other than t, are past their
// exit. The events of their exit may still follow, or be lost.
func (b *builder) bury(t *threadBuilder, at int64) {
	for _, other := range b.threads {
		if other != t && other.Process == t.Process && !other.Ended && other.gone == 0 {
			other.gone = at
		}
	}
}

// latest returns the last thread that had the TID in that process.
func (b *builder) latest(pid, tid int) *threadBuilder {
	if t := b.byTID[tid]; t != nil && t.PID == pid {
		return t
	}
	return nil
}

// runs returns the thread that an event proves to be on a CPU, nil if the
// header names none. entering: it enters the kernel by its own will, which a
// thread that is exiting no longer does.
func (b *builder) runs(h *Header, at int64, entering bool) *threadBuilder {
	if h.PID <= 0 || h.TID <= 0 {
		return nil
	}
	t := b.thread(h.PID, h.TID, at, entering)
	t.own = true
	t.add(edge{at: at, kind: edgeRuns})
	return t
}

// thread returns the living thread of that ID, which it makes, with an unknown
// start, where there is none. One that passed its exit is not meant if alive.
func (b *builder) thread(pid, tid int, at int64, alive bool) *threadBuilder {
	t := b.byTID[tid]
	switch {
	case t != nil && t.PID != pid:
		if !t.Ended {
			b.supersede(t)
		}
	case t != nil && !t.Ended && (t.exit == 0 || !alive):
		return t
	case t != nil && !t.Ended:
		b.supersede(t)
	}
	t = b.newThread(pid, tid, at)
	t.StartUnknown = true
	return t
}

// supersede ends a thread whose last switch was not seen, because its TID is
// another's now.
func (b *builder) supersede(t *threadBuilder) {
	if t.exit == 0 {
		b.tl.Repairs.Threads++
	}
	t.die(max(t.last, t.gone))
}

func (b *builder) newThread(pid, tid int, at int64) *threadBuilder {
	t := &threadBuilder{
		Thread:  &Thread{PID: pid, TID: tid, Process: b.process(pid, at), Start: at},
		entered: map[*Syscall]bool{},
		last:    at,
	}
	b.byTID[tid] = t
	b.threads = append(b.threads, t)
	return t
}

func (b *builder) process(pid int, at int64) *Process {
	if p := b.processes[pid]; p != nil {
		return p
	}
	return b.newProcess(pid, at)
}

func (b *builder) newProcess(pid int, at int64) *Process {
	p := &Process{PID: pid, Start: at}
	b.processes[pid] = p
	b.tl.Processes = append(b.tl.Processes, p)
	return p
}

func (t *threadBuilder) add(e edge) {
	t.edges = append(t.edges, e)
	t.last = max(t.last, e.at)
}

func (t *threadBuilder) die(at int64) {
	t.Ended, t.End = true, at
}

func (t *threadBuilder) rename(comm string) {
	if comm != "" {
		t.Name = comm
	}
}

// finish turns what was gathered into intervals.
func (b *builder) finish() {
	tl := b.tl
	slices.SortStableFunc(b.threads, func(x, y *threadBuilder) int { return cmp.Compare(x.Start, y.Start) })
	for _, t := range b.threads {
		if !t.own {
			// It was never traced: a thread that the process had before the
			// subject was released in it, seen only beside the subject.
			continue
		}
		switch {
		case t.Ended:
		case t.exit != 0 || t.gone != 0:
			b.supersede(t)
		default:
			t.End = tl.Stop
		}
		t.Process.Threads = append(t.Process.Threads, t.Thread)
		tl.Threads = append(tl.Threads, t.Thread)
		b.resolveContexts(t)
		t.Intervals = tile(b.schedule(t), t.contexts(), t.exit)
		tl.Calls = append(tl.Calls, t.Calls...)
		tl.Faults = append(tl.Faults, t.Faults...)
	}
	slices.SortStableFunc(tl.Calls, func(x, y *Call) int { return cmp.Compare(x.Begin, y.Begin) })
	slices.SortStableFunc(tl.Faults, func(x, y *PageFault) int { return cmp.Compare(x.Begin, y.Begin) })
	for _, p := range tl.Processes {
		p.finish(tl.Stop)
	}
	b.walkTables()
	b.goroutines(b.statuses)
}
