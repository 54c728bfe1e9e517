package analysis

import (
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

var update = flag.Bool("update", false, "rewrite the goldens")

// coldStart is a program that maps, faults and sleeps, scaled by its index.
func coldStart(t *testing.T, index int) ColdStart {
	t.Helper()
	scale := int64(index)
	h := func(at int64) trace.Header { return trace.Header{Time: at * scale, PID: 10, TID: 10} }
	number := func(name string) int { nr, _ := trace.SyscallNumber("amd64", name); return nr }
	open := &trace.Syscall{Header: h(300), End: 310 * scale, Number: number("openat"), Return: 3, Path: "/etc/x", Args: [6]uint64{0xffffff9c}}
	tl, err := trace.Build([]trace.Event{
		&trace.Syscall{Header: h(100), End: 200 * scale, Number: number("execve"), Path: "/opt/x"},
		&trace.Exec{Header: h(150), OldTID: 10, Path: "/opt/x"},
		&trace.Mark{Header: h(250), Kind: trace.MarkMain},
		open,
		&trace.Syscall{Header: h(320), End: 330 * scale, Number: number("read"), Return: 100, Args: [6]uint64{3}, Stack: trace.Stack{User: []uint64{1}}},
		&trace.Syscall{Header: h(335), End: 336 * scale, Number: number("close"), Return: -9, Args: [6]uint64{9}, Stack: trace.Stack{Truncated: trace.TruncatedFrame, User: []uint64{1}}},
		&trace.Fault{Header: h(340), End: 350 * scale, Address: 0x1000},
		&trace.Switch{Header: h(400), State: trace.SwitchSleeping, Comm: "x"},
		&trace.Switch{Header: trace.Header{Time: 450 * scale}, NextPID: 10, NextTID: 10, NextComm: "x"},
		&trace.Syscall{Header: h(500), End: 510 * scale, Number: number("write"), Return: 9, Args: [6]uint64{4}, Request: &trace.Request{Method: "GET", Path: "/2020-01-01/extension/event/next"}},
	}, trace.BuildOptions{Arch: "amd64", Stop: 1000 * scale})
	if err != nil {
		t.Fatal(err)
	}
	p, err := phase.Compute(phase.Input{Timeline: tl})
	if err != nil {
		t.Fatal(err)
	}
	return ColdStart{
		Index: index, Traced: true, Outcome: OutcomeOK, ReleaseToNextNS: new(450 * scale),
		Events: new(int64(10)), LostEvents: new(int64(0)), Timeline: tl, Phases: p,
	}
}

func compute(t *testing.T, opts Options) *Report {
	t.Helper()
	var all []ColdStart
	for index := 1; index <= 3; index++ {
		all = append(all, coldStart(t, index))
	}
	all = append(all,
		ColdStart{Index: 4, Outcome: OutcomeOK, ReleaseToNextNS: new(int64(800))},
		ColdStart{Index: 5, Traced: true, Outcome: OutcomeCrashed, OutcomeDetail: "died of SIGSEGV", LastOutput: []string{"oops"}})
	r, err := Compute(Header{Tool: Tool{"v1"}, Settings: Settings{As: "extension", Runs: 5, Until: "next"}}, all, opts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCompute(t *testing.T) {
	for name, opts := range map[string]Options{"all": {}, "run2": {Run: 2}} {
		t.Run(name, func(t *testing.T) {
			got, err := json.MarshalIndent(compute(t, opts), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			golden := filepath.Join("testdata", "report_"+name+".json")
			if *update {
				if err := os.WriteFile(golden, append(got, '\n'), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)+"\n"); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNearestMedian(t *testing.T) {
	if got := NearestMedian(compute(t, Options{}).Runs); got != 2 {
		t.Errorf("nearest to the median is %d, want 2", got)
	}
	if got := NearestMedian(nil); got != 0 {
		t.Errorf("of no run it is %d", got)
	}
}

func TestRunThatIsNotThere(t *testing.T) {
	a := NewAccumulator(Header{}, Options{Run: 9})
	if err := a.Add(coldStart(t, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Report(); err == nil {
		t.Error("a report of a cold start that is not there")
	}
}

// A timeline that does not tile must not become a report.
func TestBrokenTimelineIsRefused(t *testing.T) {
	c := coldStart(t, 1)
	c.Timeline.Threads[0].Intervals = c.Timeline.Threads[0].Intervals[1:]
	if err := NewAccumulator(Header{}, Options{}).Add(c); err == nil {
		t.Error("it was taken")
	}
}
