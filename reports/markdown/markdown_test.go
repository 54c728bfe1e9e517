package markdown

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
	var r analysis.Report
	fixture(t, "report.json", &r)
	var out bytes.Buffer
	if err := Report(&out, &r); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.markdown", out.Bytes())
}

func TestBench(t *testing.T) {
	var b analysis.Bench
	fixture(t, "bench.json", &b)
	var out bytes.Buffer
	if err := Bench(&out, &b); err != nil {
		t.Fatal(err)
	}
	golden(t, "bench.markdown", out.Bytes())
}

// Names cannot leave their cell, nor become markup.
func TestHostileNames(t *testing.T) {
	r := analysis.Report{
		Subject:  analysis.Subject{Command: []string{"a`b``c", "|<script>\n# x"}},
		Syscalls: []analysis.Syscall{{Name: "x | y\n| z", Count: 1}},
		Warnings: []string{"<img src=x> @someone [a](javascript:b) **bold** | cell"},
	}
	var out bytes.Buffer
	if err := Report(&out, &r); err != nil {
		t.Fatal(err)
	}
	golden(t, "hostile.markdown", out.Bytes())
	for line := range strings.Lines(out.String()) {
		if n := strings.Count(line, "|"); strings.HasPrefix(line, "|") && n != 5 {
			t.Errorf("%d bars in %q", n, line)
		}
	}
	if strings.Contains(out.String(), "<img") {
		t.Error("HTML in", out.String())
	}
}
