package phase

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/trace"
)

// Span is work that may overlap with other work. End - Start is its own cost.
//
// OverlapNS is the part of it that was hidden behind other work, as far as the
// subject declared any: the time in which a span of another ID was open, and
// the time up to the last checkpoint or rule that was reached while it was
// open, for up to there the subject moved on without it. The rest is what a
// join had to wait for, at most.
type Span struct {
	Name       string
	ID         uint64
	Start, End int64
	Open       bool // never ended: End is the window's
	OverlapNS  int64
}

// spans pairs the marks of spans that began inside the window, by name and ID;
// the innermost first where both repeat.
func (c *computation) spans(points []point) {
	if c.Timeline == nil {
		return
	}
	type key struct {
		pid  int
		name string
		id   uint64
	}
	open := map[key][]int{}
	for _, m := range c.Timeline.Marks {
		k := key{m.PID, m.Name, m.ID}
		switch m.Kind {
		case trace.MarkSpanBegin:
			if m.Time >= c.Start && m.Time < c.End {
				open[k] = append(open[k], len(c.Spans))
				c.Spans = append(c.Spans, Span{Name: m.Name, ID: m.ID, Start: m.Time, End: c.End, Open: true})
			}
		case trace.MarkSpanEnd:
			if n := len(open[k]); n > 0 {
				s := &c.Spans[open[k][n-1]]
				s.End, s.Open = m.Time, false
				open[k] = open[k][:n-1]
			}
		}
	}
	for n := range c.Spans {
		c.Spans[n].OverlapNS = c.overlap(&c.Spans[n], points)
	}
	slices.SortStableFunc(c.Spans, func(x, y Span) int { return cmp.Compare(x.Start, y.Start) })
}

func (c *computation) overlap(s *Span, points []point) int64 {
	var parts [][2]int64
	for _, other := range c.Spans {
		if other.ID != s.ID && other.Start < s.End && s.Start < other.End {
			parts = append(parts, [2]int64{max(s.Start, other.Start), min(s.End, other.End)})
		}
	}
	moved := s.Start
	for _, p := range points {
		if p.source != Universal && s.Start < p.at && p.at < s.End {
			moved = max(moved, p.at)
		}
	}
	parts = append(parts, [2]int64{s.Start, moved})
	slices.SortFunc(parts, func(x, y [2]int64) int { return cmp.Compare(x[0], y[0]) })
	var sum int64
	at := s.Start
	for _, p := range parts {
		if from := max(p[0], at); from < p[1] {
			sum += p[1] - from
			at = p[1]
		}
	}
	return sum
}
