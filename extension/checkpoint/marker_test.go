package checkpoint_test

import (
	"bytes"
	"debug/elf"
	"debug/gosym"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestMarkerSurvivesStripping holds the contract of doc.go against what the
// linker makes of it.
func TestMarkerSurvivesStripping(t *testing.T) {
	if testing.Short() {
		t.Skip("builds four programs")
	}
	first := map[string][]byte{
		"amd64": {0x0f, 0x1f, 0x44, 0x00, 0x00, 0xc3},
		"arm64": {0x01, 0x00, 0x00, 0x14, 0xc0, 0x03, 0x5f, 0xd6},
	}
	for arch, want := range first {
		for name, flags := range map[string]string{"plain": "", "stripped": "-s -w"} {
			t.Run(arch+"/"+name, func(t *testing.T) {
				binary := filepath.Join(t.TempDir(), "marked")
				build := exec.Command("go", "build", "-ldflags", flags, "-o", binary, "./testdata/marked")
				build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
				if out, err := build.CombinedOutput(); err != nil {
					t.Fatalf("building: %v\n%s", err, out)
				}
				if got := markers(t, binary, want); got != 1 {
					t.Errorf("%d functions named mark begin with % x, want 1", got, want)
				}
			})
		}
	}
}

// markers counts the functions named mark in .gopclntab whose code begins with
// the bytes.
func markers(t *testing.T, binary string, code []byte) int {
	t.Helper()
	f, err := elf.Open(binary)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	lines, text := f.Section(".gopclntab"), f.Section(".text")
	if lines == nil || text == nil {
		t.Fatal("no .gopclntab or no .text")
	}
	lineData, err := lines.Data()
	if err != nil {
		t.Fatal(err)
	}
	textData, err := text.Data()
	if err != nil {
		t.Fatal(err)
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(lineData, text.Addr))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, fn := range table.Funcs {
		if fn.Name == "github.com/initprof/initprof/extension/checkpoint.mark" &&
			bytes.HasPrefix(textData[fn.Entry-text.Addr:], code) {
			n++
		}
	}
	return n
}
