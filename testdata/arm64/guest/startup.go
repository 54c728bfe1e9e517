package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// startupReport is what is asserted of the report's account of what runs before
// main.
type startupReport struct {
	Runs []struct {
		LostEvents int64 `json:"lost_events"`
	}
	Binding struct {
		Lazy    struct{ Count float64 }
		Symbols []struct {
			Name, Object, Target, Mode string
			Count                      float64
			NS                         *int64
		}
		Objects []struct {
			Path, Mode string
			NS         int64
		}
	}
	Packages []struct {
		Path string
		NS   int64
	}
	Probes []struct{ Name, Status, Reason string }
}

func recordStartup(flags []string, subject ...string) (r startupReport, err error) {
	const run = "/tmp/startup.initprof"
	args := append([]string{"record", "--quiet", "-n", "1", "--untraced", "0", "--timeout", "120s", "-o", run}, flags...)
	if err := command("/bin/initprof", append(append(args, "--"), subject...)...); err != nil {
		return r, fmt.Errorf("record: %w", err)
	}
	defer os.RemoveAll(run)
	out, err := exec.Command("/bin/initprof", "report", run, "--format", "json").Output()
	if err != nil {
		return r, fmt.Errorf("report: %w", err)
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("report: %w", err)
	}
	for _, run := range r.Runs {
		if run.LostEvents != 0 {
			return r, fmt.Errorf("%d events lost", run.LostEvents)
		}
	}
	return r, nil
}

func startupCheck() error { return errors.Join(lazyBindingCheck(), packagesCheck()) }

var (
	bindingLine    = regexp.MustCompile("\tbinding file (.+) \\[[0-9]+\\] to (.+) \\[[0-9]+\\]: (?:normal|protected) symbol `([^']+)'")
	relocationLine = regexp.MustCompile(`\trelocation processing: (.+?)(?: \(lazy\))?$`)
)

// lazyBindingCheck compares the symbols that a C program binds lazily with what
// its loader says in the same cold start.
func lazyBindingCheck() error {
	r, err := recordStartup([]string{"--env", "LD_DEBUG=files,reloc,bindings", "--env", "LD_DEBUG_OUTPUT=/tmp/loader"}, "/subjects/extension", "getppid", "10")
	if err != nil {
		return fmt.Errorf("lazy binding: %w", err)
	}
	logs, _ := filepath.Glob("/tmp/loader.*")
	if len(logs) == 0 {
		return errors.New("lazy binding: the loader wrote no log")
	}
	log, err := os.ReadFile(logs[len(logs)-1])
	if err != nil {
		return err
	}
	var want, got []string
	relocating := ""
	for line := range strings.Lines(string(log)) {
		line = strings.TrimRight(line, "\n")
		if m := relocationLine.FindStringSubmatch(line); m != nil {
			relocating = m[1]
		}
		if strings.Contains(line, "\tcalling fini: ") {
			break // the program ends, after the recording
		}
		if strings.Contains(line, "\tcalling init: ") || strings.Contains(line, "\tinitialize program: ") {
			relocating = ""
		}
		m := bindingLine.FindStringSubmatch(line)
		// The loader itself and the vDSO bind nothing lazily.
		if m == nil || m[1] == relocating || strings.HasPrefix(filepath.Base(m[1]), "ld-linux") || m[1] == "linux-vdso.so.1" {
			continue
		}
		want = append(want, fmt.Sprintf("%s: %s of %s", filepath.Base(m[1]), m[3], filepath.Base(m[2])))
	}
	for _, s := range r.Binding.Symbols {
		if s.Mode != "lazy" {
			continue
		}
		for range int(s.Count) {
			got = append(got, fmt.Sprintf("%s: %s of %s", filepath.Base(s.Object), s.Name, filepath.Base(s.Target)))
		}
		if s.NS == nil || *s.NS <= 0 {
			return fmt.Errorf("lazy binding: %s took no time", s.Name)
		}
	}
	slices.Sort(want)
	slices.Sort(got)
	fmt.Printf("%d symbols bound lazily, the loader says %d; %d objects\n", len(got), len(want), len(r.Binding.Objects))
	if len(want) == 0 || !slices.Equal(got, want) || r.Binding.Lazy.Count != float64(len(want)) {
		for _, p := range r.Probes {
			fmt.Printf("%+v\n", p)
		}
		return fmt.Errorf("lazy binding: %q, the loader says %q", got, want)
	}
	for _, o := range r.Binding.Objects {
		if o.NS <= 0 || o.Mode != "lazy" && o.Mode != "eager" {
			return fmt.Errorf("lazy binding: %+v has no relocation", o)
		}
	}
	return nil
}

var initLine = regexp.MustCompile(`(?m)^init (\S+) @`)

// packagesCheck compares the packages that a stripped Go program initialises
// with those that its runtime names.
func packagesCheck() error {
	r, err := recordStartup(nil, "/subjects/go-stripped")
	if err != nil {
		return fmt.Errorf("packages: %w", err)
	}
	var stderr bytes.Buffer
	cmd := exec.Command("/subjects/go-stripped")
	cmd.Env = []string{"GODEBUG=inittrace=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1"}
	cmd.Stderr = &stderr
	_ = cmd.Run() // nobody serves it
	var want, got []string
	for _, m := range initLine.FindAllStringSubmatch(stderr.String(), -1) {
		want = append(want, strings.ReplaceAll(m[1], "%2e", "."))
	}
	for _, p := range r.Packages {
		got = append(got, p.Path)
	}
	slices.Sort(want)
	slices.Sort(got)
	fmt.Printf("%d packages initialised, the runtime says %d\n", len(got), len(want))
	if len(want) < 10 || !slices.Equal(got, want) {
		for _, p := range r.Probes {
			fmt.Printf("%+v\n", p)
		}
		return fmt.Errorf("packages: %q, the runtime says %q", got, want)
	}
	return nil
}
