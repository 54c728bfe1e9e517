package capture_test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/trace"
)

// needTool skips where a program that tells the truth is missing.
func needTool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

// subjectPID finds the process that executed path.
func subjectPID(t *testing.T, events []trace.Event, path string) (pid int, exec *trace.Exec) {
	t.Helper()
	var others []string
	for _, e := range events {
		if e, ok := e.(*trace.Exec); ok {
			if e.Path == path {
				return e.PID, e
			}
			others = append(others, e.Path)
		}
	}
	t.Fatalf("nobody executed %s, but %q; %d events", path, others, len(events))
	return 0, nil
}

const deterministic = `
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int argc, char **argv) {
	long pages = argc > 1 ? atol(argv[1]) : 0;
	for (int i = 0; i < 50; i++) { int fd = open("/etc/hostname", O_RDONLY); char b[64]; if (read(fd, b, sizeof b) < 0) return 1; close(fd); }
	for (int i = 0; i < 7; i++) { pid_t c = fork(); if (c == 0) { getuid(); _exit(0); } waitpid(c, 0, 0); }
	char *at = mmap(0, (pages + 1) * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise(at, (pages + 1) * 4096, MADV_NOHUGEPAGE);
	for (long i = 0; i < pages; i++) at[i * 4096] = 1;
	return 0;
}`

// Entries of each system call equal strace's in the same run, for a program and
// its children, save those that never return, which strace -c leaves out.
func TestSystemCallsEqualStrace(t *testing.T) {
	strace := needTool(t, "strace")
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, deterministic)
	table := filepath.Join(t.TempDir(), "table")
	raw, events := record(t, tracer, strace, "-f", "-c", "-o", table, subject)
	if n := raw.Losses.Total(); n != 0 {
		t.Errorf("lost: %+v", raw.Losses)
	}
	pid, began := subjectPID(t, events, subject)
	ours := map[int]bool{pid: true}
	got := map[string]int{}
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Fork:
			if ours[e.PID] {
				ours[e.ChildPID] = true
			}
		case *trace.Syscall:
			name := trace.SyscallName(raw.Arch, e.Number)
			// strace counts from its first stop, inside the successful execve.
			if ours[e.PID] && e.Time >= began.Time && !strings.HasPrefix(name, "exit") {
				got[name]++
			}
		}
	}
	want := straceTable(t, table)
	delete(want, "execve")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("system calls (- strace, + initprof):\n%s", diff)
	}
}

// straceTable reads what strace -c prints: name last, calls fourth.
func straceTable(t *testing.T, path string) map[string]int {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int{}
	lines := bufio.NewScanner(strings.NewReader(string(b)))
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		if n, err := strconv.Atoi(f[3]); err == nil {
			counts[f[len(f)-1]] = n
		}
	}
	return counts
}

// Minor faults equal perf stat's in the same run.
func TestFaultsEqualPerfStat(t *testing.T) {
	perf := needTool(t, "perf")
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, deterministic)
	for _, pages := range []string{"0", "777"} {
		table := filepath.Join(t.TempDir(), "table")
		raw, events := record(t, tracer, perf, "stat", "-x", ",", "-e", "minor-faults,major-faults", "-o", table, subject, pages)
		if n := raw.Losses.Total(); n != 0 {
			t.Errorf("lost: %+v", raw.Losses)
		}
		pid, _ := subjectPID(t, events, subject)
		ours := map[int]bool{pid: true}
		// perf counts from inside the execve, where the new image is begun.
		var from int64
		for _, e := range events {
			if s, ok := e.(*trace.Syscall); ok && s.PID == pid && s.Path == subject && s.Return == 0 && s.End != 0 {
				from = s.Time
			}
		}
		minor, major := 0, 0
		for _, e := range events {
			switch e := e.(type) {
			case *trace.Fork:
				if ours[e.PID] && e.Time > from {
					ours[e.ChildPID] = true
				}
			case *trace.Fault:
				if !ours[e.PID] || e.Time < from || e.End == 0 {
					continue
				}
				if e.Major {
					major++
				} else {
					minor++
				}
			}
		}
		b, err := os.ReadFile(table)
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]int{}
		for line := range strings.Lines(string(b)) {
			f := strings.Split(line, ",")
			if len(f) > 2 {
				want[f[2]], _ = strconv.Atoi(f[0])
			}
		}
		t.Logf("%s pages: %d minor, %d major; perf stat: %v", pages, minor, major, want)
		if minor != want["minor-faults"] || major != want["major-faults"] {
			t.Errorf("%s pages: %d minor and %d major faults, perf stat says %v", pages, minor, major, want)
		}
	}
}

// A sleep shows as waiting in that call, and each thread's states tile its life.
func TestSleepIsWaiting(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, `
#include <time.h>
int main(void) { struct timespec t = {0, 25000000}; nanosleep(&t, 0); return 0; }`)
	raw, events := record(t, tracer, subject)
	tl, err := trace.Build(events, trace.BuildOptions{Arch: raw.Arch, Stop: raw.Stopped})
	if err != nil {
		t.Fatal(err)
	}
	if err := tl.Check(); err != nil {
		t.Fatal(err)
	}
	var waited, call time.Duration
	for _, thread := range tl.Threads {
		for _, i := range thread.Intervals {
			if i.Syscall != nil && tl.SyscallName(i.Syscall.Syscall) == "clock_nanosleep" {
				call += time.Duration(i.NS())
				if i.State == trace.StateWaiting {
					waited += time.Duration(i.NS())
				}
			}
		}
	}
	const want = 25 * time.Millisecond
	// How much later than asked for it wakes is the machine's matter: a busy one
	// shows that as runnable, not as waiting.
	if waited < want || waited > want+time.Millisecond {
		t.Errorf("waited %v of a sleep of %v (the call took %v)", waited, want, call)
	}
}

// The first thing seen of a program is in its first microseconds: in ld.so
// where there is one, else at the program's own entry.
func TestSeesTheFirstInstructions(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	for _, c := range []struct {
		name  string
		flags []string
		in    string
	}{{"dynamic", nil, "ld-linux"}, {"static", []string{"-static"}, "subject"}} {
		t.Run(c.name, func(t *testing.T) {
			subject := compileC(t, "int main(void) { return 0; }", c.flags...)
			_, events := record(t, tracer, subject)
			pid, loaded := subjectPID(t, events, subject)
			var began int64 // execve's return: the first instruction runs
			var first *trace.Fault
			var mappings []*trace.Mapping
			for _, e := range events {
				switch e := e.(type) {
				case *trace.Syscall:
					if e.PID == pid && e.Path == subject && e.End != 0 && e.Return == 0 {
						began = e.End
					}
				case *trace.Mapping:
					mappings = append(mappings, e)
				case *trace.Fault:
					if e.PID == pid && e.Time > loaded.Time && !e.Kernel && first == nil {
						first = e
					}
				}
			}
			if first == nil || began == 0 {
				t.Fatalf("execve returned at %d, first fault %+v", began, first)
			}
			if after := time.Duration(first.Time - began); after > 500*time.Microsecond {
				t.Errorf("the first event is %v behind the first instruction", after)
			}
			var where string
			for _, m := range mappings {
				if m.PID == pid && m.Start <= first.Stack.User[0] && first.Stack.User[0] < m.Limit {
					where = m.Path
				}
			}
			if !strings.Contains(where, c.in) {
				t.Errorf("the first event is at %#x in %q, want %s", first.Stack.User[0], where, c.in)
			}
		})
	}
}
