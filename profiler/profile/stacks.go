package profile

import (
	"fmt"
	"path"
	"strings"

	pprofile "github.com/google/pprof/profile"
)

// AllPhases selects samples of every phase.
const AllPhases = "all"

// Frame is one box of a flame graph.
type Frame struct {
	Function string // or module+0xaddress where it has no name
	Module   string // path, "[kernel]", …; empty if unknown
}

// WeightedStack is a stack with what was spent on it.
type WeightedStack struct {
	Stack []Frame // leaf first
	Value int64   // nanoseconds, of all sample types that are times
	Count int64   // events, of the other types

	Phase, Category, State string // empty where the signal does not tell
}

// Stacks returns the stacks of a profile that this package made, in its order,
// of one phase or of AllPhases. Samples without value are left out. Stacks of
// goroutines stand on what the goroutine did, and what it waited for.
func Stacks(p *pprofile.Profile, phase string) []WeightedStack {
	var stacks []WeightedStack
	for _, s := range p.Sample {
		if phase != AllPhases && label(s, "phase") != phase {
			continue
		}
		w := WeightedStack{Phase: label(s, "phase"), Category: label(s, "category"), State: label(s, "state")}
		for n, v := range s.Value {
			if p.SampleType[n].Unit == "nanoseconds" {
				w.Value += v
			} else {
				w.Count += v
			}
		}
		if w.Value == 0 {
			continue
		}
		for _, location := range s.Location {
			module := ""
			if location.Mapping != nil {
				module = location.Mapping.File
			}
			for _, line := range location.Line {
				w.Stack = append(w.Stack, Frame{line.Function.Name, module})
			}
			if len(location.Line) == 0 {
				name := "[unknown]"
				if module != "" {
					name = path.Base(module)
				}
				w.Stack = append(w.Stack, Frame{fmt.Sprintf("%s+%#x", name, location.Address), module})
			}
		}
		if state := s.Label["state"]; len(state) > 0 && isGoroutines(p) {
			w.Stack = append(w.Stack, Frame{Function: strings.Join(append(state, s.Label["reason"]...), ": ")})
		}
		stacks = append(stacks, w)
	}
	return stacks
}

func label(s *pprofile.Sample, name string) string {
	if values := s.Label[name]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// Phases returns the names of the phases in a profile, by first appearance.
func Phases(p *pprofile.Profile) []string {
	var names []string
	seen := map[string]bool{}
	for _, s := range p.Sample {
		for _, name := range s.Label["phase"] {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
	}
	return names
}
