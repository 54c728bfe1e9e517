package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/trace"
)

// The environment variable that makes this program a subject of its own: a
// holder that announces itself, waits for a byte and execs.
const nonceVariable = "INITPROF_GUEST_NONCE"

// The announcement must come from the process's first thread, which keeps its
// ID over exec: only package initialisation is sure to run there.
func init() {
	if os.Getenv(nonceVariable) != "" {
		runtime.LockOSThread()
	}
}

// captured does not return in processes that captureCheck started.
func captured() {
	if len(os.Args) == 2 && os.Args[1] == "getppid1000" {
		for range 1000 {
			syscall.RawSyscall(syscall.SYS_GETPPID, 0, 0, 0) //nolint:errcheck // it cannot fail
		}
		os.Exit(0)
	}
	nonce := os.Getenv(nonceVariable)
	if nonce == "" {
		return
	}
	n, _ := strconv.ParseUint(nonce, 10, 64)
	_, _, _ = syscall.RawSyscall(syscall.SYS_GETPPID, launch.HolderMagic, uintptr(n), 0)
	_, _ = os.Stdin.Read(make([]byte, 1))
	err := syscall.Exec("/proc/self/exe", []string{"check", "getppid1000"}, nil)
	fmt.Fprintln(os.Stderr, err)
	os.Exit(126)
}

// captureCheck traces this program itself while it makes 1000 calls of getppid.
func captureCheck() error {
	tracer, err := capture.New(capture.Options{})
	if err != nil {
		return err
	}
	defer tracer.Close() //nolint:errcheck // the machine ends next
	nonce := rand.Uint64()
	if err := tracer.Arm(nonce, 0); err != nil {
		return err
	}
	holder := exec.Command("/proc/self/exe")
	holder.Env = []string{nonceVariable + "=" + strconv.FormatUint(nonce, 10)}
	holder.Stdin = strings.NewReader("x")
	out, err := holder.CombinedOutput()
	raw, stopErr := tracer.Stop()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	if stopErr != nil {
		return stopErr
	}
	events, err := raw.Decode()
	if err != nil {
		return err
	}
	count, faults, switches, started := 0, 0, 0, false
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Exec:
			started = true
		case *trace.Fault:
			faults++
		case *trace.Switch:
			switches++
		case *trace.Syscall:
			if started && trace.SyscallName(raw.Arch, e.Number) == "getppid" {
				count++
			}
		}
	}
	fmt.Printf("%d events, %d getppid, %d faults, %d switches, %d lost\n", len(events), count, faults, switches, raw.Losses.Total())
	if count != 1000 || faults == 0 || switches == 0 || raw.Losses.Total() != 0 {
		return fmt.Errorf("want 1000 getppid, faults and switches, and 0 lost: %+v", raw.Losses)
	}
	return nil
}
