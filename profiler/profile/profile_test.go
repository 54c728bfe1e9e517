package profile

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// names resolves every address but those from 0x900 on.
type names struct{}

func (names) Resolve(_ int, _ int64, address uint64, kernel, _ bool) symbolize.Location {
	l := symbolize.Location{Module: "/opt/x", BuildID: "abcd", Address: address}
	if kernel {
		l.Module, l.BuildID = symbolize.KernelModule, ""
	}
	if address < 0x900 {
		l.Frames = []symbolize.Frame{{Function: fmt.Sprintf("f%x", address), File: "x.go", Line: int(address)}}
	}
	return l
}

// coldStart waits from 120 to 180 over the border between phases a and b at
// 150, in a read from 110 to 190; it faults from 130+60 on and is sampled once.
func coldStart(t *testing.T) ColdStart {
	t.Helper()
	h := func(at int64) trace.Header { return trace.Header{Time: at, PID: 10, TID: 10} }
	user := func(addresses ...uint64) trace.Stack { return trace.Stack{User: addresses} }
	tl, err := trace.Build([]trace.Event{
		&trace.Sample{Header: h(105), Stack: user(0x100, 0x200)},
		&trace.Syscall{Header: h(110), End: 190, Number: 0, Return: 1, Stack: user(0x300, 0x200)},
		&trace.Switch{Header: h(120), State: trace.SwitchSleeping, Comm: "x", Stack: trace.Stack{Kernel: []uint64{0x700}, User: []uint64{0x300, 0x900}}},
		&trace.Waking{Header: trace.Header{Time: 180, PID: 1, TID: 1}, TargetPID: 10, TargetTID: 10},
		&trace.Switch{Header: trace.Header{Time: 185}, NextPID: 10, NextTID: 10, NextComm: "x"},
		&trace.Fault{Header: h(192), End: 196, Address: 0x1000},
		&trace.Goroutine{Header: h(101), G: 1, ID: 1, From: trace.GoDead, To: trace.GoRunnable, StartPC: 0x800},
		&trace.Goroutine{Header: h(103), G: 1, ID: 1, From: trace.GoRunnable, To: trace.GoRunning},
		&trace.Goroutine{Header: h(197), G: 1, ID: 1, From: trace.GoRunning, To: trace.GoWaiting, Reason: "select", Stack: user(0x500, 0x800)},
	}, trace.BuildOptions{Arch: "amd64", Stop: 300})
	if err != nil {
		t.Fatal(err)
	}
	span := func(start, end int64) startup.Span {
		return startup.Span{Start: start, End: end, Thread: tl.Threads[0]}
	}
	phases := &phase.Result{Start: 100, End: 200, Phases: []phase.Phase{{Name: "a", Start: 100, End: 150}, {Name: "b", Start: 150, End: 200}}}
	account, err := ledger.Compute(ledger.Input{Timeline: tl, Phases: phases, Names: names{}, Costs: ledger.Costs{Fault: 2}})
	if err != nil {
		t.Fatal(err)
	}
	return ColdStart{
		Timeline: tl, Symbolizer: names{}, Ledger: account, Phases: phases,
		Startup: &startup.Result{
			Bindings: []startup.Binding{
				{Span: span(148, 152), Symbol: "getenv", Object: "/opt/x", Target: "/lib/libc.so.6", PID: 10, Stack: user(0x300, 0x200)},
				{Span: span(160, 161), Object: "/opt/x", PID: 10, Stack: user(0x300, 0x200)},
			},
			Objects: []startup.Object{{
				Path: "/lib/libz.so", PID: 10, Mode: startup.Eager, Relocation: span(110, 118), Stack: user(0x400),
				Facts: &loader.Facts{GlobDats: []string{"a"}, PLT: []loader.PLTEntry{{Symbol: "b", Lazy: true}, {Symbol: "c", Lazy: true}}},
			}},
		},
	}
}

func TestProfilesRoundTrip(t *testing.T) {
	b := NewBuilder(Options{Tool: "v1", Kernel: "6.1", Main: "/opt/x", BuildID: "abcd", Period: time.Millisecond})
	b.Add(coldStart(t))
	b.Add(coldStart(t))
	for _, s := range Signals {
		t.Run(string(s), func(t *testing.T) {
			var out bytes.Buffer
			if err := b.Write(s, &out); err != nil {
				t.Fatal(err)
			}
			p, err := pprofile.Parse(&out)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.CheckValid(); err != nil {
				t.Fatal(err)
			}
			if p.Mapping[0].File != "/opt/x" || p.Mapping[0].BuildID != "abcd" {
				t.Errorf("first mapping %+v", p.Mapping[0])
			}
			golden := filepath.Join("testdata", string(s)+".txt")
			if *update {
				if err := os.WriteFile(golden, []byte(p.String()), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), p.String()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// A sample stands for no more than the time between two of them, nor for more
// than was measured: what a goroutine had of a CPU is always the sum.
func TestGoroutinesOnCPUIsDividedAmongSamples(t *testing.T) {
	sampled, first := []Frame{{"f100", "/opt/x"}, {"f200", "/opt/x"}, {"on_cpu", ""}}, []Frame{{NotSampled, ""}, {"f800", "/opt/x"}, {"on_cpu", ""}}
	of := func(stack []Frame, ns int64) WeightedStack {
		return WeightedStack{Stack: stack, Value: ns, Phase: "a", State: "on_cpu"}
	}
	for _, c := range []struct {
		period time.Duration
		want   []WeightedStack // of the 7 ns on a CPU, in which one sample was taken
	}{
		{1000, []WeightedStack{of(sampled, 7)}},
		{3, []WeightedStack{of(sampled, 3), of(first, 4)}},
		{0, []WeightedStack{of(first, 7)}},
	} {
		b := NewBuilder(Options{Period: c.period})
		b.Add(coldStart(t))
		var got []WeightedStack
		for _, s := range Stacks(b.Profile(Goroutines), "a") {
			if s.Stack[len(s.Stack)-1].Function == "on_cpu" {
				got = append(got, s)
			}
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("period %v: %s", c.period, diff)
		}
	}
}

func TestStacksAreClippedAtPhases(t *testing.T) {
	b := NewBuilder(Options{})
	b.Add(coldStart(t))
	p := b.Profile(OffCPU)
	stack := []Frame{{"f700", "[kernel]"}, {"f300", "/opt/x"}, {"x+0x900", "/opt/x"}}
	if diff := cmp.Diff([]WeightedStack{{Stack: stack, Value: 30, Count: 1, Phase: "a", State: "waiting"}}, Stacks(p, "a")); diff != "" {
		t.Error(diff)
	}
	var sum int64
	for _, s := range Stacks(p, AllPhases) {
		sum += s.Value
	}
	if sum != 65 {
		t.Errorf("off the CPU for %d ns, want 65", sum)
	}
	if diff := cmp.Diff([]string{"a", "b"}, Phases(p)); diff != "" {
		t.Error(diff)
	}
}
