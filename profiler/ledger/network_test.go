package ledger

import (
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// A goroutine reads what another sends over loopback, and a thread that did not
// sleep finds it ready. The path goes on at the sender, also where its call is
// still under way then.
func TestPathCrossesAConnection(t *testing.T) {
	fork := func(tid int) *trace.Fork { return &trace.Fork{Header: head(105, 10), ChildPID: 10, ChildTID: tid} }
	for name, sent := range map[string]int64{"sent before": 690, "still sending": 750} {
		t.Run(name, func(t *testing.T) {
			tl, err := trace.Build([]trace.Event{
				&trace.Exec{Header: head(100, 10)}, fork(11), fork(12),
				goStatus(106, 10, 1, trace.GoDead, trace.GoRunnable, "IO wait"), goStatus(107, 10, 1, trace.GoRunnable, trace.GoRunning, "IO wait"),
				goStatus(108, 10, 2, trace.GoDead, trace.GoRunnable, "IO wait"), goStatus(109, 12, 2, trace.GoRunnable, trace.GoRunning, "IO wait"),
				onFD(t, 10, "socket", 0, 110, 112, 5), between(onFD(t, 10, "connect", 5, 114, 116, -115), 7001, 80),
				between(onFD(t, 10, "accept4", 3, 120, 122, 6), 80, 7001),
				onFD(t, 10, "read", 5, 200, 205, -11), goStatus(210, 10, 1, trace.GoRunning, trace.GoWaiting, "IO wait"),
				onFD(t, 12, "write", 6, 600, sent, 1),
				onFD(t, 11, "epoll_pwait", 4, 695, 700, 1), goStatus(710, 11, 1, trace.GoWaiting, trace.GoRunnable, "IO wait"),
				goStatus(715, 10, 1, trace.GoRunnable, trace.GoRunning, "IO wait"),
				next(t),
			}, trace.BuildOptions{Arch: "amd64", Stop: 1100})
			if err != nil {
				t.Fatal(err)
			}
			r, err := Compute(Input{Timeline: tl, Costs: Costs{Step: 1}, Goroutines: true, Phases: &phase.Result{
				Start: 100, End: 1000, Reached: true, FirstNext: 1000, Phases: []phase.Phase{{Name: "next", Start: 100, End: 1000}},
			}})
			if err != nil {
				t.Fatal(err)
			}
			var sender int64
			for _, s := range r.Steps {
				if s.WaitsFor != "" {
					t.Errorf("%d ns wait for %s", s.NS(), s.WaitsFor)
				}
				if s.Goroutine != nil && s.Goroutine.ID == 2 && s.Thread != nil && s.Thread.TID == 12 {
					sender += s.NS()
				}
			}
			if sender < 400 {
				t.Errorf("of the path %d ns are the sender's, want what it did from its start to the write", sender)
			}
		})
	}
}
