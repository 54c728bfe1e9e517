package capture_test

import (
	"bytes"
	"context"
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
			names = append(names, l.Function())
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
			all, good, want := map[string]int{}, map[string]int{}, map[string]int{"sleep": 50, "off-cpu": 50, "write": 200, "fault": 256, "spin": 20}
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

// Programs as distributions build them: at least nine of ten stacks reach the
// thread's entry, and no event is lost with the defaults.
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
			var depths []int
			whole, why := 0, map[string]int{}
			for _, e := range events {
				s := userStack(e)
				if e.Head().Time < began.Time || len(s.User) == 0 {
					continue
				}
				depths = append(depths, len(s.User))
				if s.Truncated == trace.Complete {
					whole++
				} else {
					why[trace.Truncations[s.Truncated]]++
				}
			}
			slices.Sort(depths)
			t.Logf("%d of %d stacks whole, else %v; depth: median %d, at most %d; %d copies of %d bytes in the mean",
				whole, len(depths), why, depths[len(depths)/2], depths[len(depths)-1], raw.Hits.Copies, raw.Hits.CopiedBytes/max(1, raw.Hits.Copies))
			if whole*10 < len(depths)*9 {
				t.Errorf("%d of %d stacks reach the thread's entry: %v", whole, len(depths), why)
			}
		})
	}
}
