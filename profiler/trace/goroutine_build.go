package trace

import (
	"cmp"
	"slices"
	"strings"
)

// goBuilder makes the lives of goroutines from the changes of their status, and
// intersects what they ran with what their threads did.
type goBuilder struct {
	b       *builder
	current map[*threadBuilder]*goLife // what a thread runs
	byG     map[gKey]*goLife           // the latest that lived at that address
	lives   []*goLife

	own, parking map[int]bool // numbers of runtimeCalls and parkingCalls
}

type gKey struct {
	pid int
	g   uint64
}

// goLife is a goroutine's life in the making.
type goLife struct {
	*GoroutineLife
	spans []goSpan
	open  goSpan // its end is not known yet
	dead  bool
}

// goSpan is a part of a life in one of Go's own statuses.
type goSpan struct {
	start, end int64
	status     GoStatus
	thread     *threadBuilder // running and in a system call
	reason     string
	stack      Stack
	ready      *Ready
}

// goEvent is an event with the thread on which it happened.
type goEvent struct {
	*Goroutine
	thread *threadBuilder
}

// goroutines makes all lives. Events come by time.
func (b *builder) goroutines(events []goEvent) {
	g := &goBuilder{b: b, current: map[*threadBuilder]*goLife{}, byG: map[gKey]*goLife{}, own: b.calls.numbers(runtimeCalls), parking: b.calls.numbers(parkingCalls)}
	for _, e := range events {
		b.tl.GoNotes = append(b.tl.GoNotes, GoNote{Time: e.Time, Thread: e.thread.Thread, Seen: e.Seen})
		if e.Seen {
			g.seen(e)
		} else {
			g.change(e)
		}
	}
	for _, l := range g.lives {
		if !l.dead {
			g.end(l, g.latest(l, b.tl.Stop))
			l.Ended = l.End < b.tl.Stop
		}
		g.intersect(l)
		if l.Start < l.End {
			b.tl.Goroutines = append(b.tl.Goroutines, l.GoroutineLife)
		}
	}
	for _, t := range b.threads {
		slices.SortStableFunc(t.runs, func(x, y goRun) int { return cmp.Compare(x.start, y.start) })
	}
}

// alive reports whether a status is one of a goroutine that lives.
func (s GoStatus) alive() bool {
	switch s {
	case GoRunnable, GoRunning, GoSyscall, GoWaiting, GoPreempted:
		return true
	}
	return false
}

func (g *goBuilder) change(e goEvent) {
	key := gKey{e.PID, e.G}
	l := g.byG[key]
	switch {
	case !e.To.alive():
		if l != nil && !l.dead {
			g.end(l, e.Time)
		}
		return
	case l == nil || l.dead || !e.From.alive():
		if l != nil && !l.dead { // its end was not seen
			g.end(l, g.latest(l, e.Time))
		}
		l = g.born(e)
	}
	l.ID = cmp.Or(l.ID, e.ID)
	if l.open.status == GoRunning && e.From != GoRunning && e.From != GoSyscall {
		g.leaves(l, e.Time)
	}
	was := l.open
	g.close(l, e.Time)
	next := goSpan{start: e.Time, status: e.To}
	switch e.To {
	case GoRunning, GoSyscall:
		// Go 1.26 tells no probe of entering and leaving system calls, so in all
		// versions they are taken from the kernel's view of the thread.
		next.status, next.thread = GoRunning, e.thread
		g.takes(e.thread, l, e.Time)
	case GoWaiting, GoPreempted:
		next.reason, next.stack = e.Reason, e.Stack
	case GoRunnable:
		next.stack = was.stack
		next.ready = g.ready(l, e, was)
		if was.status == GoWaiting {
			g.endsWait(l, next.ready)
		}
	}
	if e.To != GoRunning && e.To != GoSyscall && was.thread != nil && g.current[was.thread] == l {
		delete(g.current, was.thread)
	}
	l.open = next
}

// seen takes in that a thread runs a goroutine, or none. Since when is known
// only up to the event before it on that thread.
func (g *goBuilder) seen(e goEvent) {
	if was := g.current[e.thread]; was != nil {
		g.pause(was, e.thread, e.thread.lastBefore(e.Time))
		delete(g.current, e.thread)
	}
	if e.ID == 0 {
		return
	}
	key := gKey{e.PID, e.G}
	l := g.byG[key]
	if l == nil || l.dead || l.ID != e.ID {
		if l != nil && !l.dead {
			g.end(l, max(l.open.start, l.lastSeen()))
		}
		l = g.born(e)
		l.ID = e.ID
	} else if l.open.thread != nil && l.open.thread != e.thread {
		g.pause(l, l.open.thread, l.open.thread.lastBefore(e.Time))
		delete(g.current, l.open.thread)
	}
	g.close(l, e.Time)
	l.open = goSpan{start: e.Time, status: GoRunning, thread: e.thread}
	g.takes(e.thread, l, e.Time)
}

// NotSeen is the reason of a wait of which cheap mode knows only that the
// goroutine was not seen to run.
const NotSeen = "not seen"

// pause ends what a thread ran, as far as that was seen.
func (g *goBuilder) pause(l *goLife, t *threadBuilder, at int64) {
	if l.open.thread != t {
		return
	}
	at = max(at, l.open.start)
	g.close(l, at)
	l.open = goSpan{start: at, status: GoWaiting, reason: NotSeen}
}

func (l *goLife) lastSeen() int64 {
	if n := len(l.spans); n > 0 {
		return l.spans[n-1].end
	}
	return l.Start
}

// lastBefore is the time of the thread's last event before that time.
func (t *threadBuilder) lastBefore(at int64) int64 {
	n, _ := slices.BinarySearchFunc(t.edges, at, func(e edge, at int64) int { return cmp.Compare(e.at, at) })
	if n == 0 {
		return t.Start
	}
	return t.edges[n-1].at
}

func (g *goBuilder) born(e goEvent) *goLife {
	l := &goLife{GoroutineLife: &GoroutineLife{
		ID: e.ID, Parent: e.Parent, PID: e.PID, Process: e.thread.Process,
		StartPC: e.StartPC, CreatedPC: e.CreatedPC, Start: e.Time, StartUnknown: e.From.alive(),
	}}
	l.open = goSpan{start: e.Time, status: GoDead}
	g.byG[gKey{e.PID, e.G}] = l
	g.lives = append(g.lives, l)
	return l
}

func (g *goBuilder) end(l *goLife, at int64) {
	g.close(l, at)
	if t := l.open.thread; t != nil && g.current[t] == l {
		delete(g.current, t)
	}
	l.dead, l.Ended, l.End = true, true, at
}

// latest is until when, up to that time, a life can have lasted whose end no
// probe saw: its thread, its process or its program end what they run without a
// word.
func (g *goBuilder) latest(l *goLife, at int64) int64 {
	at = min(at, l.Process.End)
	if t := l.open.thread; t != nil && t.Ended {
		at = min(at, t.End)
	}
	for _, exec := range l.Process.Execs {
		if exec.Time > l.Start {
			at = min(at, exec.Time)
		}
	}
	return max(at, l.open.start)
}

// takes notes that a thread runs a goroutine now. What it ran before left it in
// a way that no probe sees (preempted for the garbage collector, coroswitch).
func (g *goBuilder) takes(t *threadBuilder, l *goLife, at int64) {
	if was := g.current[t]; was != nil && was != l && was.open.thread == t {
		g.close(was, at)
		was.open = goSpan{start: at, status: GoPreempted, reason: "preempted"}
	}
	g.current[t] = l
}

// leaves corrects a goroutine that was preempted unseen while nothing else came
// to run on its thread: it left at the latest when the thread began to wait.
func (g *goBuilder) leaves(l *goLife, until int64) {
	t := l.open.thread
	if t == nil {
		return
	}
	at := until
	for n := len(t.calls) - 1; n >= 0; n-- {
		c := t.calls[n]
		if c.Time <= l.open.start {
			break
		}
		if c.Time < until && (c.End == 0 || c.End >= until) && g.parking[c.Number] {
			at = c.Time
		}
	}
	if at == until {
		return
	}
	g.close(l, at)
	if g.current[t] == l {
		delete(g.current, t)
	}
	l.open = goSpan{start: at, status: GoPreempted, reason: "preempted"}
}

func (g *goBuilder) close(l *goLife, at int64) {
	if at > l.open.start && l.open.status.alive() {
		l.open.end = at
		l.spans = append(l.spans, l.open)
	}
}

// endsWait tells the wait that was just closed what ended it.
func (g *goBuilder) endsWait(l *goLife, r *Ready) {
	if n := len(l.spans); n > 0 && l.spans[n-1].status == GoWaiting {
		l.spans[n-1].ready = r
	}
}

// ready tells what makes a goroutine runnable.
func (g *goBuilder) ready(l *goLife, e goEvent, was goSpan) *Ready {
	r := &Ready{Time: e.Time, Thread: e.thread.Thread}
	by := g.current[e.thread]
	switch {
	case e.From == GoRunning || e.From == GoSyscall:
		r.Source = ReadyByScheduler
	case was.status == GoPreempted || was.status == GoRunning:
		r.Source = ReadyByGC // only it suspends a goroutine to let it go on later
	case by != nil && by != l:
		r.By = by.GoroutineLife
	case was.reason == "IO wait":
		r.Source = ReadyByNetwork
	case strings.HasPrefix(was.reason, "GC ") || strings.HasPrefix(was.reason, "garbage collection"):
		r.Source = ReadyByGC
	case e.From.alive():
		// The scheduler itself, without a goroutine: a timer's function ran.
		r.Source = ReadyByTimer
	default:
		r.Source = ReadyByScheduler // the runtime's start
	}
	return r
}

// Calls that the runtime makes for itself. A goroutine that meets one is not in
// a system call in Go's sense: it goes on running, on the CPU or not.
var runtimeCalls = []string{
	"futex", "clone", "clone3", "mmap", "munmap", "madvise", "mincore", "sched_yield", "nanosleep", "sigaltstack",
	"rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "tgkill", "gettid", "getpid", "epoll_pwait", "epoll_ctl", "epoll_create1",
	"eventfd2", "timer_create", "timer_settime", "timer_delete", "setitimer", "prctl", "arch_prctl", "sched_getaffinity",
}

// Calls in which a thread of the runtime waits without a goroutine.
var parkingCalls = []string{"futex", "epoll_pwait"}

func (c *callTable) numbers(names []string) map[int]bool {
	set := map[int]bool{}
	for nr, name := range c.names {
		if slices.Contains(names, name) {
			set[nr] = true
		}
	}
	return set
}

// intersect tiles a life: what it ran is divided by what its thread did.
func (g *goBuilder) intersect(l *goLife) {
	for _, s := range l.spans {
		switch s.status {
		case GoRunning:
			g.running(l, s)
		case GoRunnable:
			l.add(GoInterval{Start: s.start, End: s.end, State: GoCanRun, Stack: s.stack, Ready: s.ready})
		default:
			l.add(GoInterval{Start: s.start, End: s.end, State: GoWaits, Reason: s.reason, Stack: s.stack, Ready: s.ready})
		}
	}
	l.Start = min(l.Start, l.End)
	if len(l.Intervals) > 0 {
		l.Start = l.Intervals[0].Start
	}
}

func (l *goLife) add(i GoInterval) {
	if n := len(l.Intervals); n > 0 {
		last := &l.Intervals[n-1]
		if last.End == i.Start && last.State == i.State && last.Thread == i.Thread && last.Call == i.Call && i.State <= GoInSyscall {
			last.End = i.End
			return
		}
	}
	l.Intervals = append(l.Intervals, i)
}

func (g *goBuilder) running(l *goLife, s goSpan) {
	t := s.thread
	t.runs = append(t.runs, goRun{s.start, s.end, l.GoroutineLife})
	at := s.start
	// What its thread did is known from its first to its last event.
	fill := func(until int64) {
		if at < until {
			l.add(GoInterval{Start: at, End: until, State: GoOnCPU, Thread: t.Thread})
			at = until
		}
	}
	for i := range t.Between(s.start, s.end) {
		fill(i.Start)
		out := GoInterval{Start: i.Start, End: i.End, Thread: t.Thread}
		own := i.Syscall != nil && !g.own[i.Syscall.Number]
		switch {
		case own:
			out.State, out.Call = GoInSyscall, i.Syscall
		case i.Fault != nil && i.State != StateRunnable:
			out.State = GoFault
		case i.State == StateRunnable:
			out.State = GoQueued
		case i.State == StateWaiting: // in a lock of the runtime
			out.State, out.Call = GoInSyscall, i.Syscall
		default:
			out.State = GoOnCPU
		}
		l.add(out)
		at = i.End
	}
	fill(s.end)
}
