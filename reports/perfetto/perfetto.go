// Package perfetto writes one cold start as a trace that the Perfetto UI and
// chrome://tracing open: tracks of its phases, goroutines and threads, and
// arrows from what made a goroutine ready to the goroutine.
//
// The format is the JSON of Chrome's Trace Event Format.
package perfetto

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// ColdStart is what a trace shows.
type ColdStart struct {
	Timeline *trace.Timeline
	Phases   *phase.Result // nothing outside of its window is shown
	Title    string        // of the subject
	// Function names the first function of a goroutine; nil or "": by ID alone.
	Function func(*trace.GoroutineLife) string
}

// event is an entry of traceEvents. Times are microseconds since exec.
type event struct {
	Name     string         `json:"name"`
	Category string         `json:"cat,omitempty"`
	Phase    string         `json:"ph"`
	Time     microseconds   `json:"ts"`
	Duration *microseconds  `json:"dur,omitempty"`
	Process  int            `json:"pid"`
	Thread   int            `json:"tid"`
	ID       int            `json:"id,omitempty"`
	Binding  string         `json:"bp,omitempty"`
	Args     map[string]any `json:"args,omitempty"`
}

// microseconds are written with three decimals, so that no nanosecond is lost.
type microseconds int64

// MarshalJSON writes nanoseconds as microseconds.
func (m microseconds) MarshalJSON() ([]byte, error) {
	return fmt.Appendf(nil, "%d.%03d", m/1000, m%1000), nil
}

// Tracks that are no processes of the subject. Its own have their PIDs, which
// begin at 1 too; these lie above the largest that Linux gives (2^22).
const (
	phasesProcess     = 1 << 23
	goroutinesProcess = phasesProcess + 1
)

// Write writes a trace, gzip-compressed. It fails if there is nothing to show,
// or w fails.
func Write(w io.Writer, c ColdStart) error {
	if c.Timeline == nil || c.Phases == nil {
		return errors.New("a trace needs a traced cold start with a window")
	}
	z := gzip.NewWriter(w)
	out := bufio.NewWriter(z)
	t := &writer{ColdStart: c, from: c.Phases.Start, to: c.Phases.End, out: out}
	t.begin()
	t.phases()
	t.goroutines()
	t.threads()
	t.end()
	return errors.Join(t.err, out.Flush(), z.Close())
}

type writer struct {
	ColdStart
	from, to int64
	out      *bufio.Writer
	events   int
	flows    int
	err      error
}

func (t *writer) begin() {
	title, err := json.Marshal(t.Title)
	t.err = err
	_, _ = fmt.Fprintf(t.out, `{"displayTimeUnit":"ns","otherData":{"subject":%s,"clock":"since exec"},"traceEvents":[`, title) // Flush tells
}

func (t *writer) end() { _, _ = t.out.WriteString("\n]}\n") }

func (t *writer) add(e event) {
	b, err := json.Marshal(e)
	if err != nil {
		t.err = cmp.Or(t.err, err)
		return
	}
	if t.events > 0 {
		_ = t.out.WriteByte(',')
	}
	_ = t.out.WriteByte('\n')
	_, _ = t.out.Write(b)
	t.events++
}

// name names a track, and puts it where it belongs.
func (t *writer) name(what, name string, process, thread, order int) {
	t.add(event{Name: what + "_name", Phase: "M", Process: process, Thread: thread, Args: map[string]any{"name": name}})
	t.add(event{Name: what + "_sort_index", Phase: "M", Process: process, Thread: thread, Args: map[string]any{"sort_index": order}})
}

func (t *writer) slice(name, category string, from, to int64, process, thread int, args map[string]any) {
	d := microseconds(to - from)
	t.add(event{Name: name, Category: category, Phase: "X", Time: microseconds(from - t.from), Duration: &d, Process: process, Thread: thread, Args: args})
}

func (t *writer) phases() {
	t.name("process", "phases", phasesProcess, 0, 0)
	t.name("thread", "phases", phasesProcess, 1, 0)
	for _, p := range t.Phases.Phases {
		t.slice(p.Name, "phase", p.Start, p.End, phasesProcess, 1, nil)
	}
	for i, s := range t.Phases.Spans {
		thread := 2 + i // spans may overlap
		t.name("thread", "span "+s.Name, phasesProcess, thread, thread)
		t.slice(s.Name, "span", s.Start, s.End, phasesProcess, thread, nil)
	}
}

// states are the names of what a goroutine does.
var states = [trace.GoStateCount]string{"running", "thread waits for a CPU", "page fault", "syscall", "runnable", "waiting"}

func (t *writer) goroutines() {
	if len(t.Timeline.Goroutines) == 0 {
		return
	}
	t.name("process", "goroutines", goroutinesProcess, 0, 1)
	for order, g := range t.Timeline.Goroutines {
		track := track(g)
		named := false
		for i := range g.Between(t.from, t.to) {
			if !named {
				t.name("thread", t.label(g), goroutinesProcess, track, order)
				named = true
			}
			if i.Reason == trace.NotSeen {
				continue
			}
			name, args := states[i.State], map[string]any{}
			switch {
			case i.Call != nil:
				name = t.Timeline.SyscallName(i.Call.Syscall)
			case i.Reason != "":
				name = i.Reason
			}
			if i.Thread != nil {
				args["thread"] = i.Thread.TID
			}
			if i.Ready != nil {
				args["ready_by"] = t.readyBy(i.Ready)
			}
			t.slice(name, "goroutine,"+i.State.String(), i.Start, i.End, goroutinesProcess, track, args)
		}
		t.arrows(g)
	}
}

// arrows are drawn from whoever made a goroutine ready, at that time, to where
// it went on. A waker that is no goroutine is shown on the thread it ran on.
func (t *writer) arrows(g *trace.GoroutineLife) {
	for n := range g.Intervals {
		i := &g.Intervals[n]
		if i.State != trace.GoCanRun || i.Ready == nil || i.Ready.Source == trace.ReadyByScheduler || n+1 == len(g.Intervals) ||
			i.Ready.Time < t.from || i.End >= t.to {
			continue
		}
		t.flows++
		from := event{Name: "ready", Category: "ready", Phase: "s", Time: microseconds(i.Ready.Time - t.from), ID: t.flows}
		switch {
		case i.Ready.By != nil:
			from.Process, from.Thread = goroutinesProcess, track(i.Ready.By)
		case i.Ready.Thread != nil:
			from.Process, from.Thread = i.Ready.Thread.PID, i.Ready.Thread.TID
		}
		t.add(from)
		t.add(event{
			Name: "ready", Category: "ready", Phase: "f", Binding: "e", Time: microseconds(i.End - t.from), ID: t.flows,
			Process: goroutinesProcess, Thread: track(g),
		})
	}
}

// track is a goroutine's number among the tracks, which must fit 32 bits.
func track(g *trace.GoroutineLife) int { return int(g.ID & (1<<31 - 1)) }

func (t *writer) label(g *trace.GoroutineLife) string {
	label := fmt.Sprintf("G%d", g.ID)
	if t.Function != nil {
		if f := t.Function(g); f != "" {
			label += " " + f
		}
	}
	return label
}

func (t *writer) readyBy(r *trace.Ready) string {
	if r.By != nil {
		return t.label(r.By)
	}
	return r.Source.String()
}

func (t *writer) threads() {
	named := map[int]bool{}
	for order, thread := range t.Timeline.Threads {
		first := true
		for i := range thread.Between(t.from, t.to) {
			if first {
				if !named[thread.PID] {
					named[thread.PID] = true
					t.name("process", fmt.Sprintf("threads of process %d", thread.PID), thread.PID, 0, 2+len(named))
				}
				t.name("thread", thread.Label(), thread.PID, thread.TID, order)
				first = false
			}
			name, args := i.State.String(), map[string]any{}
			if i.Syscall != nil {
				name = t.Timeline.SyscallName(i.Syscall.Syscall)
				if i.State == trace.StateWaiting || i.State == trace.StateRunnable {
					name += " (" + i.State.String() + ")"
				}
			}
			if g := thread.GoroutineAt(i.Start); g != nil {
				args["goroutine"] = t.label(g)
			}
			if i.Behind != nil && i.State == trace.StateRunnable {
				args["behind"] = i.Behind.Comm
			}
			t.slice(name, "thread,"+i.State.String(), i.Start, i.End, thread.PID, thread.TID, args)
		}
	}
	for _, m := range t.Timeline.Marks {
		if m.Name != "" && m.Time >= t.from && m.Time < t.to {
			t.add(event{Name: m.Name, Category: "mark", Phase: "i", Time: microseconds(m.Time - t.from), Process: m.PID, Thread: m.TID})
		}
	}
}
