package ledger

import (
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

func head(at int64, tid int) trace.Header { return trace.Header{Time: at, PID: 10, TID: tid} }

// swtch is CPU 0 going from one thread to another; 0 is the idle one.
func swtch(at int64, from, to int, state trace.SwitchState) *trace.Switch {
	s := &trace.Switch{Header: trace.Header{Time: at, PID: 10, TID: from}, State: state, NextPID: 10, NextTID: to}
	if from == 0 {
		s.PID = 0
	}
	if to == 0 {
		s.NextPID = 0
	}
	return s
}

func call(t testing.TB, tid int, name string, begin, end int64) *trace.Syscall {
	t.Helper()
	nr, ok := trace.SyscallNumber("amd64", name)
	if !ok {
		t.Fatalf("no system call %s", name)
	}
	return &trace.Syscall{Header: head(begin, tid), End: end, Number: nr}
}

// account builds what thread 10 did from 100 to 1000.
func account(t testing.TB, events ...trace.Event) *Result {
	t.Helper()
	tl, err := trace.Build(events, trace.BuildOptions{Arch: "amd64", Stop: 1100})
	if err != nil {
		t.Fatal(err)
	}
	phases := &phase.Result{Start: 100, End: 1000, Reached: true, FirstNext: 1000, Phases: []phase.Phase{
		{Name: "a", Start: 100, End: 600}, {Name: "next", Start: 600, End: 1000},
	}}
	r, err := Compute(Input{Timeline: tl, Phases: phases, Costs: Costs{Step: 1}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// path writes the steps, neighbours of a kind taken together.
func path(r *Result) string {
	var parts []string
	last := ""
	for i := range r.Steps {
		s := &r.Steps[i]
		tid := "?"
		if s.Thread != nil {
			tid = string(rune('0'+s.Thread.TID/10)) + string(rune('0'+s.Thread.TID%10))
		}
		text := strings.TrimSpace(tid + " " + s.State.String() + " " + string(s.Wait))
		if text != last {
			parts = append(parts, text)
		}
		last = text
	}
	return strings.Join(parts, ", ")
}

func next(t testing.TB) *trace.Syscall {
	c := call(t, 10, "write", 1000, 1010)
	c.Request = &trace.Request{Method: "GET", Path: "/2020-01-01/extension/event/next"}
	return c
}

func TestPaths(t *testing.T) {
	exec := &trace.Exec{Header: head(100, 10)}
	read := func() *trace.Syscall { return call(t, 10, "read", 300, 710) }
	sleeps := swtch(310, 10, 11, trace.SwitchSleeping)
	fork := &trace.Fork{Header: head(200, 10), ChildPID: 10, ChildTID: 11}
	wake := func(by, pid int, context trace.WakeContext) *trace.Waking {
		return &trace.Waking{Header: trace.Header{Time: 700, PID: pid, TID: by}, TargetPID: 10, TargetTID: 10, Context: context, Comm: "other"}
	}
	back := swtch(705, 11, 10, trace.SwitchPreempted)
	for _, c := range []struct {
		name, want string
		unknown    int64
		events     []trace.Event
	}{
		{"alone", "10 user", 0, []trace.Event{exec, next(t)}},
		{
			"by a thread", "10 user, 11 runnable, 11 user, 10 runnable, 10 kernel, 10 user", 0,
			[]trace.Event{exec, fork, read(), sleeps, wake(11, 10, trace.WakeTask), back, next(t)},
		},
		{
			"by a timer", "10 user, 10 kernel, 10 waiting timer, 10 runnable, 10 kernel, 10 user", 0,
			[]trace.Event{exec, fork, read(), sleeps, wake(11, 10, trace.WakeTimer), back, next(t)},
		},
		{
			"by another process", "10 user, 10 kernel, 10 waiting process, 10 runnable, 10 kernel, 10 user", 0,
			[]trace.Event{exec, fork, read(), sleeps, wake(77, 77, trace.WakeTask), back, next(t)},
		},
		{
			"by what was merely interrupted", "10 user, 10 kernel, 10 waiting unknown, 10 runnable, 10 kernel, 10 user", 390,
			[]trace.Event{exec, fork, read(), sleeps, wake(11, 10, trace.WakeSoftirq), back, next(t)},
		},
		{
			"by nobody known", "10 user, 10 kernel, 10 waiting unknown, 10 kernel, 10 user", 395,
			[]trace.Event{exec, fork, read(), sleeps, back, next(t)},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := account(t, c.events...)
			if got := path(r); got != c.want || r.UnknownWakerNS != c.unknown {
				t.Errorf("%s, unknown for %d ns; want %s, %d", path(r), r.UnknownWakerNS, c.want, c.unknown)
			}
		})
	}
}

// User time between two events of one category is measured; between events of
// different ones each gets a half, and the cell says how unsure it is.
func TestUserTimeIsDividedAtStacks(t *testing.T) {
	names := frames{functions: []string{"crypto/tls.Handshake", "os.Getenv"}}
	tl, err := trace.Build([]trace.Event{
		&trace.Exec{Header: head(100, 10)},
		&trace.Sample{Header: head(400, 10), Stack: trace.Stack{User: []uint64{1}}},
		&trace.Sample{Header: head(800, 10), Stack: trace.Stack{User: []uint64{2}}},
		next(t),
	}, trace.BuildOptions{Arch: "amd64", Stop: 1100})
	if err != nil {
		t.Fatal(err)
	}
	in := Input{Timeline: tl, Names: names, Costs: Costs{Sample: 10}, Phases: &phase.Result{
		Start: 100, End: 1000, Reached: true, FirstNext: 1000, Phases: []phase.Phase{{Name: "next", Start: 100, End: 1000}},
	}}
	r, err := Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Cell{}
	for _, c := range r.Cells() {
		got[c.Category] = c
	}
	// crypto up to 400 and half of 400…800; config the rest. 20 ns are the samples'.
	if c := got["crypto"]; c.NS != 490 || !c.Sampled || c.Variance == 0 {
		t.Errorf("crypto %+v, want 490 ns, sampled", c)
	}
	if c := got["config"]; c.NS != 390 || c.Samples != 1 {
		t.Errorf("config %+v, want 390 ns bounded by one sample", c)
	}
	if c := got[Measurement]; c.NS != 20 {
		t.Errorf("measurement %+v, want 20 ns", c)
	}
	if predicted, work := Replay(in, Without{Category: "crypto"}); predicted != 400 || work != 500 {
		t.Errorf("without crypto %d ns, %d ns less work; want 400 and 500", predicted, work)
	}
}

// random makes events of arbitrary bytes: few IDs, CPUs and times, so that they
// meet and contradict each other.
func random(data []byte) []trace.Event {
	events := []trace.Event{&trace.Exec{Header: head(1, 10)}}
	for ; len(data) >= 6; data = data[6:] {
		a := data[:6]
		h := trace.Header{Time: int64(a[1]) * 3, CPU: int(a[2] & 1), PID: 10 + int(a[2]>>1&1), TID: 10 + int(a[2]>>2&3)}
		end := h.Time + int64(a[3])
		stack := trace.Stack{User: []uint64{uint64(a[5]&3) + 1}}
		switch a[0] % 9 {
		case 0:
			c := &trace.Syscall{Header: h, End: end, Number: int(a[4]), Return: int64(a[5] & 7), Args: [6]uint64{uint64(a[5] & 7)}, Stack: stack}
			if a[5]&16 != 0 {
				c.Request = &trace.Request{Method: "GET", Path: "/x"}
			}
			events = append(events, c)
		case 1, 2:
			events = append(events, &trace.Switch{Header: h, State: trace.SwitchState(a[3] % 5), NextPID: 10 + int(a[4]&3), NextTID: 10 + int(a[5]&3), Stack: stack})
		case 3, 4:
			events = append(events, &trace.Waking{Header: h, TargetPID: 10 + int(a[4]&1), TargetTID: 10 + int(a[5]&3), Context: trace.WakeContext(a[3] % 5)})
		case 5:
			events = append(events, &trace.Fork{Header: h, ChildPID: 10 + int(a[4]&1), ChildTID: 10 + int(a[5]&3)})
		case 6:
			events = append(events, &trace.Fault{Header: h, End: end, Address: uint64(a[5]) << 8, Stack: stack})
		case 7:
			statuses := []trace.GoStatus{trace.GoDead, trace.GoRunnable, trace.GoRunning, trace.GoWaiting, trace.GoPreempted}
			events = append(events, &trace.Goroutine{
				Header: h, G: uint64(a[3] & 3), ID: uint64(a[3]&3) + 1, Reason: []string{"IO wait", "sleep"}[a[3]>>2&1],
				From: statuses[int(a[4])%5], To: statuses[int(a[5])%5], StartPC: 1,
			})
		case 8:
			events = append(events, &trace.Sample{Header: h, Stack: stack})
		}
	}
	return events
}

// holds checks what must hold of any recording whatever it says.
func holds(t *testing.T, data []byte) {
	t.Helper()
	compute := func() (Input, *Result) {
		tl, err := trace.Build(random(data), trace.BuildOptions{Arch: "amd64", Stop: 900})
		if err != nil {
			t.Fatal(err)
		}
		phases, err := phase.Compute(phase.Input{Timeline: tl, PID: 10})
		if err != nil {
			t.Fatal(err)
		}
		in := Input{Timeline: tl, Phases: phases, Names: frames{functions: []string{"os.Getenv", "crypto/tls.X", "main.main", ""}}, Goroutines: true, Costs: Costs{Syscall: 3, Sample: 2}}
		r, err := Compute(in)
		if err != nil {
			t.Fatalf("%v\n%x", err, data)
		}
		return in, r
	}
	in, r := compute()
	var sum int64
	for _, c := range r.Cells() {
		sum += c.NS
	}
	if wall := in.Phases.End - in.Phases.Start; sum != wall {
		t.Fatalf("the cells sum to %d of %d\n%x", sum, wall, data)
	}
	_, again := compute()
	if !reflect.DeepEqual(r.Cells(), again.Cells()) || !reflect.DeepEqual(r.Overlapped, again.Overlapped) {
		t.Fatalf("the same recording gives another ledger\n%x", data)
	}
	peers := NewPeers(in)
	for _, g := range in.Timeline.Goroutines {
		for n := range g.Intervals {
			if r := g.Intervals[n].Ready; r != nil {
				if peer := peers.Of(g, r); peer.Goroutine == g {
					t.Fatalf("goroutine %d is its own peer\n%x", g.ID, data)
				}
			}
		}
	}
	all, _ := Replay(in, Without{})
	if all > sum {
		t.Fatalf("with all its work the window is %d, it was %d\n%x", all, sum, data)
	}
	if some, _ := Replay(in, Without{Category: "config"}); some > all {
		t.Fatalf("with less work the window is longer: %d, with all %d\n%x", some, all, data)
	}
}

func TestAnyRecordingIsAccountedFor(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	for range 2000 {
		data := make([]byte, 6*(1+r.IntN(60)))
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		holds(t, data)
	}
}

func FuzzCompute(f *testing.F) {
	f.Add([]byte("\x00\x20\x00\x10\x00\x00\x02\x28\x00\x01\x00\x01"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 6000 {
			return
		}
		holds(t, data)
	})
}

// What libc runs between a program's entry and its main are constructors, also
// where a checkpoint of theirs ends a phase there.
func TestConstructorsAreRuntimeInit(t *testing.T) {
	mark := func(at int64, kind trace.MarkKind) *trace.Mark { return &trace.Mark{Header: head(at, 10), Kind: kind} }
	r := account(t, &trace.Exec{Header: head(100, 10)}, mark(200, trace.MarkEntry), mark(700, trace.MarkMain), next(t))
	got := map[CellKey]int64{}
	for _, c := range r.Cells() {
		got[c.CellKey] += c.NS
	}
	want := map[CellKey]int64{
		{"a", "other", trace.StateUser}: 100, {"a", "runtime-init", trace.StateUser}: 400,
		{"next", "runtime-init", trace.StateUser}: 100, {"next", "other", trace.StateUser}: 300,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
