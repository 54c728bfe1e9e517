package cli_test

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/testdata/subjects"
)

// A run of a Go program tells of its goroutines in all its parts.
func TestGoroutines(t *testing.T) {
	needRoot(t)
	path := subjects.Build(t, subjects.GoStripped)
	run := filepath.Join(t.TempDir(), "go.initprof")
	if code, _, errOut := initprof("record", "-q", "-n", "2", "--untraced", "0", "-o", run, "--", path); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	r := report(t, run, "--run", "1")
	kinds := map[string]int{}
	for _, g := range r.Goroutines {
		kinds[g.Kind]++
		if g.RunningNS != g.OnCPUNS+g.RunqueueNS+g.FaultNS {
			t.Errorf("goroutine %d: running %d ns is not the sum of its parts", g.ID, g.RunningNS)
		}
		total := g.RunningNS + g.RunnableNS + g.SyscallNS
		for _, w := range g.Waiting {
			total += w.NS
		}
		if wall := r.Runs[0].WallNS; wall == nil || total > *wall {
			t.Errorf("goroutine %d lived %d ns of a window of %v", g.ID, total, wall)
		}
		if g.Function == "" || g.Kind != analysis.KindMain && (g.Parent == 0 || g.CreatedBy == "") {
			t.Errorf("goroutine without origin: %+v", g)
		}
	}
	if kinds[analysis.KindMain] != 1 || kinds[analysis.KindGC] == 0 || kinds[analysis.KindUser] == 0 {
		t.Errorf("kinds %v", kinds)
	}
	if p := readProfile(t, filepath.Join(run, "profiles", "goroutines.pb.gz")); len(p.SampleType) != 6 || len(p.Sample) == 0 {
		t.Errorf("%d sample types, %d samples", len(p.SampleType), len(p.Sample))
	}
	labelled := 0
	for _, s := range readProfile(t, filepath.Join(run, "profiles", "off_cpu.pb.gz")).Sample {
		if l := s.Label["goroutine"]; len(l) > 0 && strings.HasPrefix(l[0], "1 runtime.main") {
			labelled++
		}
	}
	if labelled == 0 {
		t.Error("no wait of a thread is the main goroutine's")
	}
	if code, svg, errOut := initprof("flamegraph", run, "--signal", "goroutines"); code != 0 || !strings.Contains(svg, "waiting: IO wait") {
		t.Errorf("flame graph: exit code %d\n%s", code, errOut)
	}
	if svg, err := os.ReadFile(filepath.Join(run, "goroutines.svg")); err != nil || !strings.Contains(string(svg), "1 runtime.main") {
		t.Errorf("timeline: %v", err)
	}
	readTrace(t, filepath.Join(run, "trace.json.gz"))
}

func readProfile(t *testing.T, path string) *pprofile.Profile {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	p, err := pprofile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// readTrace checks that phases, goroutines and threads are in a trace.
func readTrace(t *testing.T, path string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	var trace struct {
		TraceEvents []struct {
			Name string
			Args map[string]any
		}
	}
	if err := json.NewDecoder(z).Decode(&trace); err != nil {
		t.Fatal(err)
	}
	names := map[any]bool{}
	for _, e := range trace.TraceEvents {
		names[e.Args["name"]] = true
	}
	for _, want := range []string{"phases", "goroutines", "G1 runtime.main"} {
		if !names[want] {
			t.Errorf("the trace has no track %s", want)
		}
	}
}

// Where goroutines cannot be seen everything else is recorded, and the report
// says why: of a program of C, of an unknown Go, and of a Go that is another than
// it says, so that what is known of its version fails the check.
func TestGoroutinesThatCannotBeSeen(t *testing.T) {
	needRoot(t)
	stripped := func(version string) func(*testing.T) string {
		return func(t *testing.T) string { return withVersion(t, subjects.Build(t, subjects.GoStripped), version) }
	}
	for _, c := range []struct {
		name, reason string
		build        func(*testing.T) string
	}{
		{"no Go", "no Go program", func(t *testing.T) string { return subjects.Build(t, subjects.Extension) }},
		{"unknown version", `this program is of "go1.99`, stripped("go1.99")},
		{"another layout", "the table of Go 1.24, are not this program's", stripped("go1.24")},
	} {
		t.Run(c.name, func(t *testing.T) {
			run := filepath.Join(t.TempDir(), "x.initprof")
			if code, _, errOut := initprof("record", "-q", "-n", "2", "--untraced", "0", "-o", run, "--", c.build(t)); code != 0 {
				t.Fatalf("exit code %d\n%s", code, errOut)
			}
			r := report(t, run)
			if r.Goroutines != nil {
				t.Errorf("%d goroutines are told", len(r.Goroutines))
			}
			if len(r.Syscalls) == 0 || r.Faults == nil || len(r.Threads) == 0 || len(r.Ledger.Cells) == 0 || len(phases(r)) < 3 {
				t.Errorf("not everything else was recorded: %d system calls, faults %+v, %d threads, phases %v", len(r.Syscalls), r.Faults, len(r.Threads), phases(r))
			}
			if n := r.Runs[0].LostEvents; n == nil || *n != 0 {
				t.Errorf("lost events: %v", n)
			}
			told := false
			for _, p := range r.Probes {
				told = told || p.Name == "goroutines" && p.Status == analysis.ProbeUnavailable && strings.Contains(p.Reason, c.reason)
			}
			if !told {
				t.Errorf("%q does not stand in %+v", c.reason, r.Probes)
			}
			if code, out, _ := initprof("report", run); code != 0 || !strings.Contains(strings.Join(strings.Fields(out), " "), c.reason) {
				t.Errorf("exit code %d, and %q does not stand in\n%s", code, c.reason, out)
			}
		})
	}
}

// withVersion copies a Go program and lets it say that it is of another release.
func withVersion(t *testing.T, path, version string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	own := runtime.Version()[:len("go1.26")]
	if own == version {
		t.Fatalf("tests run with %s: choose another release", own)
	}
	if !bytes.Contains(b, []byte(own+".")) {
		t.Fatalf("%s does not say that it is of %s", path, own)
	}
	changed := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(changed, bytes.ReplaceAll(b, []byte(own+"."), []byte(version+".")), 0o755); err != nil {
		t.Fatal(err)
	}
	return changed
}
