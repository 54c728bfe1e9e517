package cli_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/testdata/subjects"
)

// allocations lists what a report says of an allocator.
func allocations(r *analysis.Report, name string) (all []analysis.Allocation) {
	for _, a := range r.Allocator {
		if a.Name == name {
			all = append(all, a)
		}
	}
	return all
}

// preloaded finds a library to preload, or skips.
func preloaded(t *testing.T, name string) string {
	t.Helper()
	found, _ := filepath.Glob("/usr/lib/*/" + name)
	if len(found) == 0 {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatalf("%s is not installed", name)
		}
		t.Skipf("needs %s", name)
	}
	return found[0]
}

var (
	straceMmap    = regexp.MustCompile(`mmap\([^,]+, ([0-9]+), [^,]+, [^,]*MAP_ANONYMOUS`)
	straceSyscall = regexp.MustCompile(`^[0-9]+ +(\w+)\((.*)`)
)

// A jemalloc that is stripped of its symbols is recognised by what it looks up,
// and maps as many bytes as strace says.
func TestJemallocIsRecognised(t *testing.T) {
	needRoot(t)
	library := preloaded(t, "libjemalloc.so.2")
	dir := openDir(t)
	path := extensionC(t, dir, "allocates", "", "volatile char *p = malloc(64); p[0] = 1;")
	r := recordOne(t, dir, []string{"--env", "LD_PRELOAD=" + library}, path)

	log := filepath.Join(dir, "strace")
	c := exec.Command("strace", "-f", "-o", log, "-E", "LD_PRELOAD="+library, path)
	_ = c.Run() // it fails for want of an environment, which comes later
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := bytes.Cut(text, []byte(`readlink("/etc/malloc.conf"`))
	if !found {
		t.Fatal("strace shows no look-up of /etc/malloc.conf")
	}
	own := []string{"mmap", "munmap", "madvise", "brk", "sched_getaffinity", "sysinfo", "getrandom", "open", "openat", "read", "close"}
	want := int64(0)
	for line := range strings.Lines(string(text)) {
		m := straceSyscall.FindStringSubmatch(line)
		if m == nil {
			continue // the rest of the look-up
		}
		if !slices.Contains(own, m[1]) {
			break
		}
		if m := straceMmap.FindStringSubmatch(line); m != nil {
			n, _ := strconv.ParseInt(m[1], 10, 64)
			want += n
		}
	}
	got := allocations(r, "jemalloc")
	if len(got) == 0 || want == 0 {
		t.Fatalf("no jemalloc among %+v; strace says %d bytes", r.Allocator, want)
	}
	if got := got[slices.IndexFunc(got, func(a analysis.Allocation) bool {
		return strings.Contains(a.Function, "malloc.conf")
	})]; int64(got.MappedBytes) != want || got.NS <= 0 || got.Phase == "" {
		t.Errorf("%+v, strace says %d bytes mapped", got, want)
	}
}

// A jemalloc's prefix is known from the configuration that it looks up: what
// functions of that name map is jemalloc's, and what others map is not.
func TestJemallocWithAnyPrefix(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path := extensionC(t, dir, "prefixed", `
#include <sys/mman.h>
#include <unistd.h>
static void *map(long size) { return mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0); }
__attribute__((noinline, noclone)) void *own_arena_new(void) { void *p = map(3 << 20); *(volatile char *)p = 1; return p; }
__attribute__((noinline, noclone)) void *others(void) { void *p = map(5 << 20); *(volatile char *)p = 1; return p; }
`, `
	char conf[64];
	readlink("/etc/own_malloc.conf", conf, sizeof conf);
	getppid();
	own_arena_new();
	others();`)
	got := map[string]float64{}
	for _, a := range allocations(recordOne(t, dir, nil, path), "jemalloc") {
		got[a.Function] += float64(a.MappedBytes)
	}
	if got["own_arena_new"] != 3<<20 || got["others"] != 0 || len(got) != 2 {
		t.Errorf("jemalloc's functions mapped %v, want 3 MB by own_arena_new and the initialisation", got)
	}
}

func TestAllocators(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path := extensionC(t, dir, "allocates", "", "volatile char *p = malloc(64 << 20); for (int i = 0; i < 100; i++) p[i * 4096] = 1;")
	for _, c := range []struct {
		name  string
		flags []string
	}{
		{"glibc", nil},
		{"mimalloc", []string{"--env", "LD_PRELOAD=libmimalloc.so.2"}},
		{"tcmalloc", []string{"--env", "LD_PRELOAD=libtcmalloc_minimal.so.4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			flags := slices.Clone(c.flags)
			if flags != nil {
				flags[1] = "LD_PRELOAD=" + preloaded(t, strings.TrimPrefix(flags[1], "LD_PRELOAD="))
			}
			r := recordOne(t, dir, flags, path)
			var mapped, faults float64
			for _, a := range allocations(r, c.name) {
				mapped += float64(a.MappedBytes)
				faults += a.Faults
				if a.Phase == "" || a.NS <= 0 {
					t.Errorf("%+v", a)
				}
			}
			if mapped < 64<<20 || faults < 1 {
				t.Errorf("%v bytes and %v faults, want those of 64 MB: %+v", mapped, faults, r.Allocator)
			}
		})
	}
	t.Run("Go", func(t *testing.T) {
		r := recordOne(t, dir, nil, subjects.Build(t, subjects.GoStripped))
		var functions []string
		for _, a := range allocations(r, "go") {
			functions = append(functions, a.Function)
		}
		for _, f := range []string{"runtime.mallocinit", "runtime.gcinit", "runtime.gcenable"} {
			if !slices.Contains(functions, f) {
				t.Errorf("%s is not among %q", f, functions)
			}
		}
	})
}

// musl's loader has stages of its own, an unknown loader is one span, and both
// are said.
func TestOtherLoaders(t *testing.T) {
	needRoot(t)
	phasesOf := func(r *analysis.Report) string { return strings.Join(phases(r), " ") }
	const dynamic = "exec loader runtime_init register next"
	said := func(r *analysis.Report, text string) bool {
		return slices.ContainsFunc(r.Probes, func(p analysis.Probe) bool { return strings.Contains(p.Reason, text) }) ||
			slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, text) })
	}
	t.Run("musl", func(t *testing.T) {
		if _, err := exec.LookPath("musl-gcc"); err != nil && os.Getenv("INITPROF_FORBID_SKIP") == "" {
			t.Skip("needs musl-gcc")
		}
		dir := openDir(t)
		extensionC(t, dir, "musl", "", "")
		c := exec.Command("musl-gcc", "-O1", "-o", "musl", "musl.c")
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		r := recordOne(t, dir, nil, filepath.Join(dir, "musl"))
		if phasesOf(r) != dynamic {
			t.Errorf("phases %q, want %q", phasesOf(r), dynamic)
		}
		names := map[string]bool{}
		for _, p := range r.Parts {
			if p.Phase == "loader" && p.NS > 0 {
				names[p.Name] = true
			}
		}
		for _, stage := range []string{"__dls2b", "__dls3"} {
			if !names[stage] {
				t.Errorf("the loader's stage %s is not among the parts %+v", stage, r.Parts)
			}
		}
	})
	t.Run("unknown", func(t *testing.T) {
		dir := openDir(t)
		path := extensionC(t, dir, "unknown", "", "", "-Wl,--dynamic-linker="+filepath.Join(dir, "ld-other.so"))
		ld, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2")
		if err != nil {
			t.Skip(err)
		}
		for _, name := range []string{"_dl_debug_state\x00", "\nrelocation processing: %s%s\n"} {
			ld = bytes.ReplaceAll(ld, []byte(name), append([]byte{name[0], 'X'}, name[2:]...))
		}
		if err := os.WriteFile(filepath.Join(dir, "ld-other.so"), ld, 0o755); err != nil {
			t.Fatal(err)
		}
		r := recordOne(t, dir, nil, path)
		if phasesOf(r) != dynamic {
			t.Errorf("phases %q, want %q", phasesOf(r), dynamic)
		}
		if !said(r, "neither glibc's nor musl's") {
			t.Errorf("nothing says that the loader is unknown: %+v", r.Probes)
		}
	})
}
