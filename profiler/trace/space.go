package trace

import (
	"cmp"
	"slices"
)

// Spaces are the address spaces of a cold start's processes over time.
type Spaces struct {
	epochs map[int][]*space // by PID, in order of their start
}

// space is the address space of a process from its fork or exec on.
type space struct {
	from     int64  // it holds from behind this instant on
	parent   *space // of a fork: what it inherited
	forked   int64  // when it did
	segments []spaceSegment
	layers   int
}

// spaceSegment is an address range and what was mapped there, the latest first.
type spaceSegment struct {
	start, limit uint64
	top          *layer
}

type layer struct {
	mapping *Mapping
	below   *layer
}

// maxLayers bounds the memory of mappings that lie over one another.
const maxLayers = 1 << 20

// VDSO is the path of the vDSO's mapping.
const VDSO = "[vdso]"

// vdsoSize is the room that a vDSO is given when only its start is known: two
// pages hold that of x86-64 and of arm64.
const vdsoSize = 2 * 4096

// NewSpaces follows mappings, forks and execs. A new program's own mappings
// come before its Exec event, which the kernel raises when it has been loaded;
// the address space changes at the entry of the execve that did it.
func NewSpaces(events []Event) *Spaces {
	s := &Spaces{epochs: map[int][]*space{}}
	type step struct {
		at    int64
		event Event
	}
	var steps []step
	byPID := map[int][]Event{} // what tells when an exec began
	execs := 0
	for _, e := range events {
		if _, ok := e.(*Exec); ok {
			execs++
		}
	}
	for _, e := range events {
		switch e.(type) {
		case *Syscall, *Exec, *Fork, *Exit, *Mark:
			if execs > 0 {
				byPID[e.Head().PID] = append(byPID[e.Head().PID], e)
			}
		}
	}
	for _, e := range events {
		switch e := e.(type) {
		case *Mapping, *Fork:
			steps = append(steps, step{e.Head().Time, e})
		case *Exec:
			steps = append(steps, step{execStart(byPID[e.PID], e), e})
		}
	}
	// Of one instant, a fork comes before what is known to be mapped since.
	fork := func(s step) int {
		if _, ok := s.event.(*Fork); ok {
			return 0
		}
		return 1
	}
	slices.SortStableFunc(steps, func(a, b step) int {
		return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(fork(a), fork(b)))
	})
	for _, step := range steps {
		switch e := step.event.(type) {
		case *Mapping:
			s.latest(e.PID).add(e)
		case *Fork:
			if e.ChildPID != e.PID {
				child := &space{from: e.Time, parent: s.latest(e.PID), forked: e.Time}
				s.epochs[e.ChildPID] = append(s.epochs[e.ChildPID], child)
			}
		case *Exec:
			fresh := &space{from: step.at}
			s.epochs[e.PID] = append(s.epochs[e.PID], fresh)
			if e.VDSO != 0 {
				fresh.add(&Mapping{
					Header: Header{Time: e.Time, PID: e.PID, TID: e.TID},
					Start:  e.VDSO, Limit: e.VDSO + vdsoSize, Prot: ProtRead | ProtExec, Path: VDSO,
				})
			}
		}
	}
	return s
}

// execStart returns the instant at which an exec gave up the old address space:
// the entry of the call with a path that was under way at the Exec; where that
// was not seen, the last thing that the process did before.
func execStart(events []Event, exec *Exec) int64 {
	start := int64(0)
	for _, e := range events {
		h := e.Head()
		if h.Time >= exec.Time {
			continue
		}
		if c, ok := e.(*Syscall); ok {
			switch {
			case c.Path != "" && c.Time != 0 && c.End >= exec.Time:
				return c.Time
			case c.End < exec.Time:
				start = max(start, c.End)
			}
			continue
		}
		start = max(start, h.Time)
	}
	return start
}

// latest returns a process's newest address space and makes one if none is known.
func (s *Spaces) latest(pid int) *space {
	if e := s.epochs[pid]; len(e) > 0 {
		return e[len(e)-1]
	}
	first := &space{from: -1 << 63}
	s.epochs[pid] = []*space{first}
	return first
}

// Mapping returns what was mapped at an address of a process at a time: the
// latest mapping made by then. If there was none by then it is the first made
// later, since a mapping's record can come after an event that needs it.
func (s *Spaces) Mapping(pid int, at int64, address uint64) *Mapping {
	epochs := s.epochs[pid]
	if len(epochs) == 0 {
		return nil
	}
	i := len(epochs) - 1
	for i > 0 && epochs[i].from >= at {
		i--
	}
	sp := epochs[i]
	for depth := 0; sp != nil && depth < 1000; depth++ {
		if m := sp.find(at, address); m != nil {
			return m
		}
		at, sp = sp.forked, sp.parent
	}
	return nil
}

func (s *space) find(at int64, address uint64) *Mapping {
	i := s.search(address)
	if i == len(s.segments) || address < s.segments[i].start {
		return nil
	}
	var first *Mapping
	for l := s.segments[i].top; l != nil; l = l.below {
		first = l.mapping
		if l.mapping.Time <= at {
			break
		}
	}
	return first
}

// search returns the first segment that ends behind an address.
func (s *space) search(address uint64) int {
	i, _ := slices.BinarySearchFunc(s.segments, address, func(g spaceSegment, a uint64) int {
		if g.limit <= a {
			return -1
		}
		return 1
	})
	return i
}

// add lays a mapping over what is there.
func (s *space) add(m *Mapping) {
	if m.Limit <= m.Start {
		return
	}
	var fresh []spaceSegment
	i := s.search(m.Start)
	j := i
	at := m.Start
	for ; j < len(s.segments) && s.segments[j].start < m.Limit; j++ {
		g := s.segments[j]
		if g.start < m.Start {
			fresh = append(fresh, spaceSegment{g.start, m.Start, g.top})
		}
		if at < g.start {
			fresh = append(fresh, s.cover(at, g.start, m, nil))
		}
		from, to := max(g.start, m.Start), min(g.limit, m.Limit)
		fresh = append(fresh, s.cover(from, to, m, g.top))
		if g.limit > m.Limit {
			fresh = append(fresh, spaceSegment{m.Limit, g.limit, g.top})
		}
		at = to
	}
	if at < m.Limit {
		fresh = append(fresh, s.cover(at, m.Limit, m, nil))
	}
	s.segments = slices.Replace(s.segments, i, j, fresh...)
}

func (s *space) cover(start, limit uint64, m *Mapping, below *layer) spaceSegment {
	if s.layers++; s.layers > maxLayers {
		below = nil
	}
	return spaceSegment{start, limit, &layer{m, below}}
}
