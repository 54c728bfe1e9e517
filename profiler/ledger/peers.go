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
	ends    map[ends][]*trace.Descriptor
	sent    map[*trace.Descriptor][]*trace.Call // calls on those that their peers notice, by Begin
}

// ends are those of a connection, as one of its two descriptors has them.
type ends struct{ near, far trace.Endpoint }

// Peer is what ended a goroutine's wait for a descriptor. At most one is set;
// none where it cannot be told for sure.
type Peer struct {
	Goroutine *trace.GoroutineLife // that wrote
	Thread    *trace.Thread        // that wrote, running no goroutine
	Request   string               // to the environment, METHOD PATH, that was answered
	Timer     bool                 // a deadline

	at int64 // when it wrote
}

// NewPeers looks into one cold start.
func NewPeers(in Input) *Peers { return newPeers(newWalk(in)) }

func newPeers(w *walk) *Peers {
	in := w.Input
	p := &Peers{
		w: w, readied: map[*trace.Thread][]int64{}, ends: map[ends][]*trace.Descriptor{}, sent: map[*trace.Descriptor][]*trace.Call{},
	}
	known := map[*trace.Descriptor]bool{}
	for _, c := range in.Timeline.Calls {
		f := c.File
		if f == nil || f.Near == 0 || f.Far == 0 {
			continue
		}
		if e := (ends{f.Near, f.Far}); !known[f] {
			known[f] = true
			p.ends[e] = append(p.ends[e], f)
		}
		copied := p.w.Timeline.SyscallName(c.Syscall) == "close" && f.Closed != c.Begin // others are left open
		if p.w.sends(c) && !copied {
			p.sent[f] = append(p.sent[f], c)
		}
	}
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
// What waits on a connection to the environment was woken by its answer. If both
// ends of a connection are the subject's, it was the first that was sent from
// the other one since the goroutine found nothing. Where the ends are not known
// the thread that polled tells: if it slept in epoll until a write to a socket
// woke it, and epoll then found just one descriptor ready, it is that write's.
func (p *Peers) Of(g *trace.GoroutineLife, r *trace.Ready) Peer {
	n := sort.Search(len(g.Intervals), func(n int) bool { return g.Intervals[n].End >= r.Time })
	if r.Source != trace.ReadyByNetwork || r.Thread == nil || n == len(g.Intervals) || g.Intervals[n].Ready != r {
		return Peer{}
	}
	poll := p.poll(r)
	if poll == nil {
		return Peer{}
	}
	if poll.Return == 0 {
		return Peer{Timer: true} // it found no descriptor ready: only a deadline can have passed
	}
	if c := p.tried(g, n); c != nil {
		if name := p.w.Timeline.SyscallName(c.Syscall); !p.w.Timeline.Reads(c) && name != "accept4" && name != "accept" {
			return Peer{} // for a connection, or for room in a buffer: that is nobody's write
		}
		if request := p.w.pending(c.File, r.Time); request != nil {
			return Peer{Request: request.name}
		}
		if c.File.Far != 0 {
			return p.otherEnd(g, c, poll.Until)
		}
	}
	return p.woken(g, r, poll)
}

// otherEnd is who sent what a goroutine did not find in a call.
func (p *Peers) otherEnd(g *trace.GoroutineLife, tried *trace.Call, until int64) Peer {
	var found *trace.Call
	for _, f := range p.ends[ends{tried.File.Far, tried.File.Near}] {
		for _, c := range p.sent[f] {
			if c.Begin >= until {
				break
			}
			if c.Until <= tried.Begin {
				continue
			}
			if found == nil || c.Begin < found.Begin {
				found = c
			}
			break
		}
	}
	if found == nil {
		return Peer{}
	}
	return p.actor(g, found.Thread, found.Until-1)
}

// woken is who woke the thread that polled.
func (p *Peers) woken(g *trace.GoroutineLife, r *trace.Ready, poll *trace.Call) Peer {
	times := p.readied[r.Thread]
	first, _ := slices.BinarySearch(times, poll.Until)
	slept := p.slept(poll)
	if poll.Return != 1 || times[first] != r.Time || slept == nil || slept.Waker == nil {
		return Peer{}
	}
	t := p.w.wakerOf(slept.Waker)
	if t == nil {
		return Peer{}
	}
	// Not by a socket to the environment: what it carries is no news to the subject.
	i := t.At(slept.Waker.Time)
	if i == nil || i.Syscall == nil || i.Syscall.File == nil || i.Syscall.File.Kind != trace.DescriptorSocket || len(p.w.carriers[i.Syscall.File]) > 0 {
		return Peer{}
	}
	return p.actor(g, t, slept.Waker.Time)
}

// actor is whom a thread served at that time, who is not the goroutine itself.
func (p *Peers) actor(g *trace.GoroutineLife, t *trace.Thread, at int64) Peer {
	switch by := t.GoroutineAt(at); {
	case by == nil:
		return Peer{Thread: t, at: at}
	case by != g:
		return Peer{Goroutine: by, at: at}
	}
	return Peer{}
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

// tried returns the call whose descriptor a goroutine waits for in its n-th
// interval: it came back without having got anything just before it parked.
func (p *Peers) tried(g *trace.GoroutineLife, n int) *trace.Call {
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
			return c
		}
		return nil
	}
	return nil
}
