package cli

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/reports/flame"
	"github.com/initprof/initprof/reports/json"
	"github.com/initprof/initprof/reports/markdown"
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
	if f.format != "svg" && f.phase != "all" {
		return usage("--phase is of --format svg; the other formats tell of all phases")
	}
	if f.checked && !(f.failAbove >= 0 && !math.IsInf(f.failAbove, 0)) {
		return usage("--fail-above takes per cent from 0, not %v", f.failAbove)
	}
	var inputs [2]analysis.DiffInput
	var failed [2]error
	var both sync.WaitGroup
	for i, dir := range []string{beforeDir, afterDir} {
		both.Go(func() {
			run, err := openRun(dir, f.rules)
			if err == nil {
				inputs[i], err = run.Compared()
			}
			failed[i] = err
		})
	}
	both.Wait()
	if err := cmp.Or(failed[0], failed[1]); err != nil {
		return err
	}
	d, stacks, err := analysis.Compare(inputs[0], inputs[1])
	if err != nil {
		return err
	}
	if f.format == "svg" {
		err = writeDiffGraphs(cmd.OutOrStdout(), d, diffGraphs{stacks: stacks, subject: inputs[1].Report.Subject}, f)
	} else {
		err = writeTo(cmd.OutOrStdout(), f.out, func(w io.Writer) error { return writeDiff(w, d, f) })
	}
	if err != nil || !f.checked {
		return err
	}
	return failAbove(d, f.failAbove)
}

// failAbove is the exit code of --fail-above.
func failAbove(d *analysis.Diff, percent float64) error {
	exceeds, ok := d.Wall.Exceeds(percent)
	if !ok {
		return fmt.Errorf("--fail-above needs an interval of the shift, and so at least 6 untraced cold starts of each run: record both with --untraced 12")
	}
	if exceeds {
		return &exitError{exitSlower, fmt.Errorf("slower by at least %.1f %%, which is above %g %%", 100*float64(d.Wall.CI95[0])/float64(d.Wall.Before.P50), percent)}
	}
	return nil
}

// writeTo writes to a file, or without one to out.
func writeTo(out io.Writer, file string, write func(io.Writer) error) error {
	if file == "" {
		return write(out)
	}
	return writeFile(file, write)
}

func writeDiff(w io.Writer, d *analysis.Diff, f diffFlags) error {
	switch f.format {
	case "json":
		return json.Diff(w, d)
	case "markdown":
		return markdown.Diff(w, d)
	}
	return text.Diff(w, d, textOptions(f.out))
}

// writeDiffGraphs draws one phase, or into a directory all of them.
func writeDiffGraphs(out io.Writer, d *analysis.Diff, g diffGraphs, f diffFlags) error {
	if d.Traced == nil {
		return errors.New("there is no flame graph without the ledgers of both runs: record both with --signals all, as root")
	}
	names := []string{profile.AllPhases}
	for _, p := range d.Phases {
		names = append(names, p.Name)
	}
	if !slices.Contains(names, f.phase) {
		return usage("no phase %s in these runs; they have %s", f.phase, strings.Join(names[1:], ", "))
	}
	if !isDirectory(f.out) {
		return writeTo(out, f.out, func(w io.Writer) error { return g.draw(f.phase, w) })
	}
	if f.phase != profile.AllPhases {
		names = []string{f.phase}
	}
	return drawInto(f.out, names, g.draw)
}

// diffGraphs are the differential flame graphs of two runs.
type diffGraphs struct {
	stacks  *analysis.DiffStacks
	subject analysis.Subject // of the later run
}

func (g diffGraphs) draw(phase string, w io.Writer) error {
	title := "diff: " + string(profile.Wall)
	if len(g.subject.Command) > 0 {
		title = filepath.Base(g.subject.Command[0]) + ", " + title
	}
	if phase != profile.AllPhases {
		title += ", phase " + phase
	}
	return flame.RenderDiff(w, g.samples(g.stacks.Before, phase), g.samples(g.stacks.After, phase), flame.Options{
		Title: title, Subtitle: "exec → /next", Noun: nouns[profile.Wall],
	})
}

func (g diffGraphs) samples(stacks []profile.WeightedStack, phase string) []flame.Sample {
	var of []profile.WeightedStack
	for _, s := range stacks {
		if phase == profile.AllPhases || s.Phase == phase {
			of = append(of, s)
		}
	}
	return flameSamples(of, g.subject)
}
