package capture_test

import (
	"errors"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

// Cheap mode puts nothing into the subject and sees the goroutines that are
// there at events of the kernel: the long ones, with most of their CPU time.
func TestCheapGoroutines(t *testing.T) {
	tracer := needBPF(t, capture.Options{CheapGoroutines: true})
	for _, s := range goSubjects(t) {
		if s.toolchain != "" && strings.HasSuffix(s.name, "-pie") {
			continue
		}
		t.Run(s.name, func(t *testing.T) {
			tl := watch(t, tracer, s.build(t), "spin", strconv.Itoa(runtime.NumCPU()))
			if len(tl.Goroutines) == 0 {
				t.Fatalf("no goroutine was seen: %v", tracer.Probes())
			}
			var spinners int
			var goroutines, threads time.Duration
			for _, g := range tl.Goroutines {
				if g.StartPC == 0 || g.CreatedPC == 0 {
					t.Errorf("goroutine %d has no origin", g.ID)
				}
				var onCPU time.Duration
				for i := range g.Intervals {
					if i := &g.Intervals[i]; i.State == trace.GoOnCPU {
						onCPU += time.Duration(i.NS())
					}
				}
				if onCPU > 5*time.Millisecond {
					spinners++
				}
				goroutines += onCPU
			}
			for _, thread := range tl.Threads {
				for i := range thread.Intervals {
					if i := &thread.Intervals[i]; i.State.OnCPU() && thread.PID == tl.Goroutines[0].PID {
						threads += time.Duration(i.NS())
					}
				}
			}
			t.Logf("%d goroutines, %v of %v on the CPUs", len(tl.Goroutines), goroutines, threads)
			if spinners != runtime.NumCPU() || goroutines < threads/2 || goroutines > threads {
				t.Errorf("%d spinners, want %d; goroutines had %v of %v on the CPUs", spinners, runtime.NumCPU(), goroutines, threads)
			}
		})
	}
}

// Where goroutines cannot be seen everything else is, and the reason is told.
func TestGoroutinesRefused(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := goSubject{}.build(t)
	good, err := plan(t, subject)
	if err != nil {
		t.Fatal(err)
	}
	wrong := *good
	wrong.Layout.ID += 8
	for _, c := range []struct {
		name   string
		plan   *probe.Goroutines
		why    error
		decode error
	}{
		{"no plan", nil, probe.ErrNoGoroutines, nil},
		{"a layout of another version", &wrong, nil, capture.ErrLayout},
	} {
		t.Run(c.name, func(t *testing.T) {
			tracer.WatchGoroutines(c.plan, c.why)
			raw := recordRaw(t, tracer, subject, "spin", "1")
			events, err := raw.Decode()
			if !errors.Is(err, c.decode) {
				t.Errorf("decoding: %v, want %v", err, c.decode)
			}
			calls := 0
			for _, e := range events {
				switch e.(type) {
				case *trace.Goroutine:
					t.Fatal("goroutines are told")
				case *trace.Syscall:
					calls++
				}
			}
			if calls == 0 {
				t.Error("nothing else was recorded")
			}
			for _, p := range tracer.Probes() {
				if p.Name == "goroutines" && c.why != nil && p.Reason != c.why.Error() {
					t.Errorf("the reason is %q", p.Reason)
				}
			}
		})
	}
}
