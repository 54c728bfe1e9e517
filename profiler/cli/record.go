package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/reports/json"
	"github.com/initprof/initprof/reports/markdown"
	"github.com/initprof/initprof/reports/text"
)

type recordFlags struct {
	environment         environmentFlags
	runs, untraced, hz  int
	out, signals, cache string
	symbols, goroutines string
	rules               string
	quiet, stepping     bool
}

func recordCommand() *cobra.Command {
	var f recordFlags
	c := &cobra.Command{
		Use:   "record [flags] [--] SUBJECT [ARG…]",
		Short: "Trace cold starts of a program and write a run",
		Example: `  sudo initprof record -n 10 -o ext.initprof -- ./my-extension --its-args
  sudo initprof record --as runtime -- ./bootstrap
  sudo initprof record --latency lambda --function ./bootstrap -- ./my-extension
  initprof record --signals none --network host -- ./my-extension    # without root`,
		RunE: func(cmd *cobra.Command, args []string) error { return runRecord(cmd, args, f) },
	}
	flags := c.Flags()
	flags.SetInterspersed(false)
	flags.IntVarP(&f.runs, "runs", "n", 25, "traced cold starts")
	flags.IntVar(&f.untraced, "untraced", -1, "untraced cold starts between them (default: half as many, at least 5)")
	flags.StringVarP(&f.out, "output", "o", "", "the run's `directory` (default: NAME.initprof)")
	flags.StringVar(&f.signals, "signals", "all", "all, none, or of "+signalList(profile.Recorded, ","))
	flags.StringVar(&f.goroutines, "goroutines", "full", "full, or cheap: no probe in the subject, only what runs at events of the kernel")
	flags.IntVar(&f.hz, "sample-rate", 999, "CPU samples a second, at most 20000")
	flags.StringVar(&f.cache, "page-cache", "warm", "warm, or cold: the subject's file is dropped before each cold start")
	flags.StringVar(&f.symbols, "symbols", "", "unstripped `file` of a stripped subject")
	flags.StringVar(&f.rules, "rules", "", rulesHelp)
	flags.BoolVar(&f.stepping, "step-probes", false, "probe also where each hit is single-stepped, which costs 11 to 16 µs")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no progress and no report")
	f.environment.add(flags)
	return c
}

func runRecord(cmd *cobra.Command, args []string, f recordFlags) error {
	command, err := subject(args)
	if err != nil {
		return err
	}
	o := record.Options{Runs: f.runs, Untraced: f.untraced, Out: f.out, Version: Version, Symbols: f.symbols, PageCold: f.cache == "cold", StepProbes: f.stepping}
	if f.runs < 1 {
		return usage("-n is at least 1")
	}
	if f.cache != "warm" && f.cache != "cold" {
		return usage("--page-cache is warm or cold, not %s", f.cache)
	}
	if f.hz < 1 || f.hz > capture.MaxSampleHz {
		return usage("--sample-rate is 1 to %d", capture.MaxSampleHz)
	}
	if f.goroutines != "full" && f.goroutines != "cheap" {
		return usage("--goroutines is full or cheap, not %s", f.goroutines)
	}
	if o.Rules, err = readRules(f.rules); err != nil {
		return err
	}
	if o.ColdStart, err = f.environment.options(command); err != nil {
		return err
	}
	if o.Capture, o.NoTracing, err = signals(f.signals); err != nil {
		return err
	}
	o.Capture.SampleHz, o.Capture.CheapGoroutines = f.hz, f.goroutines == "cheap"
	if o.Untraced < 0 {
		o.Untraced = max(5, f.runs/2)
	}
	if o.Out == "" {
		o.Out = filepath.Base(command[0]) + ".initprof"
	}
	if o.Out, err = filepath.Abs(o.Out); err != nil {
		return err
	}
	if o.Owner, err = launch.LookupUser(""); err != nil {
		return err
	}
	o.Secrets = secrets(f.environment.env)
	if !f.quiet {
		o.Progress = progress(cmd.ErrOrStderr())
	}
	launch.CleanStale()
	manifest, err := record.Record(cmd.Context(), o)
	if o.Progress != nil {
		o.Progress(-1, 0)
	}
	if err != nil {
		return err
	}
	report, err := writeReports(o)
	if err != nil {
		return err
	}
	if !f.quiet {
		if err := text.Report(cmd.OutOrStdout(), report, text.For(os.Stdout)); err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "\nwritten: %s (profiles/*.pb.gz, flamegraphs/*.svg, trace.json.gz, goroutines.svg, report.json)\n", relative(o.Out))
	}
	return verdict(cmd, manifest)
}

func relative(path string) string {
	if wd, err := os.Getwd(); err == nil {
		if r, err := filepath.Rel(wd, path); err == nil && len(r) < len(path) {
			return r
		}
	}
	return path
}

// signals reads --signals.
func signals(list string) (o capture.Options, none bool, err error) {
	switch list {
	case "all":
		return o, false, nil
	case "none", "":
		return o, true, nil
	}
	want := strings.Split(list, ",")
	for _, s := range want {
		if !slices.Contains(profile.Recorded, profile.Signal(s)) {
			return o, false, usage("--signals %s: want all, none, or of %s", s, signalList(profile.Recorded, ","))
		}
	}
	off := func(s profile.Signal) bool { return !slices.Contains(want, string(s)) }
	o.NoSamples, o.NoSched, o.NoFaults, o.NoCalls = off(profile.CPU), off(profile.OffCPU), off(profile.Faults), off(profile.Binding)
	o.NoGoroutines = off(profile.Goroutines)
	// Requests and files are seen in system calls: they are always recorded.
	return o, false, nil
}

func signalList(signals []profile.Signal, separator string) string {
	names := make([]string, len(signals))
	for i, s := range signals {
		names[i] = string(s)
	}
	return strings.Join(names, separator)
}

// progress tells on a terminal how far a session is.
func progress(w io.Writer) func(done, all int) {
	f, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func(int, int) {}
	}
	return func(done, all int) {
		if done < 0 {
			fmt.Fprint(w, "\r\x1b[K")
			return
		}
		fmt.Fprintf(w, "\r\x1b[Kcold start %d of %d", done+1, all)
	}
}

// verdict is the exit code of a session.
func verdict(cmd *cobra.Command, m *record.Manifest) error {
	var timeout, failed *record.Entry
	for i := range m.ColdStarts {
		r := &m.ColdStarts[i]
		switch {
		case r.Outcome == analysis.OutcomeOK:
		case r.Outcome == analysis.OutcomeTimeout && timeout == nil:
			timeout = r
		case r.Outcome != analysis.OutcomeTimeout && failed == nil:
			failed = r
		}
	}
	switch {
	case cmd.Context().Err() != nil:
		return &exitError{exitInterrupted, errors.New("interrupted: the cold starts up to then are kept")}
	case failed != nil:
		return &exitError{exitSubject, fmt.Errorf("cold start %d: %s", failed.Index, failed.Detail)}
	case timeout != nil:
		return &exitError{exitTimeout, fmt.Errorf("cold start %d: %s", timeout.Index, timeout.Detail)}
	}
	return nil
}

// writeReports adds to a run what is read by people and other tools.
func writeReports(o record.Options) (*analysis.Report, error) {
	run, err := record.Open(o.Out)
	if err != nil {
		return nil, err
	}
	run.Rules = o.Rules
	report, err := run.Report(0)
	if err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(o.Out, "report.json"), func(w io.Writer) error { return json.Report(w, report) }); err != nil {
		return nil, err
	}
	if !o.NoTracing {
		if err := writeTraces(run, report); err != nil {
			return nil, err
		}
		signal := profile.Wall
		switch {
		case !o.Capture.NoSched:
		case !o.Capture.NoSamples:
			signal = profile.CPU
		default:
			signal = profile.Syscalls
		}
		g, err := newGraphs(run, report, signal)
		if err == nil {
			err = g.drawAll(filepath.Join(o.Out, "flamegraphs"))
		}
		if err != nil {
			return nil, err
		}
	}
	return report, record.Own(o.Out, o.Owner)
}

// textOptions fit the terminal, or a file.
func textOptions(file string) text.Options {
	if file != "" {
		return text.Options{}
	}
	return text.For(os.Stdout)
}

func writeFile(path string, write func(io.Writer) error) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(write(f), f.Close())
}

func reportCommand() *cobra.Command {
	var format, out, rules string
	var only int
	c := &cobra.Command{
		Use:   "report RUN",
		Short: "Tell what a run says",
		Example: `  initprof report my-extension.initprof
  initprof report my-extension.initprof --run 3
  initprof report my-extension.initprof --format json | jq .phases`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run, err := openRun(args[0], rules)
			if err != nil {
				return err
			}
			report, err := run.Report(only)
			if err != nil {
				return err
			}
			write := func(w io.Writer) error {
				switch format {
				case "json":
					return json.Report(w, report)
				case "markdown":
					return markdown.Report(w, report)
				}
				return text.Report(w, report, textOptions(out))
			}
			if !slices.Contains([]string{"text", "json", "markdown"}, format) {
				return usage("--format is text, json or markdown, not %s", format)
			}
			if out == "" {
				return write(cmd.OutOrStdout())
			}
			return writeFile(out, write)
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text, json or markdown")
	c.Flags().IntVar(&only, "run", 0, "only this cold start, counted from 1")
	c.Flags().StringVar(&rules, "rules", "", rulesHelp)
	c.Flags().StringVarP(&out, "output", "o", "", "a `file` instead of standard output")
	return c
}
