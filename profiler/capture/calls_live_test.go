package capture_test

import (
	"debug/elf"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

// Built without optimisation, so that every function begins with an instruction
// that the kernel emulates.
const callers = `
#include <setjmp.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
static jmp_buf out;
long add(long a, long b, long c) { return a + b + c; }
volatile char first;
void named(const char *name) { if (name) first = *name; }
void second(int n, const char *name) { first = *name + n; }
void leaves(void) { longjmp(out, 1); }
void around(void) { leaves(); }
void sleeps(void) { struct timespec t = {0, 20000000}; nanosleep(&t, 0); }
void touches(char *p) { for (int i = 0; i < 5; i++) p[i * 4096] = 1; }
long tail_end(long a) { return a + 1; }
__attribute__((optimize("O2"))) long tail(long a) { return tail_end(a); }
int recurses(int n) { return n ? recurses(n - 1) + 1 : 0; }
int main(void) {
	if (tail(41) != 42) return 1;
	for (int i = 0; i < 20; i++) if (!setjmp(out)) around();
	for (long i = 0; i < 300; i++) add(i, 2, 3);
	named("/opt/one"), named(0), second(1, "two");
	sleeps();
	char *p = mmap(0, 8 * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(p, 8 * 4096, MADV_NOHUGEPAGE);
	touches(p);
	return recurses(6) != 6;
}`

// pointsOf finds functions of an ELF file by its symbols.
func pointsOf(t *testing.T, path string, actions map[string]probe.Action) (points []capture.Point) {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	symbols, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range symbols {
		action, wanted := actions[s.Name]
		if !wanted {
			continue
		}
		for _, p := range f.Progs {
			if p.Type == elf.PT_LOAD && s.Value >= p.Vaddr && s.Value < p.Vaddr+p.Filesz {
				points = append(points, capture.Point{
					Path:  path,
					Point: probe.Point{Offset: s.Value - p.Vaddr + p.Off, Action: action, Kind: probe.Call, Name: s.Name},
				})
			}
		}
	}
	if len(points) != len(actions) {
		t.Fatalf("found %d of %d functions", len(points), len(actions))
	}
	return points
}

// A function with several points is listed once: what is counted is its calls.
func TestPointsOfOneFunctionAreOneProbe(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, callers, "-O0", "-fno-omit-frame-pointer")
	point := pointsOf(t, subject, map[string]probe.Action{"add": probe.RecordMark})[0]
	behind := point
	behind.Offset += 4 // the instruction behind the first two on x86-64, the second on arm64
	tracer.WatchPoints([]capture.Point{point, behind})
	record(t, tracer, subject)
	var listed []capture.Probe
	for _, p := range tracer.Probes() {
		if p.Name == "uprobe add" {
			listed = append(listed, p)
		}
	}
	if len(listed) != 1 || listed[0].Reason != "" {
		t.Errorf("listed as %+v", listed)
	}
}

// Every call of a probed function is recorded with what it was given, returned,
// took and faulted, whether it returns or leaves by longjmp.
func TestFunctionCalls(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, callers, "-O0", "-fno-omit-frame-pointer")
	tracer.WatchPoints(pointsOf(t, subject, map[string]probe.Action{
		"add": probe.RecordCall, "named": probe.RecordCallText0, "second": probe.RecordCallText1,
		"leaves": probe.RecordCall, "around": probe.RecordCall, "sleeps": probe.RecordCall,
		"touches": probe.RecordCall, "recurses": probe.RecordCall, "tail_end": probe.RecordCall, "tail": probe.RecordCall,
	}))
	raw, events := record(t, tracer, subject)
	for _, p := range tracer.Probes() {
		if p.Reason != "" {
			t.Fatalf("%s: %s", p.Name, p.Reason)
		}
	}
	if n := raw.Losses.Total(); n != 0 {
		t.Errorf("lost: %+v", raw.Losses)
	}
	calls := map[string][]*trace.FunctionCall{}
	for _, e := range events {
		if c, ok := e.(*trace.FunctionCall); ok {
			calls[c.Name] = append(calls[c.Name], c)
		}
	}
	if n := len(calls["add"]); n != 300 {
		t.Fatalf("%d calls of add, want 300", n)
	}
	for i, c := range calls["add"] {
		if c.End < c.Time || c.Args != [3]uint64{uint64(i), 2, 3} || c.Return != uint64(i+5) {
			t.Fatalf("call %d of add: %+v", i, c)
		}
		if len(c.Stack.User) == 0 || c.Stack.User[0] == 0 {
			t.Fatalf("call %d of add has no stack", i)
		}
	}
	if n := calls["named"]; len(n) != 2 || n[0].Text != "/opt/one" || n[1].Text != "" {
		t.Errorf("named: %+v", n)
	}
	if n := calls["second"]; len(n) != 1 || n[0].Text != "two" {
		t.Errorf("second: %+v", n)
	}
	for _, name := range []string{"leaves", "around"} {
		if n := calls[name]; len(n) != 20 || n[0].End != 0 || n[19].End != 0 {
			t.Errorf("%s left by longjmp: %d calls", name, len(n))
		}
	}
	for _, name := range []string{"tail", "tail_end"} {
		if n := calls[name]; len(n) != 1 || n[0].Return != 42 {
			t.Errorf("%s: %+v", name, n)
		}
	}
	if n := calls["sleeps"]; len(n) != 1 || n[0].End-n[0].Time < int64(20*time.Millisecond) {
		t.Errorf("sleeps: %+v", n)
	}
	if n := calls["touches"]; len(n) != 1 || n[0].Minor != 5 || n[0].Major != 0 {
		t.Errorf("touches: %+v", n)
	}
	depths := map[uint64]int{}
	for _, c := range calls["recurses"] {
		depths[c.Args[0]]++
		if c.Return != c.Args[0] {
			t.Errorf("recurses(%d) returned %d", c.Args[0], c.Return)
		}
	}
	if len(depths) != 7 {
		t.Errorf("recursion: %v", depths)
	}
}
