package capture_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
)

// watching is how much of a probe there is.
type watching int

const (
	unprobed watching = iota
	trapped           // the probes are hit, and their programs find that it is none of theirs
	recorded
)

// timed runs a program that prints a duration in nanoseconds.
func timed(b *testing.B, tracer *capture.Tracer, how watching, command ...string) int64 {
	b.Helper()
	nonce := rand.Uint64()
	if how != unprobed {
		armed := nonce
		if how == trapped {
			armed++
		}
		if err := tracer.Arm(armed, 0); err != nil {
			b.Fatal(err)
		}
	}
	holder := exec.Command("/proc/self/exe", command...)
	holder.Env = []string{"CAPTURE_TEST_NONCE=" + strconv.FormatUint(nonce, 10)}
	holder.Stdin = strings.NewReader("x")
	out, err := holder.Output()
	if err != nil {
		b.Fatal(err)
	}
	if how != unprobed {
		raw, err := tracer.Stop()
		if err != nil || raw.Losses.Total() != 0 {
			b.Fatalf("%v, lost %+v", err, raw.Losses)
		}
	}
	ns, err := strconv.ParseInt(string(bytes.TrimSpace(out)), 10, 64)
	if err != nil {
		b.Fatal(err)
	}
	return ns
}

// costs reports what one hit of points costs, of n hits in a run: the least, the
// median and the quartiles of the differences of a watched run and one without
// probes beside it; and the median of what the kernel's traps alone cost.
func costs(b *testing.B, points []capture.Point, n int, unit string, command ...string) {
	b.Helper()
	tracer, err := capture.New(capture.Options{NoSyscalls: true, NoSched: true, NoFaults: true, NoSamples: true})
	if err != nil {
		b.Skip(err)
	}
	defer func() { _ = tracer.Close() }()
	var differences, traps []float64
	for b.Loop() {
		without := timed(b, tracer, unprobed, command...)
		tracer.WatchPoints(points)
		trapped := timed(b, tracer, trapped, command...)
		with := timed(b, tracer, recorded, command...)
		tracer.WatchPoints(nil)
		differences = append(differences, float64(with-without)/float64(n))
		traps = append(traps, float64(trapped-without)/float64(n))
	}
	slices.Sort(differences)
	slices.Sort(traps)
	b.ReportMetric(traps[len(traps)/2], "ns/"+unit+"-traps-median")
	for _, q := range []struct {
		name string
		at   int
	}{{"min", 0}, {"p25", 1}, {"median", 2}, {"p75", 3}} {
		b.ReportMetric(differences[(len(differences)-1)*q.at/4], "ns/"+unit+"-"+q.name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkLazyBinding measures what it costs to record a lazily bound symbol,
// in a program that measures its CPU time for 2,000 of them.
func BenchmarkLazyBinding(b *testing.B) {
	const symbols = 2000
	dir := b.TempDir()
	var library, declared, called strings.Builder
	for i := range symbols {
		fmt.Fprintf(&library, "int f%d(void) { return %d; }\n", i, i)
		fmt.Fprintf(&declared, "int f%d(void);\n", i)
		fmt.Fprintf(&called, "n += f%d();\n", i)
	}
	program := "#include <stdio.h>\n#include <time.h>\n" + declared.String() + `
static long long now(void) { struct timespec t; clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t); return t.tv_sec * 1000000000LL + t.tv_nsec; }
int main(void) { int n = 0; now(); long long from = now();
` + called.String() + `printf("%lld\n", now() - from); return n < 0; }`
	for name, source := range map[string]string{"library.c": library.String(), "program.c": program} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(source), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-o", "library.so", "library.c"},
		{"-o", "program", "program.c", "-Wl,-z,lazy", "-Wl,-rpath," + dir, "library.so"},
	} {
		c := exec.Command("gcc", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			b.Fatalf("%v\n%s", err, out)
		}
	}
	costs(b, fixupPoints(b, filepath.Join(dir, "program")), symbols, "binding", filepath.Join(dir, "program"))
}

// fixupPoints plans the probe of _dl_fixup in a program's loader.
func fixupPoints(b *testing.B, program string) (points []capture.Point) {
	b.Helper()
	path, l := locateLoader(b, program)
	for _, p := range l.Plan(false).Points {
		if p.Name == loader.Fixup {
			points = append(points, capture.Point{Path: path, Point: p})
		}
	}
	if len(points) == 0 {
		b.Fatal("_dl_fixup was not found")
	}
	return points
}

// BenchmarkPackageInit measures what it costs to record a package's
// initialisation, in a program that times 400 of them.
func BenchmarkPackageInit(b *testing.B) {
	const packages = 400
	dir := b.TempDir()
	write := func(name, content string) {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write("go.mod", "module packages\n\ngo 1.22\n")
	write("first/first.go", "package first\n\nimport \"time\"\n\nvar Start = time.Now()\n\nvar Count int\n")
	main := "package main\n\nimport (\n\t\"fmt\"\n\t\"time\"\n\n\t\"packages/first\"\n"
	for i := range packages {
		name := fmt.Sprintf("p%03d", i)
		write(name+"/p.go", "package "+name+"\n\nimport \"packages/first\"\n\nfunc init() { first.Count++ }\n")
		main += "\t_ \"packages/" + name + "\"\n"
	}
	write("main.go", main+")\n\nfunc main() { fmt.Println(time.Since(first.Start).Nanoseconds()) }\n")
	c := exec.Command("go", "build", "-o", "program", ".")
	c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	path := filepath.Join(dir, "program")
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	o, err := symbolize.OpenObject(f)
	if err != nil {
		b.Fatal(err)
	}
	var points []capture.Point
	for _, p := range probe.For(probe.Program{Object: o, Entry: o.Info.Entry, Arch: o.Info.Machine, Go: true}).Points {
		if p.Name == "runtime.doInit1" {
			points = append(points, capture.Point{Path: path, Point: p})
		}
	}
	if len(points) != 1 {
		b.Fatalf("runtime.doInit1 has %d points", len(points))
	}
	costs(b, points, packages, "package", path)
}
