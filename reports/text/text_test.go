package text

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func fixture(t *testing.T, name string, v any) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("../testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, v); err != nil {
		t.Fatal(err)
	}
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", path, diff)
	}
}

func TestReport(t *testing.T) {
	for name, o := range map[string]Options{
		"report.text":        {},
		"report-narrow.text": {Width: 72},
		"report-colour.text": {Width: 132, Color: true, Rows: 4},
	} {
		var r analysis.Report
		fixture(t, "report.json", &r)
		var out bytes.Buffer
		if err := Report(&out, &r, o); err != nil {
			t.Fatal(err)
		}
		golden(t, name, out.Bytes())
	}
}

// A report of one cold start shows its figures, not distributions of one.
func TestReportOfOne(t *testing.T) {
	var r analysis.Report
	fixture(t, "report.json", &r)
	one := func(s *analysis.Summary, v int64) {
		*s = analysis.Summary{N: 1, Min: v, P50: v, P90: v, P99: v, Max: v, Mean: v}
	}
	run := r.Runs[3]
	r.Runs = []analysis.Run{run}
	one(r.Wall, *run.WallNS)
	one(r.Init, *run.InitNS)
	one(r.FirstInvoke, *run.FirstInvokeNS)
	r.Untraced, r.Overhead, r.Spans = nil, nil, nil
	for i, ph := range run.Phases {
		one(&r.Phases[i].Delta, ph.DeltaNS)
		one(&r.Phases[i].Cumulative, ph.StartNS+ph.DeltaNS)
	}
	var out bytes.Buffer
	if err := Report(&out, &r, Options{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "report-one.text", out.Bytes())
}

func TestBench(t *testing.T) {
	var b analysis.Bench
	fixture(t, "bench.json", &b)
	var out bytes.Buffer
	if err := Bench(&out, &b, Options{Width: 110}); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench.text", out.Bytes())
}

// What a subject prints or is called cannot steer the terminal, plain output
// holds no sequence, and prose keeps to the width.
func TestOutputIsSafe(t *testing.T) {
	var r analysis.Report
	fixture(t, "report.json", &r)
	for width := 60; width <= 160; width += 10 {
		var out bytes.Buffer
		if err := Report(&out, &r, Options{Width: width}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\r\x07") {
			t.Error("control characters in plain output")
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.HasSuffix(line, " ") {
				t.Errorf("blanks at the end of %q", line)
			}
			if width >= 90 && figure.Width(line) > width {
				t.Errorf("width %d: %d columns in %q", width, figure.Width(line), line)
			}
		}
	}
}

// Nothing that is unknown is needed.
func TestEmpty(t *testing.T) {
	var out bytes.Buffer
	if err := Report(&out, &analysis.Report{Subject: analysis.Subject{Command: []string{"./ext"}}}, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Bench(&out, &analysis.Bench{}, Options{}); err != nil {
		t.Fatal(err)
	}
	if err := Bench(&out, &analysis.Bench{Variants: []analysis.Variant{{Name: "a"}, {Name: "b"}}}, Options{}); err != nil {
		t.Fatal(err)
	}
}
