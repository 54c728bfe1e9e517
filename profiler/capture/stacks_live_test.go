package capture_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// userStack returns the stack of an event that has one.
func userStack(e trace.Event) trace.Stack {
	switch e := e.(type) {
	case *trace.Syscall:
		return e.Stack
	case *trace.Switch:
		return e.Stack
	case *trace.Fault:
		return e.Stack
	case *trace.Sample:
		return e.Stack
	}
	return trace.Stack{}
}

// chain gives one of the programs of testdata/chain, compiled without frame
// pointers; INITPROF_CHAINS names a folder that holds them already.
func chain(t *testing.T, name string) string {
	t.Helper()
	if dir := os.Getenv("INITPROF_CHAINS"); dir != "" {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			t.Skipf("not compiled for this machine: %v", err)
		}
		return path
	}
	out := filepath.Join(t.TempDir(), name)
	source := filepath.Join("../../testdata/chain", name)
	command := map[string][]string{
		"chain.c":  {"gcc", "-O2", "-fomit-frame-pointer"},
		"chain.cc": {"g++", "-O2", "-fomit-frame-pointer"},
		"chain.rs": {"rustc", "-O", "-C", "force-frame-pointers=no"},
	}[name]
	needTool(t, command[0])
	if b, err := exec.Command(command[0], append(command[1:], "-o", out, source)...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", name, err, b)
	}
	return out
}

// namer names the frames of a recording's stacks.
func namer(t *testing.T, events []trace.Event) func(e trace.Event) []string {
	t.Helper()
	store, _, err := symbolize.Collect(context.Background(), events, symbolize.Options{
		NoDebugFiles: true,
		Open: func(path string, _ *trace.Mapping) (io.ReaderAt, io.Closer, error) {
			f, err := os.Open(path)
			return f, f, err
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	resolver := store.Resolver(events)
	return func(e trace.Event) (names []string) {
		for i, a := range userStack(e).User {
			l := resolver.Resolve(e.Head().PID, e.Head().Time, a, false, i > 0)
			if len(l.Frames) == 0 {
				names = append(names, "")
			}
			for _, f := range l.Frames { // inlined calls included
				names = append(names, f.Function)
			}
		}
		return names
	}
}

// Stacks of programs without frame pointers are whole: from each of the four
// deeds over the forty links to main and its caller.
func TestChainsAreWhole(t *testing.T) {
	for _, name := range []string{"chain.c", "chain.cc", "chain.rs"} {
		t.Run(name, func(t *testing.T) {
			subject := chain(t, name)
			tracer := needBPF(t, capture.Options{})
			raw, events := record(t, tracer, subject)
			if n := raw.Losses.Total(); n != 0 {
				t.Errorf("lost: %+v", raw.Losses)
			}
			pid, began := subjectPID(t, events, subject)
			names := namer(t, events)
			link := regexp.MustCompile(`[lL]ink(\d+)`)
			entry := regexp.MustCompile(`(^|::)main$`)
			// whole tells whether the links are all there, in their order, and main and a caller behind them.
			whole := func(stack []string) bool {
				next := 0
				for i, n := range stack {
					if m := link.FindStringSubmatch(n); m != nil {
						if m[1] != strconv.Itoa(next) {
							return false
						}
						next++
					} else if entry.MatchString(n) {
						return next == 41 && i+1 < len(stack)
					}
				}
				return false
			}
			all, good, want := map[string]int{}, map[string]int{}, map[string]int{"sleep": 50, "off-cpu": 40, "write": 200, "fault": 256, "spin": 20}
			var bad []string
			for _, e := range events {
				if e.Head().PID != pid || e.Head().Time < began.Time || len(userStack(e).User) == 0 {
					continue
				}
				stack := names(e)
				deed := ""
				switch e := e.(type) {
				case *trace.Syscall:
					switch trace.SyscallName(raw.Arch, e.Number) {
					case "clock_nanosleep":
						deed = "sleep"
					case "write":
						deed = "write"
					}
				case *trace.Switch:
					if e.State == trace.SwitchSleeping {
						deed = "off-cpu"
					}
				case *trace.Fault:
					if strings.Contains(stack[0], "do_fault") {
						deed = "fault"
					}
				case *trace.Sample:
					if strings.Contains(stack[0], "do_spin") {
						deed = "spin"
					}
				}
				if deed == "" {
					continue
				}
				all[deed]++
				if whole(stack) && userStack(e).Truncated == trace.Complete {
					good[deed]++
				} else if len(bad) < 3 {
					bad = append(bad, trace.Truncations[userStack(e).Truncated])
					t.Logf("%s: %q", deed, stack)
				}
			}
			t.Logf("whole: %v of %v; %d copies of %d bytes in the mean", good, all, raw.Hits.Copies, raw.Hits.CopiedBytes/max(1, raw.Hits.Copies))
			for deed, n := range want {
				if all[deed] < n {
					t.Errorf("%s: %d events, want at least %d", deed, all[deed], n)
				}
				if good[deed]*100 < all[deed]*99 {
					t.Errorf("%s: %d of %d stacks are whole; %q", deed, good[deed], all[deed], bad)
				}
			}
		})
	}
}

// musl's libc has no unwinding tables and no frame pointers: a stack that ends in
// it says so, however near the thread's begin it is, and claims no more than it has.
func TestStacksWithoutTablesSaySo(t *testing.T) {
	source := filepath.Join(t.TempDir(), "subject.c")
	if err := os.WriteFile(source, []byte(`
#include <unistd.h>
__attribute__((noinline)) static int writes(int n) { for (int i = 0; i < 100; i++) n += write(2, "", 0); return n; }
int main(int argc, char **argv) { return writes(argc) < 0; }`), 0o644); err != nil {
		t.Fatal(err)
	}
	subject := filepath.Join(t.TempDir(), "subject")
	if b, err := exec.Command(needTool(t, "musl-gcc"), "-O2", "-fomit-frame-pointer", "-static", "-o", subject, source).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	raw, events := record(t, needBPF(t, capture.Options{}), subject)
	names := namer(t, events)
	said := 0
	for _, e := range events {
		s, ok := e.(*trace.Syscall)
		if !ok || trace.SyscallName(raw.Arch, s.Number) != "write" {
			continue
		}
		stack := names(e)
		switch whole := slices.Contains(stack, "main"); {
		case s.Stack.Truncated == trace.TruncatedNoCFI:
			said++
		case s.Stack.Truncated != trace.Complete || !whole:
			t.Fatalf("%q: %q", trace.Truncations[s.Stack.Truncated], stack)
		}
	}
	if said < 100 {
		t.Errorf("%d stacks of write say that code without tables ends them, want 100", said)
	}
}

// What was on the stack is not in the recording, only addresses are.
func TestRecordingsHoldNoStackMemory(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, `
#include <stdlib.h>
#include <unistd.h>
__attribute__((noinline)) static void keep(volatile char *secret) {
	for (int i = 0; i < 4096; i += 16)
		for (int j = 0; j < 16; j++) secret[i + j] = "hunter2-"[j % 8] ^ 0x20;
	for (int i = 0; i < 100; i++) if (write(2, "", 0)) exit(1);
}
int main(void) { volatile char secret[4096]; keep(secret); return secret[7] == 0; }`)
	raw, events := record(t, tracer, subject)
	if raw.Hits.CopiedBytes < 100*4096 {
		t.Errorf("%d bytes were copied: the secret was not among them", raw.Hits.CopiedBytes)
	}
	secret := []byte("hunter2-hunter2-")
	for i := range secret {
		secret[i] ^= 0x20
	}
	for at := range 8 {
		if bytes.Contains(raw.Records, append(slices.Clone(secret[at:8]), secret[:at]...)) {
			t.Fatal("the recording holds what was on the stack")
		}
	}
	writes := 0
	for _, e := range events {
		if s, ok := e.(*trace.Syscall); ok && trace.SyscallName(raw.Arch, s.Number) == "write" && s.Stack.Truncated == trace.Complete {
			writes++
		}
	}
	if writes < 100 {
		t.Errorf("%d whole stacks of write, want 100", writes)
	}
}

// perfDepth is the median depth of the user stacks that perf unwinds from its
// own copies, at the page faults of user mode; 0 where perf crashes on what it
// recorded (6.1 does, by an assertion of its own, when others trace meanwhile).
func perfDepth(t *testing.T, command []string) (median, stacks int) {
	t.Helper()
	data := filepath.Join(t.TempDir(), "perf.data")
	args := []string{"record", "-B", "-N", "-q", "--call-graph", "dwarf", "-e", "page-faults:u", "-c", "1", "-o", data, "--"}
	if b, err := exec.Command(needTool(t, "perf"), append(args, command...)...).CombinedOutput(); err != nil {
		t.Fatalf("perf record: %v\n%s", err, b)
	}
	out, err := exec.Command("perf", "script", "--no-inline", "-i", data, "-F", "ip").Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) && !exit.Exited() {
		t.Logf("no comparison: perf script: %v", err)
		return 0, 0
	}
	if err != nil {
		t.Fatalf("perf script: %v", err)
	}
	var depths []int
	for stack := range strings.SplitSeq(string(out), "\n\n") {
		user := slices.DeleteFunc(strings.Fields(stack), func(address string) bool {
			return len(address) == 16 && address[0] == 'f' // the kernel's
		})
		if len(user) > 0 {
			depths = append(depths, len(user))
		}
	}
	if len(depths) == 0 {
		t.Fatal("perf recorded no stack")
	}
	slices.Sort(depths)
	return depths[len(depths)/2], len(depths)
}

// Programs as distributions build them: at least nine of ten stacks reach the
// thread's entry, they are at least as deep as perf's, and no event is lost with
// the defaults.
func TestStacksOfCommonPrograms(t *testing.T) {
	for _, command := range [][]string{
		{"/usr/bin/python3", "-c", "import ssl, json, http.client"},
		{"/usr/bin/curl", "-s", "-o", "/dev/null", "file:///etc/hosts"},
		{"/usr/bin/git", "--version"},
		{"/usr/sbin/nginx", "-t"},
	} {
		t.Run(filepath.Base(command[0]), func(t *testing.T) {
			needTool(t, command[0])
			tracer := needBPF(t, capture.Options{})
			raw, events := record(t, tracer, command...)
			if n := raw.Losses.Total(); n != 0 {
				t.Errorf("lost: %+v", raw.Losses)
			}
			_, began := subjectPID(t, events, command[0])
			var depths, ofFaults []int
			whole, why := 0, map[string]int{}
			for _, e := range events {
				s := userStack(e)
				if e.Head().Time < began.Time || len(s.User) == 0 {
					continue
				}
				depths = append(depths, len(s.User))
				if f, ok := e.(*trace.Fault); ok && !f.Kernel {
					ofFaults = append(ofFaults, len(s.User))
				}
				if s.Truncated == trace.Complete {
					whole++
				} else {
					why[trace.Truncations[s.Truncated]]++
				}
			}
			slices.Sort(depths)
			slices.Sort(ofFaults)
			ours := ofFaults[len(ofFaults)/2]
			perfs, count := perfDepth(t, command)
			// perf loses samples of a busy machine, and two runs do not fault alike.
			if ours < perfs-1 && count*100 >= len(ofFaults)*95 {
				t.Errorf("median depth at %d page faults %d, at perf's %d it is %d", len(ofFaults), ours, count, perfs)
			}
			t.Logf("median depth at %d page faults: %d, at perf's %d: %d", len(ofFaults), ours, count, perfs)
			t.Logf("%d of %d stacks whole, else %v; depth: median %d, at most %d; %d copies of %d bytes in the mean",
				whole, len(depths), why, depths[len(depths)/2], depths[len(depths)-1], raw.Hits.Copies, raw.Hits.CopiedBytes/max(1, raw.Hits.Copies))
			if whole*10 < len(depths)*9 {
				t.Errorf("%d of %d stacks reach the thread's entry: %v", whole, len(depths), why)
			}
		})
	}
}

// Stacks lead through a signal handler to what it interrupted, through a thread
// to where it began, and through calls by way of the PLT.
func TestStacksThroughSignalsAndThreads(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, `
#include <pthread.h>
#include <signal.h>
#include <unistd.h>
__attribute__((noinline)) int write_it(int n) { return write(2, "", 0) + n; }
static volatile int sink;
static void handler(int s) { sink = write_it(s); }
__attribute__((noinline)) int interrupted(int n) { raise(SIGUSR1); return n + 1; }
static void *thread(void *a) { for (int i = 0; i < 20; i++) if (interrupted(i) < 0) return a; return 0; }
int main(void) {
	pthread_t t;
	signal(SIGUSR1, handler);
	for (int i = 0; i < 20; i++) if (interrupted(i) < 0) return 1;
	return pthread_create(&t, 0, thread, 0) || pthread_join(t, 0);
}`, "-O2", "-fomit-frame-pointer", "-pthread", "-Wl,-z,lazy")
	raw, events := record(t, tracer, subject)
	names := namer(t, events)
	want := [][]string{{"write_it", "handler", "raise", "interrupted", "main"}, {"write_it", "handler", "raise", "interrupted", "thread"}}
	found := make([]int, len(want))
	for _, e := range events {
		s, ok := e.(*trace.Syscall)
		if !ok || trace.SyscallName(raw.Arch, s.Number) != "write" || s.Args[0] != 2 {
			continue
		}
		stack := names(e)
		if s.Stack.Truncated != trace.Complete {
			t.Errorf("truncated: %s: %q", trace.Truncations[s.Stack.Truncated], stack)
		}
		for i, order := range want {
			next := 0
			for _, n := range stack {
				if next < len(order) && n == order[next] {
					next++
				}
			}
			if next == len(order) {
				found[i]++
			}
		}
	}
	if found[0] != 20 || found[1] != 20 {
		t.Errorf("%v stacks lead through the handler, want 20 of each thread", found)
		for _, e := range events {
			if s, ok := e.(*trace.Syscall); ok && trace.SyscallName(raw.Arch, s.Number) == "write" {
				t.Logf("%q", names(e))
				break
			}
		}
	}
}

// Go's stacks are walked by frame pointer and not copied, and the functions
// without a frame that make its system calls do not hide who called them.
func TestGoStacksAreWalkedByFramePointer(t *testing.T) {
	subject := buildGo(t, `package main

import "syscall"

//go:noinline
func ask(n int) int { return syscall.Getppid() + n }

func main() {
	for i := range 1000 {
		ask(i)
	}
}
`)
	f, err := os.Open(subject)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	object, err := symbolize.OpenObject(f)
	if err != nil {
		t.Fatal(err)
	}
	tracer := needBPF(t, capture.Options{})
	if err := tracer.TrustFramePointers(probe.Program{Object: object, Entry: object.Info.Entry, Go: true}.Framed()); err != nil {
		t.Fatal(err)
	}
	raw, events := record(t, tracer, subject)
	if raw.Hits.Copies > 30 { // of the holder, which is no Go program to the tracer
		t.Errorf("%d stacks were copied", raw.Hits.Copies)
	}
	names := namer(t, events)
	asked := 0
	for _, e := range events {
		s, ok := e.(*trace.Syscall)
		if !ok || trace.SyscallName(raw.Arch, s.Number) != "getppid" {
			continue
		}
		stack := names(e)
		if i := slices.Index(stack, "main.ask"); i > 0 && stack[i-1] == "syscall.Getppid" &&
			slices.Equal(stack[i+1:], []string{"main.main", "runtime.main", "runtime.goexit"}) {
			asked++
		} else {
			t.Logf("%q", stack)
		}
	}
	if asked != 1000 {
		t.Errorf("%d whole stacks of getppid, want 1000", asked)
	}
}

// buildGo compiles a Go program.
func buildGo(t *testing.T, source string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "program")
	cmd := exec.Command(needTool(t, "go"), "build", "-o", out, filepath.Join(dir, "main.go"))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}
