package markdown

import (
	"bytes"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

// The greatest cells stand first, and what is not shown is summed up.
func TestLedger(t *testing.T) {
	l := &analysis.Ledger{WallNS: 100e6}
	for i := range 12 {
		l.Cells = append(l.Cells, analysis.Cell{Phase: "register", Category: "net|work", State: "waiting", NS: int64(i+1) * 1e6})
	}
	l.Cells[11].CI95 = &[2]int64{11e6, 13e6}
	var out bytes.Buffer
	if err := Report(&out, &analysis.Report{Ledger: l}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"| register | net\\|work | waiting | 12.00 ms | 12.0 % | 11.00 ms … 13.00 ms |",
		"| others |  |  | 3.000 ms | 3.0 % |  |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}
