package cli_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/initprof/initprof/testdata/subjects"
)

// What a recording says does not depend on when it is read: reports of a program
// of many goroutines are the same, byte for byte, and that which record wrote.
func TestRecordingsReplayBitForBit(t *testing.T) {
	needRoot(t)
	run := filepath.Join(t.TempDir(), "run.initprof")
	code, _, errOut := initprof("record", "-q", "-n", "3", "--untraced", "1", "-o", run, "--", subjects.Build(t, subjects.GoExtension))
	if code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	written, err := os.ReadFile(filepath.Join(run, "report.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"report", run, "--format", "json"},
		{"report", run, "--format", "json", "--run", "2"},
		{"blame", run},
		{"critical-chain", run, "--share", "0"},
		{"whatif", run, "--without", "network", "--format", "json"},
	} {
		var first string
		for i := range 3 {
			code, out, errOut := initprof(args...)
			if code != 0 || out == "" {
				t.Fatalf("%q: exit code %d\n%s", args, code, errOut)
			}
			if i == 0 {
				first = out
			} else if out != first {
				t.Errorf("%q says something else the %d. time", args, i+1)
			}
		}
		if len(args) == 4 && args[0] == "report" && first != string(written) {
			t.Errorf("report says something else than record did")
		}
	}
}
