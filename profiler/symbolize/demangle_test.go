package symbolize

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the goldens in testdata")

// testdata/demangle.txt holds a symbol and its readable form on each line.
func TestDemangle(t *testing.T) {
	path := filepath.Join("testdata", "demangle.txt")
	golden, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for line := range strings.Lines(string(golden)) {
		symbol, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		got.WriteString(symbol + "\t" + Demangle(symbol) + "\n")
	}
	if *update {
		if err := os.WriteFile(path, []byte(got.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(golden), got.String()); diff != "" {
		t.Errorf("-%s +got:\n%s", path, diff)
	}
}

// A symbol whose readable form doubles with each of its parts ends soon.
func TestDemangleIsBounded(t *testing.T) {
	symbol := "_Z1fSt4pairI"
	for range 40 {
		symbol += "S_IS0_S0_E"
	}
	start := time.Now()
	for _, s := range []string{symbol, "_R" + strings.Repeat("I", 4000), "_ZN" + strings.Repeat("1a", 1<<20) + "E"} {
		if got := Demangle(s); len(got) > max(len(s), 1<<maxNamePower) {
			t.Errorf("%d bytes from %d", len(got), len(s))
		}
	}
	if d := time.Since(start); d > 5*time.Second {
		t.Error(d)
	}
}

func FuzzDemangle(f *testing.F) {
	golden, err := os.ReadFile(filepath.Join("testdata", "demangle.txt"))
	if err != nil {
		f.Fatal(err)
	}
	for line := range strings.Lines(string(golden)) {
		symbol, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
		f.Add(symbol)
	}
	f.Fuzz(func(t *testing.T, symbol string) {
		if got := Demangle(symbol); len(got) > max(len(symbol), 1<<maxNamePower) {
			t.Errorf("%d bytes from %d", len(got), len(symbol))
		}
	})
}
