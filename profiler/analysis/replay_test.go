package analysis

import (
	"bytes"
	"encoding/json"
	"path/filepath"
	"testing"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/trace"
)

// A recording of `sh -c 'ls / | wc -l; sleep 0.01'` takes the whole way from
// its bytes to report and profiles, and the figures agree with each other.
func TestReplay(t *testing.T) {
	raw, err := capture.ReadRecordingFile(filepath.Join("testdata", "shell.zst"))
	if err != nil {
		t.Fatal(err)
	}
	events, err := raw.Decode()
	if err != nil {
		t.Fatal(err)
	}
	tl, err := trace.Build(events, trace.BuildOptions{Arch: raw.Arch})
	if err != nil {
		t.Fatal(err)
	}
	if n := tl.Repairs.Total(); n != 0 {
		t.Errorf("a recording without losses needed %+v", tl.Repairs)
	}
	until, err := phase.ParseUntil("exit")
	if err != nil {
		t.Fatal(err)
	}
	phases, err := phase.Compute(phase.Input{Timeline: tl, Until: until})
	if err != nil {
		t.Fatal(err)
	}
	if !phases.Reached || !phases.Traced {
		t.Fatalf("window %+v", phases)
	}
	r, err := Compute(Header{}, []ColdStart{{Index: 1, Traced: true, Outcome: OutcomeOK, Timeline: tl, Phases: phases}}, Options{Run: 1})
	if err != nil {
		t.Fatal(err)
	}
	theLedger(t, tl, phases)
	syscalls := map[string]Syscall{}
	var calls float64
	var callNS int64
	for _, s := range r.Syscalls {
		syscalls[s.Name] = s
		calls += s.Count
		callNS += s.NS
	}
	if s := syscalls["clock_nanosleep"]; s.Count != 1 || s.NS < 10e6 || s.NS > 20e6 {
		t.Errorf("the sleep of 10 ms is %+v", s)
	}
	if s := syscalls["execve"]; s.Count-s.Errors != 4 { // sh, ls, wc, sleep
		t.Errorf("%+v, want 4 that succeeded", s)
	}
	if len(r.Threads) != 4 {
		t.Errorf("threads %+v, want 4", r.Threads)
	}
	var offCPU int64
	for _, th := range r.Threads {
		offCPU += th.RunnableNS + th.WaitingNS
	}
	b := profile.NewBuilder(profile.Options{})
	b.Add(profile.ColdStart{Timeline: tl, Phases: phases})
	for signal, want := range map[profile.Signal][]int64{
		profile.OffCPU:   {-1, offCPU},
		profile.Syscalls: {int64(calls), callNS},
		profile.Faults:   {int64(r.Faults.Minor), int64(r.Faults.Major), -1},
	} {
		var out bytes.Buffer
		if err := b.Write(signal, &out); err != nil {
			t.Fatal(err)
		}
		p, err := pprofile.Parse(&out)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]int64, len(want))
		for _, s := range p.Sample {
			for n, v := range s.Value {
				got[n] += v
			}
		}
		for n := range want {
			if want[n] >= 0 && got[n] != want[n] {
				t.Errorf("%s: %s sums to %d, the report says %d", signal, p.SampleType[n].Type, got[n], want[n])
			}
		}
	}
}

// theLedger checks that the account of a recording is the same whenever it is
// made, and that the path leads through the processes of the pipeline.
func theLedger(t *testing.T, tl *trace.Timeline, phases *phase.Result) {
	t.Helper()
	compute := func() []byte {
		l, err := ledger.Compute(ledger.Input{Timeline: tl, Phases: phases})
		if err != nil {
			t.Fatal(err)
		}
		c := ColdStart{Index: 1, Traced: true, Outcome: OutcomeOK, Timeline: tl, Phases: phases, Ledger: l}
		r, err := Compute(Header{}, []ColdStart{c}, Options{Run: 1})
		if err != nil {
			t.Fatal(err)
		}
		if r.Ledger.WallNS != phases.End-phases.Start || r.Ledger.UnattributedNS != 0 {
			t.Errorf("the ledger has %d ns, %d of them lost", r.Ledger.WallNS, r.Ledger.UnattributedNS)
		}
		threads := map[string]bool{}
		var timer int64
		for _, s := range r.CriticalPath {
			threads[s.Thread] = true
			if s.WaitsFor == "timer" {
				timer += s.NS
			}
		}
		if !threads["sleep"] || timer < 10e6 {
			t.Errorf("the path leads through %v and waits %d ns for timers; want sleep and its 10 ms", threads, timer)
		}
		b, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if first, second := compute(), compute(); !bytes.Equal(first, second) {
		t.Errorf("two accounts of one recording differ:\n%s\n%s", first, second)
	}
}
