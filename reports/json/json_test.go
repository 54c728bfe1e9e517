package json

import (
	"bytes"
	stdjson "encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/analysis"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// read decodes a fixture strictly: what the structs do not know is an error.
func read(t *testing.T, path string, v any) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	decoder := stdjson.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(v); err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func compare(t *testing.T, path, want, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", path, diff)
	}
}

// The fixtures of all reports are in canonical form themselves: nothing is
// lost, added or moved by reading and writing them.
func TestRoundTrip(t *testing.T) {
	const reportPath, benchPath = "../testdata/report.json", "../testdata/bench.json"
	var report analysis.Report
	want := read(t, reportPath, &report)
	var out bytes.Buffer
	if err := Report(&out, &report); err != nil {
		t.Fatal(err)
	}
	compare(t, reportPath, want, out.String())

	var bench analysis.Bench
	want = read(t, benchPath, &bench)
	out.Reset()
	if err := Bench(&out, &bench); err != nil {
		t.Fatal(err)
	}
	compare(t, benchPath, want, out.String())

	const diffPath = "../testdata/diff.json"
	var diff analysis.Diff
	want = read(t, diffPath, &diff)
	out.Reset()
	if err := Diff(&out, &diff); err != nil {
		t.Fatal(err)
	}
	compare(t, diffPath, want, out.String())
}

// The fixture's phases tile each window.
func TestFixtureTiles(t *testing.T) {
	var report analysis.Report
	read(t, "../testdata/report.json", &report)
	for _, run := range report.Runs {
		if run.WallNS == nil {
			continue
		}
		var at int64
		for _, ph := range run.Phases {
			if ph.StartNS != at {
				t.Errorf("cold start %d: %s starts at %d, not %d", run.Index, ph.Name, ph.StartNS, at)
			}
			at += ph.DeltaNS
		}
		if at != *run.WallNS {
			t.Errorf("cold start %d: phases end at %d, the window at %d", run.Index, at, *run.WallNS)
		}
	}
}

// An empty answer still has its schema, and lists that are lists.
func TestEmpty(t *testing.T) {
	var out bytes.Buffer
	if err := Report(&out, &analysis.Report{}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"schema": "initprof/report/v1"`, `"command": []`, `"runs": []`, `"warnings": []`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
	for _, absent := range []string{"null", "syscalls", "ledger", "wall"} {
		if strings.Contains(out.String(), absent) {
			t.Errorf("%s in\n%s", absent, out.String())
		}
	}
}
