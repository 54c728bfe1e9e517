package ledger

import (
	"cmp"
	"slices"
	"sort"
	"syscall"

	"github.com/initprof/initprof/profiler/trace"
)

// Peers tells who made a goroutine ready that waited for a descriptor: Go's
// runtime knows only the thread that happened to poll.
type Peers struct {
	w       *walk
	readied map[*trace.Thread][]int64 // when a thread made goroutines ready that waited for a descriptor
}

// Peer is what ended a goroutine's wait for a descriptor. At most one is set;
// none where it cannot be told for sure.
type Peer struct {
	Goroutine *trace.GoroutineLife // that wrote
	Thread    *trace.Thread        // that wrote, running no goroutine
	Request   string               // to the environment, METHOD PATH, that was answered
	Timer     bool                 // a deadline
}

// NewPeers looks into one cold start.
func NewPeers(in Input) *Peers {
	p := &Peers{w: newWalk(in), readied: map[*trace.Thread][]int64{}}
	for _, g := range in.Timeline.Goroutines {
		for n := range g.Intervals {
			if r := g.Intervals[n].Ready; g.Intervals[n].State == trace.GoWaits && r != nil && r.Source == trace.ReadyByNetwork {
				p.readied[r.Thread] = append(p.readied[r.Thread], r.Time)
			}
		}
	}
	for _, times := range p.readied {
		slices.Sort(times)
	}
	return p
}

// Of returns who made a goroutine ready.
//
// What waits on a connection to the environment was woken by its answer. Else
// the thread that polled tells: if it slept in epoll until a write to a socket
// woke it, and epoll then found just one descriptor ready, it is that write's.
func (p *Peers) Of(g *trace.GoroutineLife, r *trace.Ready) Peer {
	n := sort.Search(len(g.Intervals), func(n int) bool { return g.Intervals[n].End >= r.Time })
	if r.Source != trace.ReadyByNetwork || r.Thread == nil || n == len(g.Intervals) || g.Intervals[n].Ready != r {
		return Peer{}
	}
	i := &g.Intervals[n]
	poll := p.poll(r)
	if poll != nil && poll.Return == 0 {
		return Peer{Timer: true} // it found no descriptor ready: only a deadline can have passed
	}
	if f := p.tried(g, n); f != nil {
		if c := p.w.pending(f, i.End); c != nil {
			return Peer{Request: c.name}
		}
	}
	if poll == nil || poll.Return != 1 {
		return Peer{}
	}
	first := sort.Search(len(p.readied[r.Thread]), func(n int) bool { return p.readied[r.Thread][n] >= poll.Until })
	if p.readied[r.Thread][first] != r.Time {
		return Peer{}
	}
	slept := p.slept(poll)
	if slept == nil || slept.Waker == nil {
		return Peer{}
	}
	return p.writer(slept.Waker, g)
}

// poll returns the last epoll_wait of the thread that made a goroutine ready.
func (p *Peers) poll(r *trace.Ready) *trace.Call {
	calls := r.Thread.Calls
	n := sort.Search(len(calls), func(n int) bool { return calls[n].Begin >= r.Time })
	for n--; n >= 0; n-- {
		switch p.w.Timeline.SyscallName(calls[n].Syscall) {
		case "epoll_wait", "epoll_pwait", "epoll_pwait2":
			if !calls[n].Returned() || calls[n].Until > r.Time {
				return nil
			}
			return calls[n]
		}
	}
	return nil
}

// slept returns the last wait inside of a call.
func (p *Peers) slept(c *trace.Call) (last *trace.Interval) {
	intervals := c.Thread.Intervals
	n := sort.Search(len(intervals), func(n int) bool { return intervals[n].End > c.Begin })
	for ; n < len(intervals) && intervals[n].Start < c.Until; n++ {
		if intervals[n].State == trace.StateWaiting {
			last = &intervals[n]
		}
	}
	return last
}

// writer is who woke a poller by what it did to a socket of its own, which is
// not one to the environment: its answers come from there.
func (p *Peers) writer(k *trace.Waking, g *trace.GoroutineLife) Peer {
	t := p.w.wakerOf(k)
	if t == nil {
		return Peer{}
	}
	i := t.At(k.Time)
	if i == nil || i.Syscall == nil {
		return Peer{}
	}
	if f := i.Syscall.File; f == nil || f.Kind != trace.DescriptorSocket || len(p.w.carriers[f]) > 0 {
		return Peer{}
	}
	switch by := t.GoroutineAt(k.Time); {
	case by == g:
		return Peer{}
	case by != nil:
		return Peer{Goroutine: by}
	}
	return Peer{Thread: t}
}

// tried returns the descriptor that a goroutine waits for in its n-th interval:
// of the call that came back without having got anything just before it parked.
func (p *Peers) tried(g *trace.GoroutineLife, n int) *trace.Descriptor {
	if n == 0 || g.Intervals[n-1].Thread == nil {
		return nil
	}
	at, calls := g.Intervals[n].Start, g.Intervals[n-1].Thread.Calls
	last, _ := slices.BinarySearchFunc(calls, at, func(c *trace.Call, at int64) int { return cmp.Compare(c.Begin, at) })
	for last--; last >= 0; last-- {
		c := calls[last]
		if p.w.actorOn(c.Thread, c.Until).life != g {
			return nil
		}
		if c.File == nil {
			continue // of the runtime, which woke a thread
		}
		if e := syscall.Errno(-c.Return); c.Failed() && (e == syscall.EAGAIN || e == syscall.EINPROGRESS) {
			return c.File
		}
		return nil
	}
	return nil
}
