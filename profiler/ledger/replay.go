package ledger

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// Without is work that a replay does not charge: that of a category, a phase, a
// function and what it calls, or a request. With At it is charged, but starts
// when the phase At ends, beside what the subject did then. The zero value is
// no work.
type Without struct {
	Category, Phase, Request string
	Function                 *regexp.Regexp
	At                       string
}

// ErrWithout is wrapped by errors about what a user asked to leave out.
var ErrWithout = errors.New("nothing to leave out")

// ParseWithout reads what to leave out: "category:NAME", "phase:NAME",
// "function:REGEXP", "request:METHOD PATH" or "start PHASE at PHASE". Without
// its kind a name is the first of these that there is.
func ParseWithout(text string, categories, phases []string) (Without, error) {
	if rest, ok := strings.CutPrefix(text, "start "); ok {
		name, at, ok := strings.Cut(rest, " at ")
		if !ok || !slices.Contains(phases, name) || !slices.Contains(phases, at) || slices.Index(phases, at) >= slices.Index(phases, name) {
			return Without{}, fmt.Errorf("%w: %q is not \"start PHASE at EARLIER-PHASE\"; the phases are %s", ErrWithout, text, strings.Join(phases, ", "))
		}
		return Without{Phase: name, At: at}, nil
	}
	kind, value, _ := strings.Cut(text, ":")
	switch {
	case kind == "category" || slices.Contains(categories, text):
		return Without{Category: strings.TrimPrefix(text, "category:")}, nil
	case kind == "phase" || slices.Contains(phases, text):
		return Without{Phase: strings.TrimPrefix(text, "phase:")}, nil
	case kind == "request":
		return Without{Request: value}, nil
	case strings.Contains(text, " /"):
		return Without{Request: text}, nil
	}
	pattern, err := regexp.Compile(strings.TrimPrefix(text, "function:"))
	if err != nil || text == "" {
		return Without{}, fmt.Errorf("%w: %q is no category, phase, request or regular expression of a function", ErrWithout, text)
	}
	return Without{Function: pattern}, nil
}

// Replay returns how long the window would have been without some work, and how
// much of that work there was in it, on all threads. Everything that waits still
// waits for what it waited for; only how long that takes changes. Who holds the
// CPUs is not replayed: time spent runnable stays as it was, unless it was that
// of the work itself.
func Replay(in Input, without Without) (predicted, work int64) {
	if in.Rules == nil {
		in.Rules = BuiltIn()
	}
	if in.Costs == (Costs{}) {
		in.Costs = DefaultCosts
	}
	w := newWalk(in)
	last := w.last()
	wall := in.Phases.End - in.Phases.Start
	if last == nil {
		return wall, 0
	}
	r := &replay{divider: newDivider(w), without: without, done: map[moment]int64{}, frames: map[locationKey]bool{}}
	predicted = r.at(*last, in.Phases.End)
	if without.At != "" {
		predicted += r.late()
	}
	return predicted, r.work()
}

type replay struct {
	*divider
	without Without
	done    map[moment]int64
	frames  map[locationKey]bool // whether a frame is of the function
}

type moment struct {
	actor
	at int64
}

// at returns when an actor would be where it was at that time, since the start
// of the window.
func (r *replay) at(a actor, at int64) int64 {
	start := r.Phases.Start
	if at <= start {
		return 0
	}
	m := moment{a, at}
	if t, known := r.done[m]; known {
		return t
	}
	r.done[m] = at - start // contradicting events may lead in a circle
	t := r.compute(a, at)
	r.done[m] = t
	return t
}

func (r *replay) compute(a actor, at int64) int64 {
	s := r.before(a, at)
	s.from = max(s.from, r.Phases.Start)
	if s.lost {
		return at - r.Phases.Start
	}
	// What ran between the cause and the end of the wait, or the environment.
	after := func(cause actor, from int64) int64 {
		wait := s
		wait.from = from
		return r.at(cause, from) + r.charged(wait)
	}
	switch {
	case s.cause != nil:
		t := after(*s.cause, min(at, s.causeAt))
		if s.from < at {
			t = max(t, r.at(a, s.from))
		}
		return t
	case s.sent != nil && s.sent.Until < at:
		return max(r.at(a, s.from), after(*r.actorOn(s.sent.Thread, s.sent.Until), s.sent.Until))
	}
	return r.at(a, s.from) + r.charged(s)
}

// charged is the part of a segment that still costs.
func (r *replay) charged(s segment) int64 {
	if s.from >= s.to {
		return 0
	}
	var ns int64
	steps := r.divide(s)
	for n := range steps {
		ns += steps[n].NS() - r.spared(&steps[n])
	}
	return ns
}

// spared is the part of a step that costs nothing.
func (r *replay) spared(x *Step) int64 {
	match := false
	switch {
	case r.without.Category == Measurement:
		return x.MeasurementNS
	case r.without.Category != "":
		match = x.Category == r.without.Category
	case r.without.Phase != "":
		match = x.Phase == r.without.Phase
	case r.without.Request != "":
		match = x.WaitsFor == "request "+r.without.Request
	case r.without.Function != nil:
		match = r.calls(x)
	}
	if !match {
		return 0
	}
	return x.NS()
}

// work is how much of the work there was, on the path and beside it.
func (r *replay) work() (ns int64) {
	path := r.path()
	for _, s := range path {
		steps := r.divide(s)
		for n := range steps {
			ns += r.spared(&steps[n])
		}
	}
	r.beside(path, func(x *Step) { ns += r.spared(x) })
	return ns
}

// calls reports whether the function occurs in a step's stack.
func (r *replay) calls(x *Step) bool {
	if r.Names == nil {
		return false
	}
	for n, address := range x.Stack.User {
		key := locationKey{address: address, kind: uint8(min(n, 1)), process: r.Timeline.Process(x.PID)}
		found, known := r.frames[key]
		if !known {
			l := r.Names.Resolve(x.PID, x.StackAt, address, false, n > 0)
			for _, f := range l.Frames {
				found = found || r.without.Function.MatchString(f.Function)
			}
			r.frames[key] = found
		}
		if found {
			return true
		}
	}
	return false
}

// late is how much later than without any of it the phase ends that starts when
// another one ends: what follows it waits for it where it did.
func (r *replay) late() int64 {
	var begins, ends, since int64
	for _, p := range r.Phases.Phases {
		switch p.Name {
		case r.without.Phase:
			begins, ends = p.Start, p.End
		case r.without.At:
			since = p.End
		}
	}
	if ends == 0 || since == 0 || since > begins {
		return 0
	}
	path := r.path()
	reached := func(at int64) int64 {
		for _, s := range path {
			if s.from < at && at <= s.to {
				if s.life != nil {
					return r.at(actor{life: s.life}, at)
				}
				if s.thread != nil {
					return r.at(actor{thread: s.thread}, at)
				}
			}
		}
		return at - r.Phases.Start
	}
	return max(0, reached(since)+ends-begins-reached(ends))
}
