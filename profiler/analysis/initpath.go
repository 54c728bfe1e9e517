package analysis

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/stat"
)

// InitTimes are when the processes of one cold start got how far, on
// CLOCK_MONOTONIC: what the environment saw of all of INIT.
type InitTimes struct {
	Start     int64         `json:"start_ns"` // release of the first extension
	End       int64         `json:"end_ns"`   // the last first /next
	Processes []InitProcess `json:"processes"`
}

// InitProcess is an extension or the runtime; an instant of 0 was not reached.
type InitProcess struct {
	Name       string `json:"name"`
	Subject    bool   `json:"subject,omitempty"`
	Runtime    bool   `json:"runtime,omitempty"`
	Released   int64  `json:"released_ns"`
	Registered int64  `json:"registered_ns,omitempty"` // of an extension
	FirstNext  int64  `json:"first_next_ns"`
}

// InitPath tells who INIT waited for, from the release of the first extension to
// the last first /next. The runtime starts when all extensions have registered.
// Figures are means per cold start.
type InitPath struct {
	InitNS int64      `json:"init_ns"`
	Parts  []InitPart `json:"parts"` // in order; they sum to init_ns
	// SubjectNS is what of the subject's window INIT waited for, and HiddenNS what
	// ran beside what it waited for; both sum to the window.
	SubjectNS  int64          `json:"subject_ns"`
	HiddenNS   int64          `json:"hidden_ns"`
	Categories []InitCategory `json:"categories"` // of the subject's critical path, most that INIT waited for first
}

// InitPart is how long INIT waited for a process to get somewhere.
type InitPart struct {
	Process string `json:"process"` // its name, or Environment
	Until   string `json:"until"`   // UntilRegister, UntilNext, or UntilRelease of the process that follows
	NS      int64  `json:"ns"`
}

// InitCategory divides a category of the subject's ledger.
type InitCategory struct {
	Category  string `json:"category"`
	ReachesNS int64  `json:"reaches_ns"` // INIT waited for it
	HiddenNS  int64  `json:"hidden_ns"`
}

// Environment is the process of what nobody in INIT does, and how far parts go.
const (
	Environment   = "environment"
	UntilRegister = "register"
	UntilNext     = "next"
	UntilRelease  = "release"
)

// parts walks back from the end of INIT. until is when INIT ceased to wait for
// the subject; 0: it never did.
func (t *InitTimes) parts() (parts []InitPart, until int64) {
	at := t.End
	add := func(process, what string, since int64) {
		since = min(max(since, t.Start), at)
		if since < at {
			parts = append(parts, InitPart{Process: process, Until: what, NS: at - since})
		}
		at = since
	}
	last := t.latest(func(p *InitProcess) int64 { return p.FirstNext })
	if last == nil {
		return nil, 0
	}
	add(last.Name, UntilNext, last.Released)
	if last.Subject {
		until = t.End
	}
	if last.Runtime {
		if gate := t.latest(func(p *InitProcess) int64 { return p.Registered }); gate != nil {
			add(Environment, UntilRelease, gate.Registered)
			if gate.Subject {
				until = at
			}
			add(gate.Name, UntilRegister, gate.Released)
		}
	}
	add(Environment, UntilRelease, t.Start)
	slices.Reverse(parts)
	return parts, until
}

// latest returns the process that got somewhere last.
func (t *InitTimes) latest(instant func(*InitProcess) int64) (found *InitProcess) {
	for i := range t.Processes {
		if p := &t.Processes[i]; instant(p) != 0 && (found == nil || instant(p) > instant(found)) {
			found = p
		}
	}
	return found
}

// initSums adds up the paths of INIT.
type initSums struct {
	n                    int64
	whole, reach, hidden int64
	parts                map[InitPart]int64 // by process and how far; its own NS is 0
	order                []InitPart
	categories           map[string]*InitCategory
}

// longestInit is longer than any INIT, in nanoseconds: an hour.
const longestInit = int64(3600e9)

func newInitSums() initSums {
	return initSums{parts: map[InitPart]int64{}, categories: map[string]*InitCategory{}}
}

func (s *initSums) add(c ColdStart) {
	t := c.Init
	// The times stand in a file: none beyond it can be added up.
	if t == nil || c.Ledger == nil || t.Start < 0 || t.End <= t.Start || t.End-t.Start > longestInit {
		return
	}
	parts, until := t.parts()
	if parts == nil {
		return
	}
	s.n++
	s.whole += t.End - t.Start
	place := 0
	for _, p := range parts {
		key := InitPart{Process: p.Process, Until: p.Until}
		at := slices.Index(s.order, key)
		if at < 0 {
			at = min(place, len(s.order))
			s.order = slices.Insert(s.order, at, key)
		}
		place = max(place, at+1) // what the environment does twice is one part
		s.parts[key] += p.NS
	}
	for i := range c.Ledger.Steps {
		x := &c.Ledger.Steps[i]
		reaches := min(max(until-x.Start, 0), x.NS())
		s.reach += reaches
		s.hidden += x.NS() - reaches
		of := s.categories[x.Category]
		if of == nil {
			of = &InitCategory{Category: x.Category}
			s.categories[x.Category] = of
		}
		of.ReachesNS += reaches
		of.HiddenNS += x.NS() - reaches
	}
}

func (s *initSums) report() *InitPath {
	if s.n == 0 {
		return nil
	}
	out := &InitPath{InitNS: mean(s.whole, s.n), Parts: []InitPart{}, Categories: []InitCategory{}}
	totals := make([]int64, len(s.order))
	for i, key := range s.order {
		totals[i] = s.parts[key]
	}
	for i, ns := range stat.Divide(totals, s.n) {
		part := s.order[i]
		part.NS = ns
		out.Parts = append(out.Parts, part)
	}
	both := stat.Divide([]int64{s.reach, s.hidden}, s.n)
	out.SubjectNS, out.HiddenNS = both[0], both[1]
	names := make([]string, 0, len(s.categories))
	for name := range s.categories {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		a, b := s.categories[x], s.categories[y]
		return cmp.Or(cmp.Compare(b.ReachesNS, a.ReachesNS), cmp.Compare(b.HiddenNS, a.HiddenNS), cmp.Compare(x, y))
	})
	divided := make([]int64, 0, 2*len(names))
	for _, name := range names {
		divided = append(divided, s.categories[name].ReachesNS, s.categories[name].HiddenNS)
	}
	divided = stat.Divide(divided, s.n)
	for i, name := range names {
		out.Categories = append(out.Categories, InitCategory{name, divided[2*i], divided[2*i+1]})
	}
	return out
}
