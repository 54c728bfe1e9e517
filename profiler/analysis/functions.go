package analysis

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/profile"
)

// mostChanges bounds each list of a diff.
const mostChanges = 1000

// changeTree is by how much the stacks through each frame changed, the root
// outermost.
type changeTree struct {
	function string
	outside  bool // of the program
	delta    int64
	children map[profile.Frame]*changeTree
}

// changeTrees hold one for each cell and each cause.
type changeTrees struct {
	cells  map[cellKey]*changeTree
	causes map[causeKey]*changeTree
}

func newChangeTrees(s *DiffStacks) changeTrees {
	t := changeTrees{map[cellKey]*changeTree{}, map[causeKey]*changeTree{}}
	add := func(stacks []profile.WeightedStack, sign int64) {
		for _, x := range stacks {
			ensure(t.cells, cellKey{x.Phase, x.Category, x.State}, changeTree{}).add(x.Stack, sign*x.Value)
			ensure(t.causes, causeKey{x.Phase, x.Category}, changeTree{}).add(x.Stack, sign*x.Value)
		}
	}
	add(s.Before, -1)
	add(s.After, 1)
	return t
}

func (t *changeTree) add(stack []profile.Frame, ns int64) {
	t.delta += ns
	for _, f := range slices.Backward(stack) {
		if t.children == nil {
			t.children = map[profile.Frame]*changeTree{}
		}
		t = ensure(t.children, f, changeTree{function: f.Function, outside: f.Module == "[kernel]" || strings.HasPrefix(f.Function, "[")})
		t.delta += ns
	}
}

// through follows the change inwards as long as one function has two thirds of
// it. What a function waits for, in brackets, and the kernel are no places to
// look for.
func (t *changeTree) through(delta int64) Through {
	if t == nil || delta == 0 {
		return Through{}
	}
	sign := int64(1)
	if delta < 0 {
		sign = -1
	}
	at := t
	for {
		var best *changeTree
		for _, c := range at.children {
			if best == nil || sign*c.delta > sign*best.delta || c.delta == best.delta && c.function < best.function {
				best = c
			}
		}
		if best == nil || sign*best.delta < sign*delta/3*2 || best.outside {
			break
		}
		at = best
	}
	if at == t {
		return Through{}
	}
	return Through{Function: at.function, FunctionNS: new(at.delta)}
}

type functionKey struct{ name, module string }

type functionTotals struct {
	self, total [2]int64 // before, after
	phases      map[string]int64
}

// functionChanges sums up each function's own time and that with all it calls.
func functionChanges(s *DiffStacks) []DiffFunction {
	all := map[functionKey]*functionTotals{}
	for side, stacks := range [][]profile.WeightedStack{s.Before, s.After} {
		for _, x := range stacks {
			seen := map[functionKey]bool{}
			for i, f := range x.Stack {
				key := functionKey{f.Function, f.Module}
				t := ensure(all, key, functionTotals{phases: map[string]int64{}})
				change := x.Value
				if side == 0 {
					change = -change
				}
				if i == 0 {
					t.self[side] += x.Value
				}
				if !seen[key] { // recursion counts once
					seen[key] = true
					t.total[side] += x.Value
					t.phases[x.Phase] += change
				}
			}
		}
	}
	out := []DiffFunction{}
	for key, t := range all {
		f := DiffFunction{
			Key: key.name, BeforeNS: t.self[0], AfterNS: t.self[1], TotalBeforeNS: t.total[0], TotalAfterNS: t.total[1],
		}
		if key.module != "" {
			f.Module = path.Base(key.module)
		}
		delta := cmp.Or(f.AfterNS-f.BeforeNS, f.TotalAfterNS-f.TotalBeforeNS)
		switch {
		case t.total[0] == 0:
			f.Status = StatusAppeared
		case t.total[1] == 0:
			f.Status = StatusVanished
		case delta > 0:
			f.Status = StatusGrew
		case delta < 0:
			f.Status = StatusShrank
		default:
			continue
		}
		for phase, change := range t.phases {
			if at := t.phases[f.Phase]; f.Phase == "" || size(change) > size(at) || size(change) == size(at) && phase < f.Phase {
				f.Phase = phase
			}
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(x, y DiffFunction) int {
		return cmp.Or(cmp.Compare(size(y.AfterNS-y.BeforeNS), size(x.AfterNS-x.BeforeNS)),
			cmp.Compare(size(y.TotalAfterNS-y.TotalBeforeNS), size(x.TotalAfterNS-x.TotalBeforeNS)),
			cmp.Compare(x.Key, y.Key), cmp.Compare(x.Module, y.Module))
	})
	return out
}
