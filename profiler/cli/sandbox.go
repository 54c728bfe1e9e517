package cli

import (
	"fmt"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
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
