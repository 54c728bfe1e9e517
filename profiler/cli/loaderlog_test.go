package cli_test

import (
	"bufio"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// debugLoader are the flags with which a subject's loader says into log what it
// does, in the cold start that is recorded.
func debugLoader(log string) []string {
	return []string{"--env", "LD_DEBUG=files,reloc,bindings", "--env", "LD_DEBUG_OUTPUT=" + log}
}

// loaderLog is what glibc's loader said about one start.
type loaderLog struct {
	lazy   []bound  // by _dl_fixup, or dlsym
	eager  []bound  // while an object was relocated
	opened []string // by dlopen
}

var (
	bindingLine    = regexp.MustCompile("\tbinding file (.+) \\[[0-9]+\\] to (.+) \\[[0-9]+\\]: (?:normal|protected) symbol `([^']+)'")
	relocationLine = regexp.MustCompile(`\trelocation processing: (.+?)(?: \(lazy\))?$`)
	openedLine     = regexp.MustCompile(`\topening file=(.*) \[[0-9]+\]; direct_opencount=`)
)

// readLoaderLog reads what the last start wrote, until it looks up the symbol
// end. What an object needs while it is relocated is bound eagerly, and so is
// all that the loader itself and the vDSO are looked up for, which bind nothing
// lazily; dlsym's look-ups read the same as lazy binding.
func readLoaderLog(t *testing.T, log, end string) loaderLog {
	t.Helper()
	files, err := filepath.Glob(log + ".*")
	if err != nil || len(files) == 0 {
		t.Fatalf("the loader wrote no log: %v", err)
	}
	f, err := os.Open(files[len(files)-1])
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	var l loaderLog
	relocating, ended := "", false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		line := lines.Text()
		if ended {
			continue
		}
		switch {
		case strings.Contains(line, "\tcalling init: "), strings.Contains(line, "\tinitialize program: "):
			relocating = ""
		}
		if m := relocationLine.FindStringSubmatch(line); m != nil {
			relocating = m[1]
		}
		if m := openedLine.FindStringSubmatch(line); m != nil {
			l.opened = append(l.opened, m[1])
			relocating = ""
		}
		m := bindingLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		b := bound{realPath(m[1]), realPath(m[2]), m[3]}
		switch {
		case b.symbol == end:
			ended = true
		case m[1] == relocating, strings.HasPrefix(filepath.Base(m[1]), "ld-linux"), m[1] == "linux-vdso.so.1":
			l.eager = append(l.eager, b)
		default:
			l.lazy = append(l.lazy, b)
		}
	}
	if err := lines.Err(); err != nil || !ended {
		t.Fatalf("%s: the look-up of %s is not in it: %v", f.Name(), end, err)
	}
	return l
}

// realPath is how the kernel names a mapped file.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	return path
}
