// Package phase finds, in the timeline of one cold start, its window and the
// phases that tile it, the spans beside them, and the requests to the runtime
// API.
//
// It stands between symbolize and profile: whoever blames time on a phase asks
// it when. A phase is named by the checkpoint that ends it; all sources (what
// every program passes, declared checkpoints) merge by time.
//
// Clock: CLOCK_MONOTONIC, nanoseconds.
package phase

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Sources of a phase, as reports name them.
const (
	Universal  = "universal"
	Checkpoint = "checkpoint"
)

// Paths of the runtime API that end phases.
const (
	registerPath  = "/2020-01-01/extension/register"
	nextPath      = "/2020-01-01/extension/event/next"
	runtimePath   = "/2018-06-01/runtime/invocation/next"
	telemetryPath = "/2022-07-01/telemetry"
)

// Received is a request as the environment saw it: the fallback where the
// subject's own system calls do not show it, and the source of its status.
type Received struct {
	Method, Path string
	At, Answered int64
	Status       int
}

// Input is one cold start.
type Input struct {
	Timeline   *trace.Timeline // nil: untraced
	SubjectPID int
	AsRuntime  bool
	Released   int64 // t0 of a cold start without timeline
	Received   []Received
}

// Phase is the half-open interval that ends at the checkpoint of its name.
type Phase struct {
	Name, Source string
	Start, End   int64
}

// Span is declared work that may overlap with other work.
type Span struct {
	Name       string
	ID         uint64
	Start, End int64
	Overlap    int64 // ns of it in which another span was open too
}

// Request is one request to the runtime API.
type Request struct {
	Method, Path string
	Start        int64 // entry of the call that sent it
	End          int64 // return of the call that read the answer; 0: unanswered in the window
	Status       int   // 0 if unknown
}

// Result is what was found.
type Result struct {
	Start, End int64 // the window; End is 0 where /next was not reached
	Phases     []Phase
	Spans      []Span
	Requests   []Request
	Warnings   []string
}

// At returns the name of the phase that holds a time, or "" outside the window.
func (r *Result) At(at int64) string {
	i, found := slices.BinarySearchFunc(r.Phases, at, func(p Phase, at int64) int {
		switch {
		case p.End <= at:
			return -1
		case p.Start > at:
			return 1
		}
		return 0
	})
	if !found {
		return ""
	}
	return r.Phases[i].Name
}

// boundary ends a phase.
type boundary struct {
	at           int64
	name, source string
}

// Find finds the window and what tiles it. A cold start that did not reach
// /next has a window up to the end of its recording, without the phase next.
func Find(in Input) Result {
	if in.Timeline == nil {
		return fromReceived(in)
	}
	var r Result
	tl := in.Timeline
	exec := firstExec(tl, in.SubjectPID)
	if exec == nil {
		r.Warnings = append(r.Warnings, "no exec of the subject was seen: there are no phases")
		return r
	}
	r.Start = exec.Begin
	var ends []boundary
	ends = append(ends, boundary{exec.Until, "exec", Universal})
	r.Requests = requests(tl, exec.Begin)
	want := nextPath
	if in.AsRuntime {
		want = runtimePath
	}
	limit := tl.Stop
	for _, q := range r.Requests {
		if q.Path == want {
			r.End, limit = q.Start, q.Start
			break
		}
	}
	if r.End == 0 {
		for _, q := range in.Received {
			if q.Path == want && q.At > r.Start {
				r.End, limit = q.At, q.At
				r.Warnings = append(r.Warnings, "the request for /next was not seen in the subject's system calls: the window ends where the environment received it")
				break
			}
		}
	}
	r.Requests = slices.DeleteFunc(r.Requests, func(q Request) bool { return q.Start > limit })
	r.join(in.Received)
	ends = append(ends, r.marks(tl, in.SubjectPID, limit)...)
	for _, q := range r.Requests {
		if q.End == 0 || q.End > limit {
			continue
		}
		switch q.Path {
		case registerPath:
			ends = append(ends, boundary{q.End, "register", Universal})
		case telemetryPath:
			ends = append(ends, boundary{q.End, "telemetry_subscribe", Universal})
		}
	}
	if r.End != 0 {
		ends = append(ends, boundary{r.End, "next", Universal})
	}
	r.tile(ends, limit)
	return r
}

// fromReceived knows only what the environment saw.
func fromReceived(in Input) Result {
	r := Result{Start: in.Released}
	var ends []boundary
	for _, q := range in.Received {
		r.Requests = append(r.Requests, Request{Method: q.Method, Path: q.Path, Start: q.At, End: q.Answered, Status: q.Status})
		switch {
		case r.End != 0:
		case q.Path == registerPath && q.Answered != 0:
			ends = append(ends, boundary{q.Answered, "register", Universal})
		case q.Path == telemetryPath && q.Answered != 0:
			ends = append(ends, boundary{q.Answered, "telemetry_subscribe", Universal})
		case q.Path == nextPath && !in.AsRuntime, q.Path == runtimePath && in.AsRuntime:
			r.End = q.At
			ends = append(ends, boundary{q.At, "next", Universal})
		}
	}
	if r.End != 0 {
		r.tile(ends, r.End)
	}
	return r
}

// firstExec is the first execve of the subject that succeeded.
func firstExec(tl *trace.Timeline, pid int) *trace.Call {
	for _, e := range tl.Execs {
		if e.PID != pid {
			continue
		}
		for _, c := range tl.Calls {
			if c.Path != "" && c.PID == pid && c.Begin <= e.Time && e.Time <= c.Until &&
				strings.HasPrefix(tl.SyscallName(c.Syscall), "execve") {
				return c
			}
		}
	}
	return nil
}

// requests finds the requests in the system calls since the exec, each with the
// call that read its answer: the first that returned data on the descriptor.
func requests(tl *trace.Timeline, from int64) []Request {
	type connection struct {
		pid int
		fd  uint64
	}
	open := map[connection]int{}
	var found []Request
	for _, c := range tl.Calls {
		if c.Begin < from {
			continue
		}
		id := connection{c.PID, c.Args[0]}
		if c.Request != nil {
			open[id] = len(found)
			found = append(found, Request{Method: c.Request.Method, Path: c.Request.Path, Start: c.Begin})
			continue
		}
		if i, ok := open[id]; ok && tl.Reads(c) && c.Returned() && c.Return > 0 {
			found[i].End = c.Until
			delete(open, id)
		} else if ok && tl.SyscallName(c.Syscall) == "close" {
			delete(open, id)
		}
	}
	slices.SortStableFunc(found, func(a, b Request) int { return cmp.Compare(a.Start, b.Start) })
	return found
}

// join gives the requests the statuses that the environment answered.
func (r *Result) join(received []Received) {
	used := make([]bool, len(received))
	for i := range r.Requests {
		for k, q := range received {
			if !used[k] && q.Path == r.Requests[i].Path && q.Method == r.Requests[i].Method {
				used[k], r.Requests[i].Status = true, q.Status
				break
			}
		}
	}
}

// marks turns the subject's marks into phase ends and spans.
func (r *Result) marks(tl *trace.Timeline, pid int, limit int64) []boundary {
	var ends []boundary
	type key struct {
		name string
		id   uint64
	}
	open := map[key]int64{}
	for _, m := range tl.Marks {
		if m.Time < r.Start || m.Time > limit {
			continue
		}
		switch m.Kind {
		case trace.MarkEntry:
			if m.PID == pid {
				ends = append(ends, boundary{m.Time, "loader", Universal})
			}
		case trace.MarkMain:
			if m.PID == pid {
				ends = append(ends, boundary{m.Time, "runtime_init", Universal})
			}
		case trace.MarkCheckpoint:
			ends = append(ends, boundary{m.Time, m.Name, Checkpoint})
		case trace.MarkSpanBegin:
			open[key{m.Name, m.ID}] = m.Time
		case trace.MarkSpanEnd:
			if begin, ok := open[key{m.Name, m.ID}]; ok {
				delete(open, key{m.Name, m.ID})
				r.Spans = append(r.Spans, Span{Name: m.Name, ID: m.ID, Start: begin, End: m.Time})
			}
		}
	}
	slices.SortStableFunc(r.Spans, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	for i := range r.Spans {
		r.Spans[i].Overlap = overlap(r.Spans, i)
	}
	return ends
}

// overlap is how long another span was open within span i.
func overlap(spans []Span, i int) int64 {
	var total int64
	at := spans[i].Start
	for k, s := range spans { // by start
		if k == i || s.End <= at || s.Start >= spans[i].End {
			continue
		}
		from, to := max(at, s.Start), min(spans[i].End, s.End)
		total += to - from
		at = to
	}
	return total
}

// tile makes the phases: each begins where the one before it ends.
func (r *Result) tile(ends []boundary, limit int64) {
	slices.SortStableFunc(ends, func(a, b boundary) int { return cmp.Compare(a.at, b.at) })
	seen := map[string]int{}
	at := r.Start
	for _, e := range ends {
		if e.at < at || e.at > limit {
			continue
		}
		seen[e.name]++
		if n := seen[e.name]; n > 1 {
			e.name = fmt.Sprintf("%s#%d", e.name, n)
		}
		r.Phases = append(r.Phases, Phase{Name: e.name, Source: e.source, Start: at, End: e.at})
		at = e.at
	}
}
