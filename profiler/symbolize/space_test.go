package symbolize

import (
	"math/rand/v2"
	"testing"

	"github.com/initprof/initprof/profiler/trace"
)

// Mappings that lie over one another give what a search of all of them gives.
func TestSpacesAgreeWithASearchOfAllMappings(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var events []trace.Event
		var all []*trace.Mapping
		for i := range 40 {
			start := random.Uint64N(64)
			m := &trace.Mapping{
				Header: trace.Header{Time: int64(10 * (i + 1)), PID: 1},
				Start:  start, Limit: start + random.Uint64N(20),
			}
			all = append(all, m)
			events = append(events, m)
		}
		random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		s := newSpaces(events)
		for address := range uint64(90) {
			at := int64(random.Uint64N(450))
			var want *trace.Mapping
			for _, m := range all {
				if address < m.Start || address >= m.Limit {
					continue
				}
				if want == nil || m.Time <= at {
					want = m
				}
			}
			if got := s.mapping(1, at, address); got != want {
				t.Fatalf("%#x at %d: %+v, want %+v", address, at, got, want)
			}
		}
	}
}

// A process that maps one range over and over, or forks from itself, ends.
func TestSpacesAreBounded(t *testing.T) {
	var events []trace.Event
	for i := range 50_000 {
		events = append(events,
			&trace.Mapping{Header: trace.Header{Time: int64(i), PID: 1}, Start: uint64(i), Limit: 1 << 40},
			&trace.Fork{Header: trace.Header{Time: int64(i), PID: 1 + i%3}, ChildPID: 1 + (i+1)%3})
	}
	s := newSpaces(events)
	s.mapping(1, 1<<40, 5)
	s.mapping(2, 1<<40, 1<<39)
}
