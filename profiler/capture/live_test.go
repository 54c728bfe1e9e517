package capture_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/trace"
)

// The announcement must come from the process's first thread, which keeps its
// ID over exec: only package initialisation is sure to run there.
func init() {
	if os.Getenv("CAPTURE_TEST_NONCE") != "" {
		runtime.LockOSThread()
	}
}

// TestMain lets the test binary be the holder of its own subjects: it announces
// itself, waits for a byte, and execs.
func TestMain(m *testing.M) {
	if nonce := os.Getenv("CAPTURE_TEST_NONCE"); nonce != "" {
		n, _ := strconv.ParseUint(nonce, 10, 64)
		_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, launch.HolderMagic, uintptr(n), 0)
		_, _ = os.Stdin.Read(make([]byte, 1))
		err := syscall.Exec(os.Args[1], os.Args[1:], []string{"PATH=/usr/bin:/bin"})
		fmt.Fprintln(os.Stderr, err)
		os.Exit(126)
	}
	os.Exit(m.Run())
}

// needBPF skips where nothing can be traced, or fails where skips are forbidden.
func needBPF(t *testing.T, opts capture.Options) *capture.Tracer {
	t.Helper()
	tracer, err := capture.New(opts)
	var missing *capture.UnavailableError
	if errors.As(err, &missing) && os.Getenv("INITPROF_FORBID_SKIP") == "" {
		t.Skip(missing)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := tracer.Close(); err != nil {
			t.Error(err)
		}
	})
	return tracer
}

// record runs a command to its end under a tracer.
func record(t *testing.T, tracer *capture.Tracer, command ...string) (*capture.Raw, []trace.Event) {
	t.Helper()
	raw := recordRaw(t, tracer, command...)
	events, err := raw.Decode()
	if err != nil {
		t.Fatal(err)
	}
	return raw, events
}

// recordRaw is record without decoding.
func recordRaw(t *testing.T, tracer *capture.Tracer, command ...string) *capture.Raw {
	t.Helper()
	nonce := rand.Uint64()
	if err := tracer.Arm(nonce, 0); err != nil {
		t.Fatal(err)
	}
	holder := exec.Command("/proc/self/exe", command...)
	holder.Env = []string{"CAPTURE_TEST_NONCE=" + strconv.FormatUint(nonce, 10)}
	holder.Stdin = strings.NewReader("x")
	var out bytes.Buffer
	holder.Stdout, holder.Stderr = &out, &out
	err := holder.Run()
	raw, stopErr := tracer.Stop()
	if stopErr != nil {
		t.Fatal(stopErr)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out.Bytes())
	}
	return raw
}

// compileC builds a C program from source, or skips without a compiler.
func compileC(t *testing.T, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "subject.c")
	if err := os.WriteFile(file, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "subject")
	cmd := exec.Command("gcc", append([]string{"-O1", "-o", out, file}, flags...)...)
	if b, err := cmd.CombinedOutput(); err != nil {
		if errors.Is(err, exec.ErrNotFound) && os.Getenv("INITPROF_FORBID_SKIP") == "" {
			t.Skip("needs gcc")
		}
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

func TestCountsSystemCallsExactly(t *testing.T) {
	tracer := needBPF(t, capture.Options{})
	subject := compileC(t, `
#include <unistd.h>
#include <sys/syscall.h>
int main(void) { for (int i = 0; i < 1000; i++) syscall(SYS_getppid); return 0; }`)
	raw, events := record(t, tracer, subject)
	if n := raw.Losses.Total(); n != 0 {
		t.Errorf("%d events lost: %+v", n, raw.Losses)
	}
	count, started := 0, false
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Exec:
			started = true
		case *trace.Syscall:
			if started && trace.SyscallName(raw.Arch, e.Number) == "getppid" {
				count++
			}
		}
	}
	if count != 1000 {
		t.Errorf("%d calls of getppid, want 1000", count)
	}
}
