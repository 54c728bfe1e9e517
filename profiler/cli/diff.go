package cli

import (
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/json"
	"github.com/initprof/initprof/reports/text"
)

type diffFlags struct {
	format, out, phase, rules string
	failAbove                 float64
	checked                   bool // --fail-above was given
}

var diffFormats = []string{"text", "json", "markdown", "svg"}

func diffCommand() *cobra.Command {
	var f diffFlags
	c := &cobra.Command{
		Use:   "diff BEFORE AFTER",
		Short: "Tell what became of a run in another: faster or slower, and where",
		Long: `diff compares two runs. Whether AFTER is faster is said from the untraced cold
starts of both; where the difference lies, from the traced ones: the difference
of their ledgers (phase × category × state) sums to that of their means, and what
initprof itself took is named. Then come phases, functions, and what of packages,
certificates, system calls, files and the like appeared, vanished, grew or shrank.

--format svg draws the differential flame graph of the critical path: as wide as
AFTER, red where it grew, blue where it shrank, and a panel of what vanished.

Exit code 5: with --fail-above, AFTER is slower by more than so many per cent of
BEFORE's median, with all of the shift's 95 % interval.`,
		Example: `  sudo initprof record -n 25 -o before.initprof -- ./old-extension
  sudo initprof record -n 25 -o after.initprof -- ./new-extension
  initprof diff before.initprof after.initprof
  initprof diff before.initprof after.initprof --format markdown -o comment.md
  initprof diff before.initprof after.initprof --format svg -o diff.svg
  initprof diff before.initprof after.initprof --format svg -o diffs/      # one a phase
  initprof diff before.initprof after.initprof --fail-above 5              # in CI`,
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f.checked = cmd.Flags().Changed("fail-above")
			return runDiff(cmd, args[0], args[1], f)
		},
	}
	flags := c.Flags()
	flags.StringVar(&f.format, "format", "text", "text, json, markdown or svg")
	flags.StringVar(&f.phase, "phase", "all", "of --format svg: a phase's name, or all")
	flags.Float64Var(&f.failAbove, "fail-above", 0, "exit with 5 if AFTER is slower by more than `PCT` per cent")
	flags.StringVar(&f.rules, "rules", "", rulesHelp)
	flags.StringVarP(&f.out, "output", "o", "", "a `file`, or of svg a directory for one graph a phase (default: standard output)")
	return c
}

func runDiff(cmd *cobra.Command, beforeDir, afterDir string, f diffFlags) error {
	if !slices.Contains(diffFormats, f.format) {
		return usage("--format is text, json, markdown or svg, not %s", f.format)
	}
	if f.checked && !(f.failAbove >= 0 && !math.IsInf(f.failAbove, 0)) {
		return usage("--fail-above takes per cent from 0, not %v", f.failAbove)
	}
	var inputs [2]analysis.DiffInput
	for i, dir := range []string{beforeDir, afterDir} {
		run, err := openRun(dir, f.rules)
		if err != nil {
			return err
		}
		if inputs[i], err = run.Compared(); err != nil {
			return err
		}
	}
	d, _, err := analysis.Compare(inputs[0], inputs[1])
	if err != nil {
		return err
	}
	write := func(w io.Writer) error {
		switch f.format {
		case "json":
			return json.Diff(w, d)
		}
		return text.Diff(w, d, textOptions(f.out))
	}
	if f.out == "" {
		err = write(cmd.OutOrStdout())
	} else {
		err = writeFile(f.out, write)
	}
	if err != nil || !f.checked {
		return err
	}
	exceeds, ok := d.Wall.Exceeds(f.failAbove)
	if !ok {
		return fmt.Errorf("--fail-above needs an interval of the shift, and so at least 6 untraced cold starts of each run: record both with --untraced 12")
	}
	if exceeds {
		return &exitError{exitSlower, fmt.Errorf("slower by at least %.1f %%, which is above %g %%", 100*float64(d.Wall.CI95[0])/float64(d.Wall.Before.P50), f.failAbove)}
	}
	return nil
}
