package capture_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// trustFramePointers tells the tracer of a Go program, as a session does.
func trustFramePointers(t *testing.T, tracer *capture.Tracer, subject string) probe.Framed {
	t.Helper()
	f, err := os.Open(subject)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	object, err := symbolize.OpenObject(f)
	if err != nil {
		t.Fatal(err)
	}
	framed := probe.Program{Object: object, Entry: object.Info.Entry, Arch: object.Info.Machine, Go: true}.Framed()
	if err := tracer.TrustFramePointers(framed); err != nil {
		t.Fatal(err)
	}
	return framed
}

// mixedChain builds testdata/chain/cgo with the toolchain at hand or another one.
func mixedChain(t *testing.T, name, toolchain string, flags ...string) string {
	t.Helper()
	if dir := os.Getenv("INITPROF_CHAINS"); dir != "" {
		path := filepath.Join(dir, "cgo-"+name)
		if _, err := os.Stat(path); err != nil {
			t.Skipf("not compiled for this machine: %v", err)
		}
		return path
	}
	needTool(t, "gcc")
	out := filepath.Join(t.TempDir(), "chain")
	c := exec.Command(needTool(t, "go"), append(append([]string{"build", "-o", out}, flags...), ".")...)
	c.Dir = "../../testdata/chain/cgo"
	c.Env = append(os.Environ(), "GOFLAGS=", "CGO_ENABLED=1")
	if toolchain != "" {
		c.Env = append(c.Env, "GOTOOLCHAIN="+toolchain)
	}
	if b, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

// links are the functions of a chain, leaf first: link0 … link10, back1 … back10.
func links(name string) (names []string) {
	for i := range 11 {
		names = append(names, fmt.Sprintf("%s%d", name, i))
	}
	if name != "link" {
		return names[1:]
	}
	return names
}

// Stacks of which Go and C are part are whole: from a deed in C that Go called,
// in Go that C called, and in C that Go called that C called, to the start of
// the goroutine.
func TestMixedChainsAreWhole(t *testing.T) {
	variants := []struct {
		name, toolchain string
		flags           []string
	}{{name: "exe"}, {name: "pie", flags: []string{"-buildmode=pie"}}}
	if os.Getenv("INITPROF_CHAINS") == "" {
		for _, s := range goSubjects(t) {
			if s.toolchain != "" && !strings.HasSuffix(s.name, "-pie") {
				variants = append(variants, struct {
					name, toolchain string
					flags           []string
				}{name: s.name, toolchain: s.toolchain})
			}
		}
	}
	below := slices.Concat(links("there"), []string{"main", "goexit"})
	chains := map[string][]string{ // of the functions that are ours, leaf first
		"Go → C":          slices.Concat(links("link"), below),
		"Go → C → Go":     slices.Concat(links("back"), links("link"), below),
		"Go → C → Go → C": slices.Concat(links("link"), links("back"), links("link"), below),
	}
	ours := regexp.MustCompile(`^(?:main\.)?((?:link|back|there)\d+)$|^(?:main\.)(main)$|^runtime\.(goexit)$`)
	deeds := map[string]string{
		"do_sleep": "sleep", "main.doSleep": "sleep", "do_fault": "fault", "main.doFault": "fault",
		"do_spin": "spin", "main.doSpin": "spin", "do_write": "write", "main.doWrite": "write",
	}
	want := map[string]int{"sleep": 90, "write": 198, "fault": 256, "spin": 10}
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			subject := mixedChain(t, v.name, v.toolchain, v.flags...)
			tracer := needBPF(t, capture.Options{})
			if f := trustFramePointers(t, tracer, subject); f.CallbackSize == 0 || f.GInThread == 0 {
				t.Fatalf("what is known of the program: %+v", f)
			}
			raw, events := record(t, tracer, subject)
			if n := raw.Losses.Total(); n != 0 {
				t.Errorf("lost: %+v", raw.Losses)
			}
			pid, began := subjectPID(t, events, subject)
			names := namer(t, events)
			all, good, bad := map[string]int{}, map[string]int{}, map[string]int{}
			for _, e := range events {
				if e.Head().PID != pid || e.Head().Time < began.Time || len(userStack(e).User) == 0 {
					continue
				}
				stack := names(e)
				// The deed is in the stack's first frames, above it only libc or syscall.
				at := slices.IndexFunc(stack[:min(len(stack), 6)], func(n string) bool { return deeds[n] != "" })
				if at < 0 || !isDeed(raw.Arch, e, deeds[stack[at]], at) {
					continue
				}
				var chain []string
				for _, n := range stack[at:] {
					if m := ours.FindStringSubmatch(n); m != nil {
						chain = append(chain, m[1]+m[2]+m[3])
					}
				}
				kind := kindOf(chain)
				key := kind + ", " + deeds[stack[at]]
				all[key]++
				if slices.Equal(chain, chains[kind]) && userStack(e).Truncated == trace.Complete {
					good[key]++
				} else if why := trace.Truncations[userStack(e).Truncated]; bad[key+": "+why] < 1 {
					bad[key+": "+why]++
					t.Logf("%s (%s): %q", key, why, stack)
				}
			}
			for kind := range chains {
				for deed, n := range want {
					key := kind + ", " + deed
					t.Logf("%s: %d of %d whole", key, good[key], all[key])
					if all[key] < n {
						t.Errorf("%s: %d events, want at least %d", key, all[key], n)
					}
					if good[key]*100 < all[key]*99 {
						t.Errorf("%s: %d of %d stacks are whole", key, good[key], all[key])
					}
				}
			}
			t.Logf("%d copies of %d bytes in the mean", raw.Hits.Copies, raw.Hits.CopiedBytes/max(1, raw.Hits.Copies))
		})
	}
}

// isDeed tells whether an event is what its stack's deed is for.
func isDeed(arch string, e trace.Event, deed string, at int) bool {
	switch e := e.(type) {
	case *trace.Syscall:
		name := trace.SyscallName(arch, e.Number)
		return deed == "write" && name == "write" || deed == "sleep" && strings.HasSuffix(name, "nanosleep")
	case *trace.Switch:
		return deed == "sleep" && e.State == trace.SwitchSleeping
	case *trace.Fault:
		return deed == "fault" && at == 0
	case *trace.Sample:
		return deed == "spin" && at == 0
	}
	return false
}

// kindOf names the chain that begins as this one does.
func kindOf(chain []string) string {
	switch {
	case len(chain) > 0 && chain[0] == "back1":
		return "Go → C → Go"
	case slices.Contains(chain, "back1"):
		return "Go → C → Go → C"
	}
	return "Go → C"
}
