package ledger

import (
	"slices"
	"sort"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// WaitKind tells what a wait that nobody inside the subject ended was for.
type WaitKind string

// The kinds of waits, as rules name them.
const (
	WaitNone    WaitKind = ""
	WaitRequest WaitKind = "request" // to the environment, by method and path
	WaitTimer   WaitKind = "timer"
	WaitFile    WaitKind = "file"    // its device
	WaitPeer    WaitKind = "peer"    // of a socket, outside of the subject
	WaitProcess WaitKind = "process" // not of the subject
	WaitGC      WaitKind = "gc"      // Go's collector stopped the goroutine
	WaitUnknown WaitKind = "unknown"
)

// ended resolves a thread's wait by what woke it.
func (w *walk) ended(s *segment, i *trace.Interval) {
	k := i.Waker
	if k == nil {
		s.wait = WaitUnknown
		return
	}
	if waker := w.wakerOf(k); waker != nil {
		s.waker = waker.Label()
		s.cause, s.causeAt = w.actorOn(waker, k.Time), k.Time
		return
	}
	switch k.Context {
	case trace.WakeTimer:
		s.wait, s.waitsFor = WaitTimer, "timer"
		return
	case trace.WakeTask:
		if k.TID != 0 {
			s.waker = k.Comm
		}
	}
	if c := w.answeredTo(s.thread, i); c != nil {
		w.asked(s, c, s.from)
		return
	}
	if path := fileOf(i); path != "" {
		s.wait, s.waitsFor = WaitFile, "file "+path
		return
	}
	switch {
	case k.Context == trace.WakeNetwork:
		s.wait, s.waitsFor = WaitPeer, "a peer outside"
	case k.Context == trace.WakeTask && k.TID != 0:
		s.wait, s.waitsFor = WaitProcess, "process "+k.Comm
	default:
		s.wait = WaitUnknown
	}
}

// wakerOf returns the subject's thread that made a wake-up, nil if none did. A
// thread that was merely interrupted did not; but what is sent over loopback is
// received in the softirq of the very call that sends it.
func (w *walk) wakerOf(k *trace.Waking) *trace.Thread {
	if k.TID == 0 || k.Context != trace.WakeTask && k.Context != trace.WakeNetwork {
		return nil
	}
	t := w.threadAt(k.PID, k.TID, k.Time)
	if t == nil || k.Context == trace.WakeTask {
		return t
	}
	i := t.At(k.Time)
	if i == nil || i.Syscall == nil {
		return nil
	}
	if f := i.Syscall.File; f != nil && f.Kind == trace.DescriptorFile {
		return nil
	}
	if w.sends(i.Syscall) {
		return t
	}
	return nil
}

// sends tells the calls that the other end of a connection notices.
func (w *walk) sends(c *trace.Call) bool {
	return w.Timeline.Writes(c) || slices.Contains([]string{"connect", "close", "shutdown", "sendfile", "splice", "sendmmsg"}, w.Timeline.SyscallName(c.Syscall))
}

// asked lets a wait begin when the request was sent, at its sender, where that
// was after the waiter began to wait.
func (w *walk) asked(s *segment, c *carrier, began int64) {
	s.wait, s.waitsFor, s.sent = WaitRequest, "request "+c.name, c
	if sent := min(c.Until, s.to); sent > began {
		s.cause, s.causeAt = w.actorOn(c.Thread, sent), sent
	}
}

// polls tells the calls that wait for whichever of several descriptors is ready.
func polls(name string) bool {
	return strings.HasPrefix(name, "epoll_") || name == "poll" || name == "ppoll" || strings.HasPrefix(name, "select") || name == "pselect6"
}

// answeredTo finds the request whose answer ended a thread's wait.
func (w *walk) answeredTo(t *trace.Thread, i *trace.Interval) *carrier {
	if i.Syscall == nil {
		return nil
	}
	if i.Syscall.File != nil && w.Timeline.Reads(i.Syscall) {
		return w.pending(i.Syscall.File, i.End)
	}
	if !polls(w.Timeline.SyscallName(i.Syscall.Syscall)) {
		return nil
	}
	// What it reads next tells for which descriptor it was woken.
	n, _ := slices.BinarySearchFunc(t.Calls, i.End, func(c *trace.Call, at int64) int {
		if c.Begin < at {
			return -1
		}
		return 1
	})
	const near = 32
	for _, c := range t.Calls[n:min(len(t.Calls), n+near)] {
		if polls(w.Timeline.SyscallName(c.Syscall)) && c.Returned() && c.Return > 0 {
			break
		}
		if c.File != nil && w.Timeline.Reads(c) {
			if found := w.pending(c.File, i.End); found != nil {
				return found
			}
		}
	}
	return w.onlyPending(t.PID, i.End)
}

// pending returns the request that a connection waited an answer to.
func (w *walk) pending(f *trace.Descriptor, at int64) *carrier {
	list := w.carriers[f]
	for n := len(list) - 1; n >= 0; n-- {
		if c := &list[n]; c.Begin < at {
			if c.answered != 0 && c.answered < at {
				return nil
			}
			return c
		}
	}
	return nil
}

// onlyPending returns the process's unanswered request, if it has just one.
func (w *walk) onlyPending(pid int, at int64) *carrier {
	var found *carrier
	for n := range w.requests {
		c := &w.requests[n]
		if c.PID != pid || c.Begin >= at || c.answered != 0 && c.answered < at {
			continue
		}
		if found != nil {
			return nil
		}
		found = c
	}
	return found
}

// fileOf is the file on whose device a thread waited.
func fileOf(i *trace.Interval) string {
	if i.Fault != nil && strings.HasPrefix(i.Fault.Region.Path, "/") && i.Fault.Region.Path != "//anon" {
		return i.Fault.Region.Path
	}
	if c := i.Syscall; c != nil {
		if c.File != nil && c.File.Kind == trace.DescriptorFile {
			return c.File.Path
		}
		return c.Name
	}
	return ""
}

// readied resolves a goroutine's wait by what made it ready.
func (w *walk) readied(s *segment, g *trace.GoroutineLife, n int) {
	i := &g.Intervals[n]
	r := i.Ready
	switch {
	case r.By != nil && r.By != g:
		s.waker = w.goroutineName(r.By)
		s.cause, s.causeAt = &actor{life: r.By}, r.Time
	case r.Source == trace.ReadyByNetwork:
		w.network(s, g, n)
	case r.Source == trace.ReadyByTimer:
		s.wait, s.waitsFor = WaitTimer, "timer"
	case r.Source == trace.ReadyByGC:
		s.wait, s.waitsFor = WaitGC, "garbage collection"
	default:
		s.wait = WaitUnknown
	}
}

// network resolves the wait of a goroutine for a descriptor: the edge runs from
// whoever sent to the goroutine, through the thread that polled.
func (w *walk) network(s *segment, g *trace.GoroutineLife, n int) {
	ready := g.Intervals[n].Ready
	if i := w.polled(ready); i != nil && i.End > s.from {
		if i.Waker != nil {
			if waker := w.wakerOf(i.Waker); waker != nil {
				s.waker = waker.Label()
				s.cause, s.causeAt, s.through = w.actorOn(waker, i.Waker.Time), i.Waker.Time, ready.Thread
				return
			}
		}
	}
	if f := w.parkedOn(g, n); f != nil {
		if c := w.pending(f, s.to); c != nil {
			w.asked(s, c, s.from)
			return
		}
	}
	if w.peers == nil {
		w.peers = newPeers(w)
	}
	p := w.peers.Of(g, ready)
	// Whoever polled merely looked; and the call that sent can be under way still.
	if at := min(p.at, s.to); at > s.from {
		if p.Goroutine != nil {
			s.waker = w.goroutineName(p.Goroutine)
			s.cause = &actor{life: p.Goroutine}
		} else {
			s.waker = p.Thread.Label()
			s.cause = &actor{thread: p.Thread}
		}
		s.causeAt, s.through = at, ready.Thread
		return
	}
	s.wait, s.waitsFor = WaitPeer, "a peer outside"
}

// polled returns the wait in epoll of the thread that made a goroutine ready,
// nil if it only looked.
func (w *walk) polled(r *trace.Ready) *trace.Interval {
	t := r.Thread
	if t == nil {
		return nil
	}
	last := sort.Search(len(t.Intervals), func(n int) bool { return t.Intervals[n].Start >= r.Time })
	for n := last - 1; n >= 0; n-- {
		i := &t.Intervals[n]
		if i.State == trace.StateWaiting {
			if i.Syscall != nil && polls(w.Timeline.SyscallName(i.Syscall.Syscall)) {
				return i
			}
			return nil
		}
		if r.Time-i.End > maxPoll {
			return nil
		}
	}
	return nil
}

// maxPoll is how long after its wake-up a poller may still make goroutines ready.
const maxPoll = 50e6

// parkedOn returns the descriptor that a goroutine tried last before it parked.
func (w *walk) parkedOn(g *trace.GoroutineLife, n int) *trace.Descriptor {
	at := g.Intervals[n].Start
	for n--; n >= 0; n-- {
		i := &g.Intervals[n]
		if i.Thread == nil {
			continue
		}
		calls := i.Thread.Calls
		last, _ := slices.BinarySearchFunc(calls, at, func(c *trace.Call, at int64) int {
			if c.Begin < at {
				return -1
			}
			return 1
		})
		for last--; last >= 0 && calls[last].Begin >= i.Start; last-- {
			if c := calls[last]; c.File != nil && w.Timeline.Reads(c) {
				return c.File
			}
		}
		at = i.Start
	}
	return nil
}
