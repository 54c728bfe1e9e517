package analysis

import (
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/trace"
)

// A wait behind a thread of the subject's own is the subject's; one behind
// another program is the machine's, and a report says so where it is much.
func TestABusyMachineIsWarnedOf(t *testing.T) {
	for _, c := range []struct {
		behind string
		ns     int64
		warns  bool
	}{
		{"cc1" + ledger.NotSubject, 30, true},
		{"cc1" + ledger.NotSubject, 5, false},
		{"worker", 90, false},
	} {
		s := newLedgerSums()
		s.add(ColdStart{Ledger: &ledger.Result{End: 100, Steps: []ledger.Step{
			{Start: 0, End: c.ns, State: trace.StateRunnable, Behind: c.behind},
			{Start: c.ns, End: 100, State: trace.StateUser},
		}}})
		got := s.caveats()
		text := strings.Join(got, "\n")
		if c.warns != strings.Contains(text, "30 %") || c.warns != strings.Contains(text, "cc1") {
			t.Errorf("%d ns of 100 behind %s: %q", c.ns, c.behind, got)
		}
	}
}
