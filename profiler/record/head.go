package record

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/profile"
)

// head is what is known before the first cold start.
func (s *session) head() analysis.Header {
	o := s.opts
	as := "extension"
	if o.ColdStart.AsRuntime {
		as = "runtime"
	}
	cache := "warm"
	if o.PageCold {
		cache = "cold"
	}
	signals, hz := []string{}, 0
	if !o.NoTracing {
		for _, have := range []struct {
			off  bool
			name string
		}{
			{o.Capture.NoSamples, string(profile.CPU)},
			{o.Capture.NoSched, string(profile.OffCPU)},
			{o.Capture.NoSyscalls, string(profile.Syscalls)},
			{o.Capture.NoFaults, string(profile.Faults)},
			{o.Capture.NoCalls, string(profile.Binding)},
			{o.Capture.NoGoroutines, string(profile.Goroutines)},
		} {
			if !have.off {
				signals = append(signals, have.name)
			}
		}
		hz = o.Capture.SampleHz
	}
	var command []string
	for _, a := range o.ColdStart.Command {
		command = append(command, s.redact(a))
	}
	h := analysis.Header{
		Session: fmt.Sprintf("%016x", rand.Uint64()), BlockCount: o.Runs,
		Tool: analysis.Tool{Version: o.Version}, Host: Host(),
		Subject: analysis.Subject{Command: command, SHA256: FileSum(o.ColdStart.Command[0])},
		Settings: analysis.Settings{
			As: as, Runs: o.Runs, Until: "next", InitializationType: o.ColdStart.InitializationType, PageCache: cache,
			Latency: o.ColdStart.Latency.String(), Signals: signals, SampleHz: &hz,
		},
	}
	if u := o.ColdStart.User; u != nil {
		h.Settings.User = u.Name
	}
	return h
}

// Host describes this machine.
func Host() analysis.Host {
	h := analysis.Host{Arch: runtime.GOARCH, CPUs: runtime.NumCPU()}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		h.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	f, err := os.Open("/proc/cpuinfo")
	if err != nil {
		return h
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == "model name" || strings.TrimSpace(key) == "CPU part" {
			h.CPUModel = strings.TrimSpace(value)
			break
		}
	}
	return h
}

// FileSum is the SHA-256 of a file in hexadecimal, empty if it cannot be read.
func FileSum(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return ""
	}
	return hex.EncodeToString(sum.Sum(nil))
}
