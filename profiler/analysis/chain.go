package analysis

import (
	"cmp"
	"fmt"
	"slices"
)

// Hop is a stretch of the critical path in which one thread or goroutine had
// to get on, or several short ones one after another.
type Hop struct {
	Name    string
	StartNS int64
	NS      int64
	Parts   []HopPart // the greatest first
}

// HopPart is what a hop spent on one thing.
type HopPart struct {
	Name string
	NS   int64
}

// Chain joins the steps of a critical path to hops, the last one first. What is
// shorter than a share of the whole, as much as the figure says, joins others
// like it.
func Chain(path []PathStep, share float64) []Hop {
	var hops []Hop
	var whole int64
	for i := len(path) - 1; i >= 0; i-- {
		s := path[i]
		whole += s.NS
		name := s.actor()
		if n := len(hops); n == 0 || hops[n-1].Name != name {
			hops = append(hops, Hop{Name: name})
		}
		h := &hops[len(hops)-1]
		h.StartNS = s.StartNS
		h.NS += s.NS
		h.add(s.what(), s.NS)
	}
	least := int64(share * float64(whole))
	var out []Hop
	short := 0
	for _, h := range hops {
		if h.NS >= least {
			out, short = append(out, h), 0
			continue
		}
		if short == 0 {
			out = append(out, Hop{})
		}
		short++
		o := &out[len(out)-1]
		o.Name, o.StartNS = h.Name, h.StartNS
		if short > 1 {
			o.Name = fmt.Sprintf("%d short hops", short)
		}
		o.NS += h.NS
		for _, p := range h.Parts {
			o.add(p.Name, p.NS)
		}
	}
	for i := range out {
		slices.SortStableFunc(out[i].Parts, func(x, y HopPart) int { return cmp.Compare(y.NS, x.NS) })
	}
	return out
}

func (h *Hop) add(name string, ns int64) {
	for i := range h.Parts {
		if h.Parts[i].Name == name {
			h.Parts[i].NS += ns
			return
		}
	}
	h.Parts = append(h.Parts, HopPart{name, ns})
}

// actor names who had to get on.
func (s *PathStep) actor() string {
	switch {
	case s.Goroutine != nil && s.GoroutineFunction != "":
		return fmt.Sprintf("goroutine %d %s", *s.Goroutine, s.GoroutineFunction)
	case s.Goroutine != nil:
		return fmt.Sprintf("goroutine %d", *s.Goroutine)
	case s.Thread != "":
		return "thread " + s.Thread
	}
	return "unknown"
}

// what says what a step spends its time on.
func (s *PathStep) what() string {
	switch {
	case s.WaitsFor != "":
		return "waiting for " + s.WaitsFor
	case s.State == StateWaiting:
		return "waiting, unknown waker"
	case s.RunnableBehind != "":
		return "runnable behind " + s.RunnableBehind
	}
	return s.Category + " in " + s.Phase
}
