package subjects

import (
	"bytes"
	"debug/elf"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// What a feature of the build says is what the linker and jemalloc show.
func TestRustFeatures(t *testing.T) {
	for _, c := range []struct {
		name   string
		now    bool
		arenas string
	}{
		{RustStripped, false, ""},
		{RustH7, true, ""},
		{RustH16, false, "opt.narenas: 1\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := Build(t, c.name)
			f, err := elf.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = f.Close() }()
			flags, err := f.DynValue(elf.DT_FLAGS)
			if err != nil {
				t.Fatal(err)
			}
			if now := len(flags) > 0 && elf.DynFlag(flags[0])&elf.DF_BIND_NOW != 0; now != c.now {
				t.Errorf("all symbols are bound at load: %v, want %v", now, c.now)
			}
			if f.Section(".symtab") != nil {
				t.Error("it is not stripped")
			}
			if c.arenas == "" {
				return
			}
			// Nobody answers at port 1: it ends, and jemalloc prints what it was set to.
			cmd := exec.Command(path)
			cmd.Env = []string{"AWS_LAMBDA_RUNTIME_API=127.0.0.1:1", "MALLOC_CONF=stats_print:true"}
			out, err := cmd.CombinedOutput()
			if err == nil || !bytes.Contains(out, []byte(c.arenas)) {
				t.Errorf("%v, want %q in what it prints:\n%.2000s", err, c.arenas, out)
			}
		})
	}
}

// The stripped program and its unstripped twin are of one build, and the probe
// survives stripping.
func TestRustTwin(t *testing.T) {
	notes := func(name string) []string {
		out, err := exec.Command("readelf", "-n", Build(t, name)).Output()
		if err != nil {
			t.Fatal(err)
		}
		var lines []string
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "Build ID:") || strings.HasPrefix(line, "Provider:") || strings.HasPrefix(line, "Name:") {
				lines = append(lines, line)
			}
		}
		return lines
	}
	full, stripped := notes(RustExtension), notes(RustStripped)
	if !slices.Equal(full, stripped) || !slices.Contains(full, "Provider: initprof") || !slices.Contains(full, "Name: checkpoint") {
		t.Errorf("notes %q, stripped %q", full, stripped)
	}
}
