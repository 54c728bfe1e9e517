// Command bench measures what watching a cold start costs: cold starts of one
// extension untraced, untraced again (A/A), under initprof without and with CPU
// samples, under strace and under perf, interleaved in random order. All are
// timed alike: from the instant that a tiny program prints before it executes
// the extension, to the receipt of /next by the environment. It needs root.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/symbolize"
)

// stamp prints CLOCK_MONOTONIC in nanoseconds and executes its arguments.
const stamp = `
#include <stdio.h>
#include <time.h>
#include <unistd.h>
int main(int argc, char **argv) {
	struct timespec t;
	char b[64];
	clock_gettime(CLOCK_MONOTONIC, &t);
	int n = snprintf(b, sizeof b, "stamp %lld\n", t.tv_sec * 1000000000LL + t.tv_nsec);
	if (argc < 2 || write(1, b, n) != n) return 1;
	execv(argv[1], argv + 1);
	return 127;
}`

type variant struct {
	name      string
	prefix    []string
	tracer    *capture.Tracer
	ns        []int64
	events    uint64
	lost      uint64
	skipped   string
	unlimited bool
}

func main() {
	n := flag.Int("n", 30, "cold starts of each variant")
	ablate := flag.Bool("ablate", false, "each signal of initprof alone instead of other tools")
	alone := flag.Bool("alone", false, "without other tools")
	noLimits := flag.Bool("no-limits", false, "no limits of CPU and memory: with chrt -r 10 a busy machine disturbs less")
	flag.Parse()
	if err := run(*n, *ablate, *alone, *noLimits, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(n int, ablate, alone, noLimits bool, command []string) (err error) {
	if len(command) == 0 {
		command = []string{"bin/initprof-extension"}
	}
	if command[0], err = filepath.Abs(command[0]); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "initprof-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	stamper := filepath.Join(dir, "stamp")
	gcc := exec.Command("gcc", "-O1", "-static", "-x", "c", "-o", stamper, "-")
	gcc.Stdin = strings.NewReader(stamp)
	if out, err := gcc.CombinedOutput(); err != nil {
		return fmt.Errorf("compile the time stamp (make deps installs gcc): %w\n%s", err, out)
	}
	variants, err := prepare(command[0], ablate, alone)
	if err != nil {
		return err
	}
	for _, v := range variants {
		v.unlimited = noLimits
	}
	for round := range n + 1 { // the first warms up
		for _, i := range rand.Perm(len(variants)) {
			v := variants[i]
			if v.skipped != "" {
				continue
			}
			if err := v.measure(stamper, command, round > 0); err != nil {
				return fmt.Errorf("%s: %w", v.name, err)
			}
		}
	}
	return table(variants)
}

type tracing struct {
	name string
	opts capture.Options
}

// ablation is each signal alone, beside what is always on.
var ablation = []tracing{
	{"processes and requests alone", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoFaults: true, NoSamples: true, NoGoroutines: true}},
	{"system calls alone", capture.Options{NoCalls: true, NoSched: true, NoFaults: true, NoSamples: true, NoGoroutines: true}},
	{"system calls alone, no stacks", capture.Options{NoCalls: true, NoSched: true, NoFaults: true, NoSamples: true, NoGoroutines: true, NoStacks: true}},
	{"scheduling alone", capture.Options{NoCalls: true, NoSyscalls: true, NoFaults: true, NoSamples: true, NoGoroutines: true}},
	{"faults alone", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoSamples: true, NoGoroutines: true}},
	{"faults alone, no stacks", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoSamples: true, NoGoroutines: true, NoStacks: true}},
	{"samples alone", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoFaults: true, NoGoroutines: true}},
	{"goroutines alone", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoFaults: true, NoSamples: true}},
	{"goroutines alone, cheap", capture.Options{NoCalls: true, NoSyscalls: true, NoSched: true, NoFaults: true, NoSamples: true, CheapGoroutines: true}},
	{"packages and runtime alone", capture.Options{NoSyscalls: true, NoSched: true, NoFaults: true, NoSamples: true, NoGoroutines: true}},
}

// The two of which the difference is what watching goroutines costs.
const (
	noGoroutines = "initprof, no goroutines"
	allSignals   = "initprof, all at 999 Hz"
)

func prepare(command string, ablate, alone bool) ([]*variant, error) {
	plan, err := planProgram(command)
	if err != nil {
		return nil, err
	}
	all := []*variant{{name: "untraced"}, {name: "untraced again"}}
	tracers := []tracing{
		{"initprof, no samples or goroutines", capture.Options{NoSamples: true, NoGoroutines: true}},
		{"initprof, no samples", capture.Options{NoSamples: true}},
		{noGoroutines, capture.Options{NoGoroutines: true}},
		{allSignals, capture.Options{}},
	}
	if ablate {
		tracers = append(tracers, ablation...)
	}
	for _, t := range tracers {
		// Loaded apart, since what is attached costs only while its tracer is armed.
		tracer, err := capture.New(t.opts)
		if err != nil {
			return nil, err
		}
		tracer.WatchGoroutines(plan.goroutines, plan.missing)
		if err := tracer.TrustFramePointers(plan.framed); err != nil {
			return nil, err
		}
		tracer.WatchPoints(plan.pointsFor(t.opts))
		all = append(all, &variant{name: t.name, tracer: tracer})
	}
	if ablate || alone {
		return all, nil
	}
	for _, t := range []struct {
		name string
		args []string
	}{
		{"perf record", []string{"perf", "record", "-q", "-g", "-o", "/dev/null", "-e", "raw_syscalls:*,sched:sched_switch,sched:sched_waking,page-faults", "--"}},
		{"strace -f -c", []string{"strace", "-f", "-c", "-o", "/dev/null"}},
	} {
		v := &variant{name: t.name}
		path, err := exec.LookPath(t.args[0])
		if err != nil {
			v.skipped = err.Error()
		}
		v.prefix = append([]string{path}, t.args[1:]...)
		all = append(all, v)
	}
	return all, nil
}

// program is what is to be probed of the subject, as record plans it.
type program struct {
	goroutines *probe.Goroutines
	missing    error
	framed     probe.Framed
	points     []capture.Point
}

func planProgram(command string) (*program, error) {
	f, err := os.Open(command)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	o, err := symbolize.OpenObject(f)
	if err != nil {
		return nil, err
	}
	language, version := o.Language()
	p := probe.Program{
		Object: o, Entry: o.Info.Entry, Dynamic: o.Info.Interpreter != "", Arch: o.Info.Machine, Go: language == symbolize.LanguageGo,
	}
	plan := &program{framed: p.Framed()}
	if plan.goroutines, plan.missing = probe.PlanGoroutines(p, o, version); plan.goroutines != nil {
		plan.goroutines.Path = command
	}
	for _, point := range probe.For(p).Points {
		plan.points = append(plan.points, capture.Point{Path: command, Point: point})
	}
	return plan, nil
}

func (p *program) pointsFor(o capture.Options) []capture.Point {
	if !o.NoCalls {
		return p.points
	}
	return slices.DeleteFunc(slices.Clone(p.points), func(x capture.Point) bool {
		return x.Action.IsCall() || x.Action == probe.RecordGo
	})
}

func (v *variant) measure(stamper string, command []string, counts bool) error {
	full := append(append(append([]string{}, v.prefix...), stamper), command...)
	opts := coldstart.Options{Command: full, Name: filepath.Base(command[0]), Dir: "/", NoLimits: v.unlimited}
	var tracer coldstart.Tracer
	if v.tracer != nil {
		tracer = v.tracer
	}
	r, err := coldstart.Run(context.Background(), opts, tracer, nil)
	if err != nil {
		return err
	}
	if r.Outcome != coldstart.OK {
		v.skipped = r.Detail
		return nil
	}
	_, rest, found := bytes.Cut(r.LastOutput, []byte("stamp "))
	line, _, _ := bytes.Cut(rest, []byte("\n"))
	at, err := strconv.ParseInt(string(line), 10, 64)
	if !found || err != nil {
		return fmt.Errorf("no time stamp in %q", r.LastOutput)
	}
	if !counts {
		return nil
	}
	v.ns = append(v.ns, r.FirstNext-at)
	if r.Raw != nil {
		h := r.Raw.Hits
		v.events += h.Syscalls + h.Sched + h.Faults/2 + h.Samples + h.Marks + h.Calls/2 + h.Goroutines
		v.lost += r.Raw.Losses.Total()
	}
	return nil
}

func table(variants []*variant) error {
	base := variants[0].ns
	t := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "exec → /next (ms)\tn\tmin\tp50\tmax\tratio of p50\tshift, 95 %\tevents\tlost\t")
	for _, v := range variants {
		if v.skipped != "" || len(v.ns) == 0 {
			fmt.Fprintf(t, "%s\t–\t\t\t\t%s\t\t\t\t\n", v.name, v.skipped)
			continue
		}
		s, shift := stat.Summarize(v.ns), stat.Compare(base, v.ns, 1)
		ms := func(ns int64) string { return fmt.Sprintf("%.3f", float64(ns)/1e6) }
		fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%.3f\t%+.3f … %+.3f\t%d\t%d\t\n", v.name, s.N, ms(s.Min), ms(s.P50), ms(s.Max),
			float64(s.P50)/float64(stat.Summarize(base).P50), float64(shift.CI95[0])/1e6, float64(shift.CI95[1])/1e6,
			v.events/uint64(len(v.ns)), v.lost)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	return goroutines(variants)
}

// goroutines tells what watching goroutines adds to all else.
func goroutines(variants []*variant) error {
	of := map[string][]int64{}
	for _, v := range variants {
		of[v.name] = v.ns
	}
	without, with := of[noGoroutines], of[allSignals]
	if len(without) == 0 || len(with) == 0 {
		return nil
	}
	untraced := float64(stat.Summarize(variants[0].ns).P50)
	shift := stat.Compare(without, with, 1)
	percent := func(ns int64) float64 { return 100 * float64(ns) / untraced }
	_, err := fmt.Printf("watching goroutines adds %+.3f ms (95 %% %+.3f … %+.3f): %+.1f %% of an untraced start (%+.1f … %+.1f)\n",
		float64(shift.Estimate)/1e6, float64(shift.CI95[0])/1e6, float64(shift.CI95[1])/1e6,
		percent(shift.Estimate), percent(shift.CI95[0]), percent(shift.CI95[1]))
	return err
}
