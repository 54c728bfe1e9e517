package cli

import (
	"context"
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/reports/figure"
)

func sandboxCommand() *cobra.Command {
	var f environmentFlags
	c := &cobra.Command{
		Use:   "sandbox [flags] [--] SUBJECT [ARG…]",
		Short: "Run a program once in the emulated environment, untraced, and show what it asked for",
		Example: `  sudo initprof sandbox -- ./my-extension
  initprof sandbox --network host --invoke 3 -- ./my-extension`,
		RunE: func(cmd *cobra.Command, args []string) error {
			command, err := subject(args)
			if err != nil {
				return err
			}
			o, err := f.options(command)
			if err != nil {
				return err
			}
			o.Echo = os.Stderr
			launch.CleanStale()
			r, err := coldstart.Run(cmd.Context(), o, nil, nil)
			if err != nil {
				return err
			}
			t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "after release\ttook\tstatus\trequest")
			for _, q := range r.Requests {
				took := "–"
				if q.Answered != 0 {
					took = figure.Duration(float64(q.Answered - q.Received))
				}
				fmt.Fprintf(t, "%s\t%s\t%d\t%s %s\n", figure.Duration(float64(q.Received-r.Released)), took, q.Status, q.Method, q.Path)
			}
			if err := t.Flush(); err != nil {
				return err
			}
			for _, w := range append(r.Box.Missing, r.Warnings...) {
				fmt.Fprintln(cmd.OutOrStdout(), "warning:", w)
			}
			switch {
			case r.Outcome == coldstart.OK:
				return nil
			case cmd.Context().Err() != nil:
				return &exitError{exitInterrupted, fmt.Errorf("%s", r.Detail)}
			case r.Outcome == coldstart.Timeout:
				return &exitError{exitTimeout, fmt.Errorf("%s", r.Detail)}
			}
			return &exitError{exitSubject, fmt.Errorf("%s: %s", r.Outcome, r.Detail)}
		},
	}
	c.Flags().SetInterspersed(false)
	f.add(c.Flags())
	return c
}

func doctorCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "doctor [BINARY]",
		Short: "Tell what this host and a binary allow, probe by probe",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			out := cmd.OutOrStdout()
			t, err := capture.New(capture.Options{})
			if err != nil {
				fmt.Fprintln(out, "tracing   unavailable:", err)
			} else {
				for _, p := range t.Probes() {
					state := "ok"
					if p.Reason != "" {
						state = "unavailable: " + p.Reason
					}
					fmt.Fprintf(out, "%-15s %s\n", p.Name, state)
				}
				if err := t.Close(); err != nil {
					return err
				}
			}
			box, err := launch.New(context.Background(), launch.Options{Isolated: os.Geteuid() == 0, CPUs: 2, CPUQuota: 1, MemoryMB: 1024})
			if err != nil {
				return err
			}
			s := box.Settings()
			fmt.Fprintf(out, "%-15s own namespaces %v, own network %v, cgroup v%d\n", "environment", s.Namespaces, s.Isolated, s.CgroupVersion)
			for _, m := range s.Missing {
				fmt.Fprintf(out, "%-15s missing: %s\n", "", m)
			}
			if err := box.Close(); err != nil || len(args) == 0 {
				return err
			}
			return doctorBinary(cmd, args[0])
		},
	}
}

func doctorBinary(cmd *cobra.Command, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	o, err := symbolize.OpenObject(f)
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	language, version := o.Language()
	fmt.Fprintf(cmd.OutOrStdout(), "%-15s %s %s, %s, PIE %v, stripped %v, build ID %s\n", "binary",
		language, version, o.Info.Linkage, o.Info.PIE, o.Info.Stripped, o.Info.BuildID)
	return nil
}
