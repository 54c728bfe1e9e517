package ledger

import (
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// The tracer's share is what its probes were hit for. A goroutine's system calls
// and faults cut what it did into pieces, and no probe is hit there but theirs.
func TestMeasurementIsWhatProbesWereHitFor(t *testing.T) {
	status := func(at int64, from, to trace.GoStatus) trace.Event {
		return &trace.Goroutine{Header: head(at, 10), G: 0xc0, ID: 1, From: from, To: to}
	}
	tl, err := trace.Build([]trace.Event{
		&trace.Exec{Header: head(100, 10)},
		status(200, trace.GoRunnable, trace.GoRunning),
		call(t, 10, "getpid", 300, 320),
		call(t, 10, "getpid", 400, 420),
		&trace.Fault{Header: head(500, 10), End: 520},
		status(600, trace.GoRunning, trace.GoWaiting),
		&trace.Goroutine{Header: head(700, 10), G: 0xc0, ID: 1, Seen: true},
		next(t),
	}, trace.BuildOptions{Arch: "amd64", Stop: 1100})
	if err != nil {
		t.Fatal(err)
	}
	r, err := Compute(Input{Timeline: tl, Costs: Costs{Syscall: 10, Fault: 8, Status: 4, Seen: 1, Mark: 100}, Phases: &phase.Result{
		Start: 100, End: 1000, Reached: true, FirstNext: 1000, Phases: []phase.Phase{{Name: "next", Start: 100, End: 1000}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got int64
	for _, s := range r.Steps {
		got += s.MeasurementNS
	}
	// Two calls, a fault, two changes, one look. The request is at the window's end.
	if want := int64(2*10 + 8 + 2*4 + 1); got != want {
		t.Errorf("measurement is %d ns, want %d", got, want)
	}
}
