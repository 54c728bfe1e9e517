package trace

import (
	"math/rand/v2"
	"testing"
)

// Mappings that lie over one another give what a search of all of them gives.
func TestSpacesAgreeWithASearchOfAllMappings(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var events []Event
		var all []*Mapping
		for i := range 40 {
			start := random.Uint64N(64)
			m := &Mapping{
				Header: Header{Time: int64(10 * (i + 1)), PID: 1},
				Start:  start, Limit: start + random.Uint64N(20),
			}
			all = append(all, m)
			events = append(events, m)
		}
		random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
		s := NewSpaces(events)
		for address := range uint64(90) {
			at := int64(random.Uint64N(450))
			var want *Mapping
			for _, m := range all {
				if address < m.Start || address >= m.Limit {
					continue
				}
				if want == nil || m.Time <= at {
					want = m
				}
			}
			if got := s.Mapping(1, at, address); got != want {
				t.Fatalf("%#x at %d: %+v, want %+v", address, at, got, want)
			}
		}
	}
}

// A process that maps one range over and over, or forks from itself, ends.
func TestSpacesAreBounded(t *testing.T) {
	var events []Event
	for i := range 50_000 {
		events = append(events,
			&Mapping{Header: Header{Time: int64(i), PID: 1}, Start: uint64(i), Limit: 1 << 40},
			&Fork{Header: Header{Time: int64(i), PID: 1 + i%3}, ChildPID: 1 + (i+1)%3})
	}
	s := NewSpaces(events)
	s.Mapping(1, 1<<40, 5)
	s.Mapping(2, 1<<40, 1<<39)
}
