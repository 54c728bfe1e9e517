package loader_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/symbolize"
)

func facts(t *testing.T, path string) *loader.Facts {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	o, err := symbolize.OpenObject(file)
	if err != nil {
		t.Fatal(err)
	}
	f, err := loader.FactsOf(o)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readelf(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("readelf", args...).Output()
	if err != nil {
		skip(t, "readelf: %v", err)
	}
	return string(out)
}

var (
	relocationLine = regexp.MustCompile(`^[0-9a-f]{12,16}\s+[0-9a-f]{12,16}\s+R_(?:X86_64|AARCH64)_(\w+)\s*(.*)$`)
	relrEntries    = regexp.MustCompile(`^\s+([0-9]+) offsets?$`)
	symbolName     = regexp.MustCompile(`^[0-9a-f]{16}\s+([^@\s]+)`)
	bracketed      = regexp.MustCompile(`\[(.*)\]`)
	interpreter    = regexp.MustCompile(`program interpreter: (.*)\]`)
)

// readelfFacts is what readelf prints of an object, in the terms of Facts.
func readelfFacts(t *testing.T, path string) loader.Facts {
	t.Helper()
	f := loader.Facts{RELRO: loader.NoRELRO}
	plt := false
	for line := range strings.Lines(readelf(t, "-rW", path)) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "Relocation section") {
			plt = strings.Contains(line, "'.rela.plt'")
		}
		if m := relrEntries.FindStringSubmatch(line); m != nil {
			f.Counts.RELR, _ = strconv.Atoi(m[1])
		}
		m := relocationLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		name := ""
		if s := symbolName.FindStringSubmatch(m[2]); s != nil {
			name = s[1]
		}
		c := &f.Counts
		lazy := false
		switch m[1] {
		case "RELATIV", "RELATIVE":
			c.Relative++
		case "GLOB_DA", "GLOB_DAT":
			c.GlobDat++
			f.GlobDats = append(f.GlobDats, name)
		case "JUMP_SL", "JUMP_SLO", "JUMP_SLOT":
			c.JumpSlot++
			lazy = true
		case "IRELATI", "IRELATIV", "IRELATIVE":
			c.IRelative++
		case "TLSDESC":
			c.TLS++
			lazy = plt
		case "DTPMOD64", "DTPOFF64", "TPOFF64", "TLS_DTPMOD", "TLS_DTPREL", "TLS_TPREL", "TLS_DTPMOD64", "TLS_DTPREL64", "TLS_TPREL64":
			c.TLS++
		case "COPY":
			c.Copy++
		case "64", "ABS64":
			c.Symbolic++
		default:
			c.Other++
		}
		if plt {
			f.PLT = append(f.PLT, loader.PLTEntry{Symbol: name, Lazy: lazy})
		}
	}
	for line := range strings.Lines(readelf(t, "-dW", path)) {
		value := ""
		if m := bracketed.FindStringSubmatch(line); m != nil {
			value = m[1]
		}
		number := func() int {
			n, _ := strconv.Atoi(strings.Fields(line)[2])
			return n / 8
		}
		switch {
		case strings.Contains(line, "Dynamic section at"):
			f.Dynamic = true
		case strings.Contains(line, "(NEEDED)"):
			f.Needed = append(f.Needed, value)
		case strings.Contains(line, "(SONAME)"):
			f.Soname = value
		case strings.Contains(line, "(RUNPATH)"), strings.Contains(line, "(RPATH)"):
			f.RunPath = value
		case strings.Contains(line, "(INIT_ARRAYSZ)"):
			f.Init = number()
		case strings.Contains(line, "(PREINIT_ARRAYSZ)"):
			f.Preinit = number()
		case strings.Contains(line, "(INIT)"):
			f.InitFunc = true
		case strings.Contains(line, "(TEXTREL)"):
			f.TextRel = true
		case strings.Contains(line, "BIND_NOW"), strings.Contains(line, "(FLAGS_1)") && strings.Contains(line, " NOW"):
			f.BindNow = true
		}
		f.PIE = f.PIE || strings.Contains(line, "(FLAGS_1)") && strings.Contains(line, " PIE")
	}
	headers := readelf(t, "-lW", path)
	if m := interpreter.FindStringSubmatch(headers); m != nil {
		f.Interpreter = m[1]
	}
	if strings.Contains(headers, "GNU_RELRO") {
		f.RELRO = loader.PartialRELRO
		if f.BindNow {
			f.RELRO = loader.FullRELRO
		}
	}
	f.Program = f.PIE || f.Interpreter != "" && f.Soname == "" || strings.Contains(headers, "type is EXEC")
	return f
}

// build compiles a C program in a way that the name tells.
func build(t *testing.T, name, source string, flags ...string) string {
	t.Helper()
	cc, err := exec.LookPath("gcc")
	if err != nil {
		skip(t, "no C compiler")
	}
	out := filepath.Join(t.TempDir(), name)
	cmd := exec.Command(cc, append([]string{"-x", "c", "-", "-o", out}, flags...)...)
	cmd.Stdin = strings.NewReader(source)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	return out
}

const greeting = `#include <stdio.h>
#include <stdlib.h>
static int before(void) { return puts("constructor"); }
__attribute__((constructor)) static void one(void) { before(); }
__attribute__((constructor)) static void two(void) { before(); }
int main(int argc, char **argv) { printf("%s\n", getenv("HOME")); return atoi(argv[0]); }`

// TestFactsAgreeWithReadelf compares every fact with what readelf prints, for
// programs built each in another way, and for what this machine has.
func TestFactsAgreeWithReadelf(t *testing.T) {
	files := []string{
		build(t, "lazy", greeting, "-no-pie", "-Wl,-z,lazy"),
		build(t, "pie-lazy", greeting, "-pie", "-fPIE", "-Wl,-z,lazy"),
		build(t, "pie-now", greeting, "-pie", "-fPIE", "-Wl,-z,now,-z,relro"),
		build(t, "norelro", greeting, "-Wl,-z,norelro,-z,lazy"),
		build(t, "relr", greeting, "-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"),
		build(t, "static", greeting, "-static"),
		build(t, "static-pie", greeting, "-static-pie"),
		build(t, "library.so", greeting, "-shared", "-fPIC", "-Wl,-soname,libgreeting.so.1,-rpath,/opt"),
		systemLoader(t),
	}
	for _, pattern := range []string{
		"/usr/bin/python3", "/usr/bin/gdb", "/bin/bash", "/usr/bin/perl",
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib/x86_64-linux-gnu/libm.so.6", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
		"/usr/lib/x86_64-linux-gnu/libcrypto.so.3", "/usr/lib/x86_64-linux-gnu/libssl.so.3",
		"/lib/aarch64-linux-gnu/libc.so.6", "/usr/aarch64-linux-gnu/lib/libc.so.6", "/usr/aarch64-linux-gnu/lib/libm.so.6",
		"/usr/aarch64-linux-gnu/lib/libstdc++.so.6",
		filepath.Join(fetched, "*-*64", "*.so"),
	} {
		more, _ := filepath.Glob(pattern)
		files = append(files, more...)
	}
	for _, file := range files {
		t.Run(filepath.Base(filepath.Dir(file))+"/"+filepath.Base(file), func(t *testing.T) {
			got, want := *facts(t, file), readelfFacts(t, file)
			if !want.Dynamic { // readelf names the sections of a static program all the same
				want.PLT, want.GlobDats = nil, nil
				want.Init, want.Preinit = got.Init, got.Preinit
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-readelf +got:\n%s", diff)
			}
		})
	}
}

// TestFactsWithoutSections: the dynamic section alone tells the same.
func TestFactsWithoutSections(t *testing.T) {
	file := build(t, "pie", greeting, "-pie", "-fPIE", "-Wl,-z,lazy")
	whole := facts(t, file)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	clear(b[0x28:0x30]) // e_shoff
	clear(b[0x3c:0x40]) // e_shnum, e_shstrndx
	o, err := symbolize.OpenObject(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	stripped, err := loader.FactsOf(o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(whole, stripped); diff != "" {
		t.Errorf("-with sections +without:\n%s", diff)
	}
}

// TestLazySymbol: the second argument of _dl_fixup names a symbol, by index on
// amd64, by offset on arm64.
func TestLazySymbol(t *testing.T) {
	f := facts(t, build(t, "lazy", greeting, "-Wl,-z,lazy"))
	names := map[string]bool{}
	for i := range f.PLT {
		a, errA := f.LazySymbol("amd64", uint64(i))
		b, errB := f.LazySymbol("arm64", uint64(24*i))
		if a != b || errA != nil || errB != nil {
			t.Errorf("entry %d is %q (%v) and %q (%v)", i, a, errA, b, errB)
		}
		names[a] = true
	}
	for _, want := range []string{"puts", "getenv", "atoi"} {
		if !names[want] {
			t.Errorf("%s is not among the %d lazily bound: %v", want, len(f.PLT), names)
		}
	}
	if _, err := f.LazySymbol("amd64", uint64(len(f.PLT))); err == nil {
		t.Error("an index behind the table has a name")
	}
	if _, err := f.LazySymbol("arm64", 25); err == nil {
		t.Error("an offset inside of a relocation has a name")
	}
}
