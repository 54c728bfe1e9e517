package bench

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/analysis"
)

func TestReadMatrix(t *testing.T) {
	m, err := ReadMatrix(strings.NewReader(`
base: b
variants:
  - name: a
    command: [./ext, --fast]
    env: {X: "1"}
  - name: b
    command: [./ext]
`))
	if err != nil {
		t.Fatal(err)
	}
	want := &Matrix{Base: "b", Variants: []MatrixVariant{
		{Name: "b", Command: []string{"./ext"}},
		{Name: "a", Command: []string{"./ext", "--fast"}, Env: map[string]string{"X": "1"}},
	}}
	if diff := cmp.Diff(want, m); diff != "" {
		t.Error(diff)
	}
	for _, bad := range []string{
		"", "variants: []", "base: x\nvariants: [{name: a, command: [x]}]", "variants: [{name: a}]",
		"variants: [{name: a, command: [x]}, {name: a, command: [x]}]", "nonsense: 1", "- 1",
	} {
		if _, err := ReadMatrix(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}

func FuzzReadMatrix(f *testing.F) {
	f.Add("variants: [{name: a, command: [x]}]")
	f.Fuzz(func(t *testing.T, text string) {
		if m, err := ReadMatrix(strings.NewReader(text)); err == nil && m.Variants[0].Name != m.Base {
			t.Errorf("the base %q is not first", m.Base)
		}
	})
}

func TestVerdicts(t *testing.T) {
	all := []analysis.Comparison{
		{ShiftNS: -500, CI95: &[2]int64{-600, -400}, P: 0.0001, EquivalenceNS: 100},
		{ShiftNS: 500, CI95: &[2]int64{400, 600}, P: 0.0001, EquivalenceNS: 100},
		{ShiftNS: 5, CI95: &[2]int64{-20, 30}, P: 0.6, EquivalenceNS: 100},
		{ShiftNS: 50, CI95: &[2]int64{-200, 300}, P: 0.3, EquivalenceNS: 100},
	}
	judge(all)
	var got []string
	for _, c := range all {
		got = append(got, c.Verdict)
	}
	want := []string{analysis.VerdictPays, analysis.VerdictHurts, analysis.VerdictNoEffect, analysis.VerdictUndecided}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
