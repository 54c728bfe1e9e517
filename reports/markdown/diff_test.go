package markdown

import (
	"bytes"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

func TestDiff(t *testing.T) {
	var d analysis.Diff
	fixture(t, "diff.json", &d)
	d.Files[0].Key += "|`</td>"
	var out bytes.Buffer
	if err := Diff(&out, &d); err != nil {
		t.Fatal(err)
	}
	golden(t, "diff.markdown", out.Bytes())
}
