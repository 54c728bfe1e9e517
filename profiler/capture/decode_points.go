package capture

import (
	"slices"

	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

var markKinds = map[probe.Kind]trace.MarkKind{
	probe.Checkpoint: trace.MarkCheckpoint, probe.Entry: trace.MarkEntry, probe.Main: trace.MarkMain,
	probe.Symbol: trace.MarkSymbol, probe.Enter: trace.MarkEnter, probe.Leave: trace.MarkLeave,
}

// nameProbed gives the events of probed addresses the kinds and names of their
// points, and drops those that belong to no planned point.
func (d *decoder) nameProbed() []trace.Event {
	unknown := map[trace.Event]bool{}
	find := pointFinder{points: map[uint64][]*Point{}, mappings: d.mappings}
	for i := range d.points {
		p := &d.points[i]
		find.points[p.Offset] = append(find.points[p.Offset], p)
	}
	for _, e := range d.probed {
		point := find.at(uint32(e.event.Head().PID), e.ip)
		switch event := e.event.(type) {
		case *trace.Mark:
			if point != nil && !point.Action.IsCall() {
				event.Kind, event.Name = markKinds[point.Kind], point.Name
				continue
			}
		case *trace.FunctionCall:
			if point != nil && point.Action.IsCall() {
				event.Name = point.Name
				continue
			}
		}
		unknown[e.event] = true
	}
	if len(unknown) == 0 {
		return d.events
	}
	return slices.DeleteFunc(d.events, func(e trace.Event) bool { return unknown[e] })
}

// pointFinder finds the point that an address is.
type pointFinder struct {
	points   map[uint64][]*Point         // by offset in their files
	mappings map[uint32][]*trace.Mapping // by PID
}

// at finds the planned point that address ip of a process is in some mapping of
// it. Mappings come from forked parents too, so any process's will do where the
// own ones do not: an address that is no point matches no offset.
func (f *pointFinder) at(pid uint32, ip uint64) *Point {
	if p := f.in(f.mappings[pid], ip); p != nil {
		return p
	}
	for _, mappings := range f.mappings {
		if p := f.in(mappings, ip); p != nil {
			return p
		}
	}
	return nil
}

func (f *pointFinder) in(mappings []*trace.Mapping, ip uint64) *Point {
	for _, m := range slices.Backward(mappings) { // an exec maps anew
		if ip < m.Start || ip >= m.Limit || m.Prot&trace.ProtExec == 0 {
			continue
		}
		candidates := f.points[ip-m.Start+m.Offset]
		for _, p := range candidates {
			if p.Path == m.Path {
				return p
			}
		}
		// The subject may see the file under another name than the plan does.
		if len(candidates) == 1 {
			return candidates[0]
		}
	}
	return nil
}
