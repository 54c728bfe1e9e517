package ledger

import (
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// goStatus is a change of a goroutine's status.
func goStatus(at int64, tid int, g uint64, from, to trace.GoStatus, reason string) *trace.Goroutine {
	return &trace.Goroutine{Header: head(at, tid), G: 0xc000 + g, ID: g, From: from, To: to, Reason: reason, StartPC: g}
}

// onFD is a call on a descriptor.
func onFD(t *testing.T, tid int, name string, fd uint64, begin, end, result int64) *trace.Syscall {
	t.Helper()
	c := call(t, tid, name, begin, end)
	c.Args[0], c.Return = fd, result
	return c
}

// between tells of a call that makes a connection the two ends.
func between(c *trace.Syscall, near, far uint64) *trace.Syscall {
	c.Args[4], c.Args[5] = near, far
	return c
}

// Goroutine 1 on thread 10 reads nothing from descriptor 5 and parks; thread 11,
// which polls, makes it ready. Who wrote is the question.
func TestPeers(t *testing.T) {
	connect := func(fd uint64, near, far uint64, begin int64) *trace.Syscall {
		return between(onFD(t, 10, "connect", fd, begin, begin+2, -115), near, far)
	}
	accept := func(fd int64, near, far uint64, begin int64) *trace.Syscall {
		return between(onFD(t, 10, "accept4", 3, begin, begin+2, fd), near, far)
	}
	fork := func(tid int) *trace.Fork { return &trace.Fork{Header: head(105, 10), ChildPID: 10, ChildTID: tid} }
	begin := []trace.Event{
		&trace.Exec{Header: head(100, 10)}, fork(11), fork(12),
		goStatus(106, 10, 1, trace.GoDead, trace.GoRunnable, ""), goStatus(107, 10, 1, trace.GoRunnable, trace.GoRunning, ""),
		goStatus(108, 10, 2, trace.GoDead, trace.GoRunnable, ""), goStatus(109, 12, 2, trace.GoRunnable, trace.GoRunning, ""),
		onFD(t, 10, "socket", 0, 110, 112, 5), connect(5, 7001, 80, 114),
		onFD(t, 10, "read", 5, 200, 205, -11), goStatus(210, 10, 1, trace.GoRunning, trace.GoWaiting, "IO wait"),
	}
	ready := goStatus(710, 11, 1, trace.GoWaiting, trace.GoRunnable, "")
	polled := func(found int64) *trace.Syscall { return onFD(t, 11, "epoll_pwait", 4, 300, 705, found) }
	wrote := func(fd uint64) *trace.Syscall { return onFD(t, 12, "write", fd, 600, 620, 1) }
	sleeps, woken := swtch(310, 11, 0, trace.SwitchSleeping), swtch(630, 0, 11, trace.SwitchPreempted)
	wakes := &trace.Waking{Header: head(610, 12), TargetPID: 10, TargetTID: 11, Context: trace.WakeNetwork}
	request := onFD(t, 10, "write", 5, 190, 195, 1)
	request.Request = &trace.Request{Method: "POST", Path: "/2020-01-01/extension/register"}
	unknown := connect(5, 0, 0, 114)

	for _, c := range []struct {
		name   string
		events []trace.Event
		want   string
	}{
		{"the other end's write, of two descriptors that were ready", []trace.Event{accept(6, 80, 7001, 120), wrote(6), polled(2), ready}, "goroutine 2"},
		{"a write after epoll had come back", []trace.Event{accept(6, 80, 7001, 120), onFD(t, 12, "write", 6, 706, 709, 1), polled(1), ready}, ""},
		{"another connection's write", []trace.Event{accept(6, 80, 7002, 120), wrote(6), sleeps, wakes, woken, polled(1), ready}, ""},
		{"room in a buffer that was full, which is nobody's write", []trace.Event{accept(6, 80, 7001, 120), onFD(t, 10, "write", 5, 206, 208, -11), wrote(6), polled(2), ready}, ""},
		{"the environment's answer", []trace.Event{request, polled(1), ready}, "POST /2020-01-01/extension/register"},
		{"a deadline", []trace.Event{polled(0), ready}, "timer"},
		{"ends not known: the write that woke the poller", []trace.Event{unknown, accept(6, 0, 0, 120), wrote(6), sleeps, wakes, woken, polled(1), ready}, "goroutine 2"},
		{"ends not known: one write, two ready", []trace.Event{unknown, accept(6, 0, 0, 120), wrote(6), sleeps, wakes, woken, polled(2), ready}, ""},
		{"ends not known: the poller was only interrupted by an eventfd", []trace.Event{
			unknown, onFD(t, 10, "eventfd2", 0, 120, 122, 6), wrote(6), sleeps, wakes, woken, polled(1), ready,
		}, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tl, err := trace.Build(append(append([]trace.Event{}, begin...), c.events...), trace.BuildOptions{Arch: "amd64", Stop: 1000})
			if err != nil {
				t.Fatal(err)
			}
			phases := &phase.Result{Start: 100, End: 1000, Requests: []phase.Request{{PID: 10, Path: "/2020-01-01/extension/register", Start: 190, End: 800}}}
			g := tl.Goroutines[0]
			peer := NewPeers(Input{Timeline: tl, Phases: phases, Goroutines: true}).Of(g, g.Intervals[len(g.Intervals)-1].Ready)
			got := peer.Request
			switch {
			case peer.Goroutine != nil:
				got = "goroutine " + string(rune('0'+peer.Goroutine.ID))
			case peer.Thread != nil:
				got = "thread"
			case peer.Timer:
				got = "timer"
			}
			if got != c.want {
				t.Errorf("made ready by %q, want %q", got, c.want)
			}
		})
	}
}
