package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
)

// check runs the named steps in order and gives the exit status: 1 if any of
// them failed.
func check(steps []string) int {
	status := 0
	for _, step := range steps {
		fmt.Println("==", step)
		var err error
		switch step {
		case "bpf":
			err = command("/bin/bpf.test", "-test.v")
		case "capture":
			err = captureCheck()
		case "stacks":
			err = command("/bin/capture.test", "-test.v", "-test.run", "ChainsAreWhole")
		case "record":
			err = errors.Join(recordCheck(recordCase{
				name: "dynamic C extension", subject: []string{"/subjects/extension", "getppid", "1000"},
				phases: []string{"exec", "loader", "runtime_init", "register", "next"},
				calls:  map[string]float64{"getppid": 1000, "connect": 1, "socket": 1},
				slow:   true,
			}), recordCheck(recordCase{
				name: "static Go extension, stripped", subject: []string{"/subjects/go-stripped"},
				phases: []string{"exec", "runtime_init", "register", "telemetry_subscribe", "next"},
				calls:  map[string]float64{"execve": 1, "listen": 1},
				golang: true, slow: true,
			}), recordCheck(recordCase{
				name: "the same, goroutines without a uprobe", subject: []string{"/subjects/go-stripped"},
				phases: []string{"exec", "runtime_init", "register", "telemetry_subscribe", "next"},
				golang: true, slow: true, args: []string{"--goroutines", "cheap"},
			}), rustCheck())
		case "startup":
			err = startupCheck()
		case "extension":
			err = extensionCheck()
		default:
			err = errors.New("no such step")
		}
		if err != nil {
			fmt.Printf("%s: %v\n", step, err)
			status = 1
		}
	}
	return status
}

// rustCheck records the Rust extension where the host could build it.
func rustCheck() error {
	const subject = "/subjects/rust-stripped"
	if _, err := os.Stat(subject); err != nil {
		fmt.Println("no Rust extension: untested")
		return nil
	}
	return recordCheck(recordCase{
		name: "dynamic Rust extension, stripped", subject: []string{subject},
		phases: []string{"exec", "loader", "runtime_init", "crypto_provider_ready", "register", "register_ready", "telemetry_subscribe", "ready", "next"},
		calls:  map[string]float64{"execve": 1, "listen": 3},
		slow:   true,
	})
}

// extensionCheck runs the extension with all that its build can change, H7 and H8
// among it, static and dynamically linked, and AppSec's firewall on its tests.
func extensionCheck() error {
	var errs []error
	for _, c := range []struct {
		flavour string
		phases  []string
	}{
		{"integration", []string{"exec", "runtime_init"}},
		{"integration-pie", []string{"exec", "loader", "runtime_init"}},
	} {
		errs = append(errs, recordCheck(recordCase{
			name: c.flavour, subject: []string{"/variants/arm64/" + c.flavour},
			phases: append(c.phases, "crypto_provider_ready", "tls_client_build", "config_parse", "shared_client_ready", "register",
				"register_ready", "dogstatsd_started", "trace_agent_started", "telemetry_subscribe", "telemetry_subscribed", "ready", "next"),
			calls:  map[string]float64{"execve": 1, "listen": 3},
			golang: true,
		}))
	}
	return errors.Join(append(errs, command("/bin/helper.test", "-test.v", "-test.run", "TestAttacks|TestAnswerIsLookedAt|TestProtocol"))...)
}

func command(path string, args ...string) error {
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stdout
	return cmd.Run()
}

type recordCase struct {
	name    string
	subject []string
	phases  []string           // must be there, in this order
	calls   map[string]float64 // system calls per cold start
	golang  bool               // goroutines must be there, otherwise not
	args    []string           // of record
	slow    bool               // the answer to register takes 100 ms
}

// report is what is asserted of `report --format json`; it is declared anew, so
// that the schema is checked and not the program's own structs.
type report struct {
	Schema string
	Runs   []struct {
		Index      int
		Traced     bool
		Outcome    string
		LostEvents int64 `json:"lost_events"`
		WallNS     int64 `json:"wall_ns"`
		Phases     []struct {
			Name    string
			DeltaNS int64 `json:"delta_ns"`
		}
	}
	Syscalls []struct {
		Name  string
		Count float64
	}
	Faults     struct{ Minor float64 }
	Goroutines []struct {
		ID             uint64
		Kind, Function string
		RunningNS      int64 `json:"running_ns"`
		OnCPUNS        int64 `json:"on_cpu_ns"`
		RunqueueNS     int64 `json:"runqueue_ns"`
		FaultNS        int64 `json:"fault_ns"`
		Waiting        []struct{ Reason string }
	}
}

func recordCheck(c recordCase) error {
	args := append([]string{"record", "--quiet", "-n", "3", "--untraced", "1", "--timeout", "120s", "-o", "/tmp/run.initprof"}, append(append(c.args, "--"), c.subject...)...)
	if c.slow {
		args = append([]string{"record", "--latency", "register=100ms"}, args[1:]...)
	}
	if err := command("/bin/initprof", args...); err != nil {
		return fmt.Errorf("%s: record: %w", c.name, err)
	}
	defer os.RemoveAll("/tmp/run.initprof")
	out, err := exec.Command("/bin/initprof", "report", "/tmp/run.initprof", "--format", "json").Output()
	if err != nil {
		return fmt.Errorf("%s: report: %w", c.name, err)
	}
	var r report
	if err := json.Unmarshal(out, &r); err != nil {
		return fmt.Errorf("%s: report: %w", c.name, err)
	}
	var traced []int
	for _, one := range r.Runs {
		if one.Traced {
			traced = append(traced, one.Index)
		}
	}
	if err := checkLedger("/tmp/run.initprof", traced, c.slow); err != nil {
		return errors.Join(c.compare(r), fmt.Errorf("%s: %w", c.name, err))
	}
	return c.compare(r)
}

func (c recordCase) compare(r report) error {
	var errs []error
	wrong := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf(c.name+": "+format, args...))
	}
	if r.Schema != "initprof/report/v1" {
		wrong("schema %q", r.Schema)
	}
	traced := 0
	for i, run := range r.Runs {
		if run.Outcome != "ok" {
			wrong("run %d: outcome %q", i+1, run.Outcome)
		}
		if !run.Traced {
			continue
		}
		traced++
		if run.LostEvents != 0 {
			wrong("run %d: %d events lost", i+1, run.LostEvents)
		}
		var names []string
		var sum int64
		for _, p := range run.Phases {
			sum += p.DeltaNS
			if slices.Contains(c.phases, p.Name) {
				names = append(names, p.Name)
			}
		}
		if !slices.Equal(names, c.phases) {
			wrong("run %d: phases %q, want %q", i+1, names, c.phases)
		}
		if sum != run.WallNS {
			wrong("run %d: phases sum to %d ns of %d", i+1, sum, run.WallNS)
		}
	}
	if traced != 3 {
		wrong("%d traced cold starts, want 3", traced)
	}
	counts := map[string]float64{}
	for _, s := range r.Syscalls {
		counts[s.Name] = s.Count
	}
	for name, want := range c.calls {
		if counts[name] != want {
			wrong("%v calls of %s, want %v", counts[name], name, want)
		}
	}
	if r.Faults.Minor <= 0 {
		wrong("no minor faults")
	}
	c.compareGoroutines(r, wrong)
	fmt.Printf("%s: %d traced, %v calls, %v minor faults\n", c.name, traced, counts, r.Faults.Minor)
	return errors.Join(errs...)
}

// compareGoroutines checks what every Go program has: the main goroutine, and
// in full mode the collector's, each parked for its own reason.
func (c recordCase) compareGoroutines(r report, wrong func(string, ...any)) {
	if !c.golang {
		if len(r.Goroutines) != 0 {
			wrong("%d goroutines in a program without", len(r.Goroutines))
		}
		return
	}
	reasons := map[string]string{}
	for _, g := range r.Goroutines {
		if g.RunningNS != g.OnCPUNS+g.RunqueueNS+g.FaultNS {
			wrong("goroutine %s: running %d ns is not the sum of its parts", g.Function, g.RunningNS)
		}
		if len(g.Waiting) > 0 {
			reasons[g.Kind+" "+g.Function] = g.Waiting[0].Reason
		}
		if g.Kind == "main" && g.ID == 1 && g.Function == "runtime.main" && g.OnCPUNS > 0 {
			reasons["main"] = "ran"
		}
	}
	if reasons["main"] == "" {
		wrong("the main goroutine is missing among %d", len(r.Goroutines))
	}
	if full := len(c.args) == 0; full && reasons["gc runtime.forcegchelper"] != "force gc (idle)" {
		wrong("the collector's goroutines wait for %q", reasons)
	}
	fmt.Printf("%s: %d goroutines, %v\n", c.name, len(r.Goroutines), reasons)
}
