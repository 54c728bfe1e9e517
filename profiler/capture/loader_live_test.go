package capture_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// locateLoader finds the loader of a program, or skips where it is not glibc's.
func locateLoader(t testing.TB, program string) (path string, l *loader.Loader) {
	t.Helper()
	f, err := os.Open(program)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	o, err := symbolize.OpenObject(f)
	if err != nil {
		t.Fatal(err)
	}
	// Points are looked for by the name that the kernel has for the file.
	if path, err = filepath.EvalSymlinks(o.Info.Interpreter); err != nil {
		t.Fatal(err)
	}
	ld, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ld.Close() }()
	if l, err = loader.Locate(ld, loader.Options{}); err != nil {
		t.Fatal(err)
	}
	if l.Kind != loader.Glibc {
		t.Skipf("%s is not glibc's", path)
	}
	return path, l
}

var statistics = regexp.MustCompile(`\sfinal number of relocations: ([0-9]+)`)

// The loader counts each symbol that it looks up (LD_DEBUG=statistics). As many
// look-ups are recorded, to the process's end, and each lazily bound symbol is
// one of them.
func TestLoaderStatistics(t *testing.T) {
	python := needTool(t, "/usr/bin/python3")
	tracer := needBPF(t, capture.Options{NoSamples: true})
	path, l := locateLoader(t, python)
	var points []capture.Point
	for _, name := range []string{loader.Fixup, loader.Relocate, "_dl_lookup_symbol_x"} {
		f := l.Function(name)
		if !f.Found() {
			t.Fatalf("%s: %s", name, f.Reason)
		}
		action := probe.RecordCallObject
		if name == "_dl_lookup_symbol_x" {
			action = probe.RecordCallText0
		}
		points = append(points, capture.Point{Path: path, Point: probe.Point{Offset: f.Entry.Offset, Action: action, Kind: probe.Call, Name: name}})
	}
	tracer.WatchPoints(points)
	for _, p := range tracer.Probes() {
		if p.Reason != "" {
			t.Logf("%s: %s", p.Name, p.Reason)
		}
	}
	for _, bindNow := range []string{"", "1"} {
		log := filepath.Join(t.TempDir(), "log")
		raw, events := record(t, tracer, "/usr/bin/env", "LD_DEBUG=statistics", "LD_DEBUG_OUTPUT="+log, "LD_BIND_NOW="+bindNow,
			python, "-c", "import ssl, ctypes, socket")
		if n := raw.Losses.Total(); n != 0 {
			t.Errorf("lost: %+v", raw.Losses)
		}
		_, python := subjectPID(t, events, python)
		calls := map[string][]*trace.FunctionCall{}
		for _, e := range events {
			if c, ok := e.(*trace.FunctionCall); ok && c.Time > python.Time { // not of env itself
				calls[c.Name] = append(calls[c.Name], c)
			}
		}
		lookups := calls["_dl_lookup_symbol_x"]
		inside := func(outer *trace.FunctionCall) (n int) {
			for _, c := range lookups {
				// That a function of the C library has the vDSO's asked for is no binding.
				if c.TID == outer.TID && outer.Time < c.Time && c.Time < outer.End && !strings.HasPrefix(c.Text, "__vdso_") {
					n++
				}
			}
			return n
		}
		files, _ := filepath.Glob(log + ".*")
		if len(files) != 1 {
			t.Fatalf("the loader wrote %d logs", len(files))
		}
		said, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		m := statistics.FindSubmatch(said)
		if m == nil {
			t.Fatalf("the loader says:\n%s", said)
		}
		want, _ := strconv.Atoi(string(m[1]))
		eager := 0
		for _, c := range calls[loader.Relocate] {
			eager += inside(c)
		}
		t.Logf("LD_BIND_NOW=%q: %d look-ups, the loader says %d; %d symbols bound lazily, %d look-ups in %d relocations",
			bindNow, len(lookups), want, len(calls[loader.Fixup]), eager, len(calls[loader.Relocate]))
		if len(lookups) != want {
			t.Errorf("%d look-ups were recorded, the loader counted %d", len(lookups), want)
		}
		if lazy := len(calls[loader.Fixup]); (lazy == 0) != (bindNow != "") {
			t.Errorf("%d symbols bound lazily", lazy)
		}
		for _, c := range calls[loader.Fixup] {
			if n := inside(c); n != 1 {
				t.Errorf("a binding makes %d look-ups, want one", n)
			}
		}
	}
}
