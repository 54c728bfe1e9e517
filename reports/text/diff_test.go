package text

import (
	"bytes"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// The answer stands on top; what appeared, vanished, grew and shrank is told
// apart; nothing of the subject's steers the terminal.
func TestDiff(t *testing.T) {
	var d analysis.Diff
	fixture(t, "diff.json", &d)
	d.Files[0].Key += "\x1b[31m"
	var out bytes.Buffer
	if err := Diff(&out, &d, Options{}); err != nil {
		t.Fatal(err)
	}
	golden(t, "diff.text", out.Bytes())
	for width := 60; width <= 160; width += 20 {
		out.Reset()
		if err := Diff(&out, &d, Options{Width: width}); err != nil {
			t.Fatal(err)
		}
		if strings.ContainsAny(out.String(), "\x1b\r\x07") {
			t.Error("control characters in plain output")
		}
		for line := range strings.Lines(out.String()) {
			if w := figure.Width(strings.TrimSuffix(line, "\n")); w > width && width >= 100 {
				t.Errorf("width %d: %d columns in %q", width, w, line)
			}
		}
	}
}

// A run against itself, runs without untraced starts or without a ledger, and
// runs of which nothing compares, each say so.
func TestDiffOfLittle(t *testing.T) {
	same := &analysis.Summary{N: 12, P50: 5e6}
	for want, d := range map[string]analysis.Diff{
		"No clear difference": {Wall: &analysis.DiffWall{Before: *same, After: *same, CI95: &[2]int64{-100, 100}}},
		"Undecided":           {Wall: &analysis.DiffWall{Before: *same, After: *same}},
		"without untraced cold starts": {
			Traced: &analysis.DiffTraced{BeforeNS: 5e6, AfterNS: 5e6}, Causes: []analysis.DiffCause{},
		},
		"no cell of the ledger differs": {Traced: &analysis.DiffTraced{BeforeNS: 5e6, AfterNS: 5e6}, Causes: []analysis.DiffCause{{Phase: "exec", Category: "exec"}}},
		"there is no answer":            {},
	} {
		var out bytes.Buffer
		if err := Diff(&out, &d, Options{}); err != nil {
			t.Fatal(err)
		}
		if text := strings.Join(strings.Fields(out.String()), " "); !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
}
