package phase

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/initprof/initprof/profiler/trace"
)

// Source tells who named a checkpoint.
type Source string

// The sources, named as in reports.
const (
	Universal  Source = "universal"
	Checkpoint Source = "checkpoint"
	ByRule     Source = "rule"
)

// Names of the universal phases, and of the one that a cold start did not end.
const (
	Exec               = "exec"
	Loader             = "loader"
	RuntimeInit        = "runtime_init"
	Register           = "register"
	TelemetrySubscribe = "telemetry_subscribe"
	Next               = "next"
	Exit               = "exit"
	Unfinished         = "unfinished"
)

// Subscribe outcomes; "" is unknown.
const (
	SubscribeOK      = "ok"
	SubscribeRefused = "refused"
	SubscribePending = "pending" // unanswered at the end of the window
	SubscribeNone    = "none"
)

// Input is a cold start. All times are CLOCK_MONOTONIC nanoseconds.
type Input struct {
	Timeline *trace.Timeline // nil: not traced; phases then rest on Received alone
	PID      int             // of the released task; 0: of the first exec
	Release  int64           // of the holder: the window's start where no exec was seen
	Runtime  bool            // the subject is a function's runtime, not an extension
	Until    Until           // the window's end
	Rules    []Rule
	Received []Received // the subject's requests as the environment saw them, by time
	Logs     []LogLine  // for rules and ends that match output
}

// Received is a request of the subject as the environment saw it.
type Received struct {
	Method, Path string
	At           int64 // received
	Answered     int64 // 0: not
	Status       int
}

// LogLine is a line that the subject printed.
type LogLine struct {
	FD   int   // 1 or 2
	End  int64 // bytes of that stream up to and with this line; 0: unknown
	Read int64 // when it was read from the pipe
	Text string
}

// Result is the window and what it divides into.
type Result struct {
	Start, End int64
	Reached    bool // the chosen end; otherwise End is where the subject or the recording ended
	Traced     bool // Start is the entry of execve, otherwise the release

	Phases           []Phase // tile [Start, End)
	Spans            []Span  // by start
	Requests         []Request
	SubscribeOutcome string
	FirstNext        int64 // entry of the call that carried the first /next, 0: none
	Warnings         []string
}

// Phase is a part of the window.
type Phase struct {
	Name       string
	Source     Source
	Start, End int64
	Fallback   bool // End is the environment's time of receipt or reading, not the subject's
}

// point is a checkpoint.
type point struct {
	name     string
	source   Source
	at       int64
	fallback bool
}

// Compute finds the window and its phases. The error is that of Check; what a
// recording lacks is a warning.
func Compute(in Input) (*Result, error) {
	r := &Result{}
	c := &computation{Input: in, Result: r}
	c.start()
	c.requests()
	points := c.universal()
	points = append(points, c.declared()...)
	points = append(points, c.byRules()...)
	end := c.end()
	ended := r.Start
	if c.Timeline != nil {
		ended = c.Timeline.Stop
		if p := c.Timeline.Process(c.PID); p != nil {
			ended = p.End
		}
	}
	r.divide(points, end, ended)
	c.subscribe()
	c.spans(points)
	if err := r.Check(); err != nil {
		return nil, err
	}
	return r, nil
}

type computation struct {
	Input
	*Result
	execs []execution // of the released task
}

// execution is one exec of the released task.
type execution struct {
	*trace.Exec
	entry, done int64 // of the execve call
}

func (c *computation) warn(format string, args ...any) {
	c.Warnings = append(c.Warnings, fmt.Sprintf(format, args...))
}

func (c *computation) start() {
	c.Start = c.Release
	if c.Timeline == nil {
		return
	}
	for _, e := range c.Timeline.Execs {
		if c.PID == 0 {
			c.PID = e.PID
		}
		if e.PID != c.PID || e.Time < c.Release {
			continue
		}
		x := execution{Exec: e, entry: e.Time, done: e.Time}
		if t := c.Timeline.Thread(e.TID, e.Time); t != nil {
			for _, call := range t.Calls {
				if call.Begin <= e.Time && e.Time <= call.Until {
					x.entry = call.Begin
					if call.Returned() {
						x.done = call.Until
					}
				}
			}
		}
		c.execs = append(c.execs, x)
	}
	if len(c.execs) == 0 {
		c.warn("no exec of the subject was recorded: the window begins at its release")
		return
	}
	c.Start, c.Traced = c.execs[0].entry, true
}

// universal lists the points that every program passes.
func (c *computation) universal() []point {
	var points []point
	add := func(name string, at int64, fallback bool) {
		points = append(points, point{name, Universal, at, fallback})
	}
	for n, x := range c.execs {
		add(Exec, x.done, false)
		until := int64(1<<63 - 1)
		if n+1 < len(c.execs) {
			until = c.execs[n+1].entry
		}
		entered, reached := false, false
		for _, m := range c.Timeline.Marks {
			if m.PID != c.PID || m.Time < x.Time || m.Time >= until {
				continue
			}
			if m.Kind == trace.MarkEntry && x.Base != 0 && !entered {
				entered = true
				add(Loader, m.Time, false)
			}
			if m.Kind == trace.MarkMain && !reached {
				reached = true
				add(RuntimeInit, m.Time, false)
			}
		}
		if at := c.initialised(x.Time, until); at != 0 && x.Base != 0 && !entered {
			entered = true
			add(Loader, at, false)
		}
		if x.Base != 0 && !entered && until == 1<<63-1 {
			c.warn("the program's entry was not seen: the loader's time stands in the phase that follows it")
		}
	}
	for _, q := range c.Requests {
		switch {
		case q.End == 0:
		case q.isRegister():
			add(Register, q.End, q.Fallback)
		case q.isSubscribe():
			add(TelemetrySubscribe, q.End, q.Fallback)
		}
	}
	return points
}

// initialised returns when glibc's loader returned from _dl_init, its last work
// before it jumps to the program's entry; 0 if that was not probed.
func (c *computation) initialised(from, until int64) int64 {
	for _, f := range c.Timeline.Functions {
		if f.PID == c.PID && f.Name == "_dl_init" && f.End != 0 && f.Time >= from && f.Time < until {
			return f.End
		}
	}
	return 0
}

func (c *computation) declared() []point {
	var points []point
	if c.Timeline != nil {
		for _, m := range c.Timeline.Marks {
			if m.Kind == trace.MarkCheckpoint {
				points = append(points, point{name: m.Name, source: Checkpoint, at: m.Time})
			}
		}
	}
	return points
}

// end finds the point that ends the window; its at is 0 if it was not reached.
func (c *computation) end() point {
	var next point
	for _, q := range c.Requests {
		if q.isNext(c.Runtime) {
			c.FirstNext = q.Start
			next = point{Next, Universal, q.Start, q.Fallback}
			break
		}
	}
	switch c.Until.Kind {
	case UntilExit:
		p := point{name: Exit, source: Universal}
		if c.Timeline != nil {
			for _, e := range c.Timeline.Exits {
				if e.PID == c.PID && e.GroupDead {
					p.at = e.Time
				}
			}
		}
		return p
	case UntilLog:
		for _, line := range c.Logs {
			if c.Until.pattern.MatchString(line.Text) {
				at, fallback := c.printed(line)
				return point{"log", ByRule, at, fallback}
			}
		}
		return point{}
	case UntilSymbol:
		if c.Timeline != nil {
			for _, m := range c.Timeline.Marks {
				if m.Kind == trace.MarkSymbol && m.Name == c.Until.Symbol {
					return point{name: "symbol", source: ByRule, at: m.Time}
				}
			}
		}
		return point{}
	}
	return next
}

// divide tiles the window. Points outside of it make no phase.
// Where the end was not reached, the window is what was recorded of the subject.
func (r *Result) divide(points []point, end point, ended int64) {
	r.End, r.Reached = end.at, end.at > r.Start
	last := max(r.Start, ended)
	for _, p := range points {
		last = max(last, p.at)
	}
	if !r.Reached {
		r.End = last
		end = point{name: Unfinished, source: Universal, at: r.End}
	}
	slices.SortStableFunc(points, func(x, y point) int { return cmp.Compare(x.at, y.at) })
	seen := map[string]int{}
	at := r.Start
	add := func(p point) {
		seen[p.name]++
		name := p.name
		if n := seen[p.name]; n > 1 {
			name = fmt.Sprintf("%s#%d", name, n)
		}
		r.Phases = append(r.Phases, Phase{Name: name, Source: p.source, Start: at, End: p.at, Fallback: p.fallback})
		at = p.at
	}
	for _, p := range points {
		if p.at >= at && p.at > r.Start && p.at < r.End {
			add(p)
		} else if p.at == r.End && !r.Reached && p.at > r.Start {
			add(p)
		}
	}
	if at < r.End || r.Reached {
		add(end)
	}
}

// At returns the phase that holds time t, nil outside of the window.
func (r *Result) At(t int64) *Phase {
	for n := range r.Phases {
		if p := &r.Phases[n]; p.Start <= t && t < p.End {
			return p
		}
	}
	return nil
}

// Check verifies that the phases tile the window and carry distinct names.
func (r *Result) Check() error {
	at := r.Start
	names := map[string]bool{}
	for _, p := range r.Phases {
		if p.Start != at || p.End < p.Start {
			return fmt.Errorf("phase %s is [%d, %d) where the one before it ends at %d", p.Name, p.Start, p.End, at)
		}
		if names[p.Name] {
			return fmt.Errorf("two phases are named %s", p.Name)
		}
		names[p.Name] = true
		at = p.End
	}
	if at != r.End {
		return fmt.Errorf("the phases end at %d, the window at %d", at, r.End)
	}
	return nil
}
