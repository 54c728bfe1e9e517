package record

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/symbolize"
)

// A report keeps of each cold start little more than a number a cell, however
// many there are.
func TestReportKeepsLittleOfEachColdStart(t *testing.T) {
	dir := t.TempDir()
	recording, err := os.ReadFile(filepath.Join("..", "analysis", "testdata", "shell.zst"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "001.zst"), recording, 0o600); err != nil {
		t.Fatal(err)
	}
	r := &Run{Dir: dir, Symbols: &symbolize.Store{}}
	c, _, warnings := r.load(Entry{Index: 1, Traced: true, Outcome: analysis.OutcomeOK, Events: "001.zst"})
	if len(warnings) != 0 || c.Ledger == nil || len(c.Ledger.Steps) < 100 {
		t.Fatalf("no ledger to add up: %q", warnings)
	}
	sums := analysis.NewAccumulator(r.Manifest.Head, analysis.Options{})
	live := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	add := func(until int) {
		for c.Index <= until {
			if err := sums.Add(c); err != nil {
				t.Fatal(err)
			}
			c.Index++
		}
	}
	add(50) // what there is once: cells, steps with their stacks
	before := live()
	add(250)
	each := (int64(live()) - int64(before)) / 200
	if most := int64(8 << 10); each > most {
		t.Errorf("a cold start more keeps %d bytes, want at most %d", each, most)
	}
	report, err := sums.Report()
	if err != nil {
		t.Fatal(err)
	}
	if len(report.Runs) != 250 {
		t.Errorf("%d cold starts of 250 are in the report", len(report.Runs))
	}
	t.Logf("%d bytes a cold start", each)
}
