package capture_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	exptrace "golang.org/x/exp/trace"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// goSubject is a build of testdata/subjects/go/goroutines.
type goSubject struct {
	name      string
	toolchain string // as GOTOOLCHAIN; empty: the one that tests run with
	flags     []string
	cgo       bool
}

// goSubjects are builds of all kinds by this toolchain, and plain ones by the
// others that are in the module cache.
func goSubjects(t *testing.T) []goSubject {
	t.Helper()
	all := []goSubject{
		{name: "exe"},
		{name: "stripped", flags: []string{"-ldflags=-s -w"}},
		{name: "pie", flags: []string{"-buildmode=pie", "-ldflags=-s -w"}},
		{name: "cgo", cgo: true},
	}
	out, err := exec.Command("go", "env", "GOMODCACHE").Output()
	if err != nil {
		t.Fatal(err)
	}
	found, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(out)), "golang.org", "toolchain@v0.0.1-go1.2*."+runtime.GOOS+"-"+runtime.GOARCH))
	for _, dir := range found {
		version := strings.TrimSuffix(strings.TrimPrefix(filepath.Base(dir), "toolchain@v0.0.1-"), "."+runtime.GOOS+"-"+runtime.GOARCH)
		all = append(all,
			goSubject{name: version, toolchain: version},
			goSubject{name: version + "-pie", toolchain: version, flags: []string{"-buildmode=pie", "-ldflags=-s -w"}})
	}
	return all
}

func (s goSubject) build(t *testing.T) string {
	t.Helper()
	if s.cgo {
		needTool(t, "gcc")
	}
	out := filepath.Join(t.TempDir(), "goroutines")
	source, err := filepath.Abs("../../testdata/subjects/go/goroutines/main.go")
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command("go", append(append([]string{"build", "-o", out}, s.flags...), source)...)
	c.Dir = t.TempDir() // outside of the module, which asks for a newer Go
	c.Env = append(os.Environ(), "GOFLAGS=", "GO111MODULE=off", "CGO_ENABLED=0")
	if s.cgo {
		c.Env = append(c.Env, "CGO_ENABLED=1")
	}
	if s.toolchain != "" {
		c.Env = append(c.Env, "GOTOOLCHAIN="+s.toolchain)
	}
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// plan plans the probes of goroutines as a session does.
func plan(t *testing.T, path string) (*probe.Goroutines, error) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	o, err := symbolize.OpenObject(f)
	if err != nil {
		t.Fatal(err)
	}
	language, version := o.Language()
	g, err := probe.PlanGoroutines(probe.Program{Object: o, Arch: o.Info.Machine, Go: language == symbolize.LanguageGo}, o, version)
	if g != nil {
		g.Path = path
	}
	return g, err
}

// watch records a Go program and builds its timeline.
func watch(t *testing.T, tracer *capture.Tracer, command ...string) *trace.Timeline {
	t.Helper()
	g, err := plan(t, command[0])
	if err != nil {
		t.Fatal(err)
	}
	tracer.WatchGoroutines(g, nil)
	raw, events := record(t, tracer, command...)
	if n := raw.Losses.Total(); n != 0 {
		t.Errorf("lost: %+v", raw.Losses)
	}
	tl, err := trace.Build(events, trace.BuildOptions{Arch: raw.Arch, Stop: raw.Stopped})
	if err != nil {
		t.Fatal(err)
	}
	return tl
}

// states are the times in Go's own four states.
type states struct{ running, runnable, syscall, waiting time.Duration }

func (s states) each() map[string]time.Duration {
	return map[string]time.Duration{"running": s.running, "runnable": s.runnable, "syscall": s.syscall, "waiting": s.waiting}
}

func statesOf(g *trace.GoroutineLife) (s states) {
	for i := range g.Intervals {
		d := time.Duration(g.Intervals[i].NS())
		switch state := g.Intervals[i].State; {
		case state.Running():
			s.running += d
		case state == trace.GoInSyscall:
			s.syscall += d
		case state == trace.GoCanRun:
			s.runnable += d
		default:
			s.waiting += d
		}
	}
	return s
}

// The same goroutines as runtime/trace in the same run, each as long in every
// state.
func TestGoroutinesEqualRuntimeTrace(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	for _, s := range goSubjects(t) {
		t.Run(s.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "trace")
			tl := watch(t, tracer, s.build(t), file)
			want := runtimeTrace(t, file)
			got := map[uint64]states{}
			for _, g := range tl.Goroutines {
				if _, dup := got[g.ID]; dup {
					t.Errorf("two goroutines %d", g.ID)
				}
				got[g.ID] = statesOf(g)
			}
			if len(want) < 500 {
				t.Fatalf("runtime/trace saw %d goroutines", len(want))
			}
			off := map[string][]time.Duration{}
			for id, w := range want {
				g, ok := got[id]
				if !ok {
					t.Errorf("goroutine %d of runtime/trace was not seen", id)
					continue
				}
				for state, d := range w.each() {
					off[state] = append(off[state], (g.each()[state] - d).Abs())
				}
			}
			for state, d := range off {
				slices.Sort(d)
				median, p95 := d[len(d)/2], d[len(d)*95/100]
				t.Logf("%-8s differs by %v at the median, %v at p95, %v at most, of %d goroutines", state, median, p95, d[len(d)-1], len(d))
				if median > 10*time.Microsecond || p95 > 100*time.Microsecond {
					t.Errorf("%s differs by %v at the median and %v at p95", state, median, p95)
				}
			}
		})
	}
}

// With more spinners than CPUs, what their goroutines had of a CPU is what the
// kernel scheduled their threads for over the same stretch, by its own clock of
// each thread: running is not CPU time. That clock has in it what Go's scheduler
// takes on those threads, and lacks what the hypervisor does.
//
// Kernels let a switch now and then pass without its tracepoint, as perf record
// shows too. A timeline that had to be bridged for it says so, and is no measure.
func TestGoroutinesOnCPUIsCPUTime(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := goSubject{}.build(t)
	g, err := plan(t, subject)
	if err != nil {
		t.Fatal(err)
	}
	tracer.WatchGoroutines(g, nil)
	for whole, runs := 0, 0; whole < 3; runs++ {
		if runs == 12 {
			t.Fatalf("of %d timelines %d were whole", runs, whole)
		}
		file := filepath.Join(t.TempDir(), "cpu")
		raw, events := record(t, tracer, subject, "spin", strconv.Itoa(2*runtime.NumCPU()), file)
		tl, err := trace.Build(events, trace.BuildOptions{Arch: raw.Arch, Stop: raw.Stopped})
		if err != nil {
			t.Fatal(err)
		}
		var running, onCPU, want time.Duration
		for tid, scheduled := range threadTimes(t, file) {
			r, o := spun(t, tl, tl.Thread(tid, raw.Stopped))
			running, onCPU, want = running+r, onCPU+o, want+scheduled
		}
		t.Logf("running %v, on a CPU %v, scheduled %v, %+v", running, onCPU, want, tl.Repairs)
		if tl.Repairs.Total() > 0 {
			continue
		}
		whole++
		if running < onCPU*11/10 {
			t.Errorf("%v of running hold %v on a CPU: nothing competed", running, onCPU)
		}
		if (onCPU - want).Abs() > want/100 {
			t.Errorf("goroutines had %v of a CPU, their threads were scheduled for %v", onCPU, want)
		}
	}
}

// spun sums up what goroutines did on a thread between its two clock_gettime.
func spun(t *testing.T, tl *trace.Timeline, thread *trace.Thread) (running, onCPU time.Duration) {
	t.Helper()
	var ends []int64
	for _, c := range thread.Calls {
		if tl.SyscallName(c.Syscall) == "clock_gettime" {
			ends = append(ends, c.Until)
		}
	}
	if len(ends) != 2 {
		t.Fatalf("thread %d asked %d times for its CPU time", thread.TID, len(ends))
	}
	for _, g := range tl.Goroutines {
		for i := range g.Between(ends[0], ends[1]) {
			if i.Thread != thread {
				continue
			}
			if i.State.Running() {
				running += time.Duration(i.NS())
			}
			if i.State == trace.GoOnCPU {
				onCPU += time.Duration(i.NS())
			}
		}
	}
	return running, onCPU
}

// threadTimes reads what the subject wrote: its threads' CPU time by TID.
func threadTimes(t *testing.T, file string) map[int]time.Duration {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	times := map[int]time.Duration{}
	for line := range strings.Lines(string(b)) {
		var tid int
		var ns int64
		if _, err := fmt.Sscan(line, &tid, &ns); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		times[tid] = time.Duration(ns)
	}
	return times
}

// runtimeTrace sums up the goroutines that were born and died in a trace.
func runtimeTrace(t *testing.T, file string) map[uint64]states {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := exptrace.NewReader(bufio.NewReader(f))
	if err != nil {
		t.Fatal(err)
	}
	born, whole := map[exptrace.GoID]bool{}, map[uint64]states{}
	since, sums := map[exptrace.GoID]exptrace.Time{}, map[exptrace.GoID]states{}
	for {
		e, err := r.ReadEvent()
		if errors.Is(err, io.EOF) {
			return whole
		}
		if err != nil {
			t.Fatal(err)
		}
		if e.Kind() != exptrace.EventStateTransition {
			continue
		}
		c := e.StateTransition()
		if c.Resource.Kind != exptrace.ResourceGoroutine {
			continue
		}
		id := c.Resource.Goroutine()
		from, to := c.Goroutine()
		d := time.Duration(e.Time() - since[id])
		s := sums[id]
		switch from {
		case exptrace.GoNotExist:
			born[id] = true
		case exptrace.GoRunnable:
			s.runnable += d
		case exptrace.GoRunning:
			s.running += d
		case exptrace.GoSyscall:
			s.syscall += d
		case exptrace.GoWaiting:
			s.waiting += d
		}
		sums[id], since[id] = s, e.Time()
		if to == exptrace.GoNotExist && born[id] {
			whole[uint64(id)] = s
		}
	}
}
