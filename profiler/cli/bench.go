package cli

import (
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/bench"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/reports/json"
	"github.com/initprof/initprof/reports/markdown"
	"github.com/initprof/initprof/reports/text"
)

type benchFlags struct {
	environment         environmentFlags
	runs                int
	seed                uint64
	matrix, out, format string
	quiet               bool
}

func benchCommand() *cobra.Command {
	var f benchFlags
	c := &cobra.Command{
		Use:   "bench [flags] NAME=COMMAND… | --matrix FILE",
		Short: "Compare untraced cold starts, in randomised interleaved blocks",
		Long: `Compares commands by untraced cold starts, in blocks that hold each command once in
random order; the first command is the base. Beside it the base is compared with
itself (A/A). -o writes every raw run as JSON.`,
		Example: `  sudo initprof bench before=./old-extension after=./new-extension
  sudo initprof bench -n 50 -o bench.json 'a=./ext --fast' 'b=./ext --slow'
  sudo initprof bench --matrix changes.yaml --latency lambda`,
		RunE: func(cmd *cobra.Command, args []string) error { return runBench(cmd, args, f) },
	}
	flags := c.Flags()
	flags.IntVarP(&f.runs, "runs", "n", 25, "cold starts of each command")
	flags.Uint64Var(&f.seed, "seed", 0, "of the order and the bootstrap (default: random)")
	flags.StringVar(&f.matrix, "matrix", "", "YAML `file` of variants with an environment each")
	flags.StringVarP(&f.out, "output", "o", "", "JSON `file` with every raw run")
	flags.StringVar(&f.format, "format", "text", "text, json or markdown")
	flags.BoolVarP(&f.quiet, "quiet", "q", false, "no progress")
	f.environment.add(flags)
	return c
}

func runBench(cmd *cobra.Command, args []string, f benchFlags) error {
	if f.runs < 1 {
		return usage("-n is at least 1")
	}
	if !slices.Contains([]string{"text", "json", "markdown"}, f.format) {
		return usage("--format is text, json or markdown, not %s", f.format)
	}
	o := bench.Options{Runs: f.runs, Seed: f.seed}
	var err error
	if o.Variants, err = f.variants(args); err != nil {
		return err
	}
	if !f.quiet {
		o.Progress = progress(cmd.ErrOrStderr())
	}
	launch.CleanStale()
	result, err := bench.Run(cmd.Context(), o)
	if o.Progress != nil {
		o.Progress(-1, 0)
	}
	if err != nil {
		return err
	}
	if f.out != "" {
		if err := writeFile(f.out, func(w io.Writer) error { return json.Bench(w, result) }); err != nil {
			return err
		}
	}
	switch f.format {
	case "json":
		err = json.Bench(cmd.OutOrStdout(), result)
	case "markdown":
		err = markdown.Bench(cmd.OutOrStdout(), result)
	default:
		err = text.Bench(cmd.OutOrStdout(), result, text.For(os.Stdout))
	}
	if err != nil {
		return err
	}
	for _, v := range result.Variants {
		if v.N == 0 {
			return &exitError{exitSubject, fmt.Errorf("no cold start of %s went well", v.Name)}
		}
	}
	return nil
}

// variants come from the command line or from a matrix file.
func (f *benchFlags) variants(args []string) ([]bench.Variant, error) {
	if (f.matrix == "") == (len(args) == 0) {
		return nil, usage("give NAME=COMMAND… or --matrix FILE")
	}
	var matrix bench.Matrix
	if f.matrix != "" {
		file, err := os.Open(f.matrix)
		if err != nil {
			return nil, usage("%w", err)
		}
		defer func() { _ = file.Close() }()
		read, err := bench.ReadMatrix(file)
		if err != nil {
			return nil, usage("%s: %w", f.matrix, err)
		}
		matrix = *read
	}
	for _, a := range args {
		name, command, ok := strings.Cut(a, "=")
		if !ok || name == "" || slices.ContainsFunc(matrix.Variants, func(v bench.MatrixVariant) bool { return v.Name == name }) {
			return nil, usage("%s: want NAME=COMMAND, each name once", a)
		}
		w, err := split(command)
		if err != nil {
			return nil, err
		}
		matrix.Variants = append(matrix.Variants, bench.MatrixVariant{Name: name, Command: w})
	}
	var all []bench.Variant
	for _, v := range matrix.Variants {
		command, err := subject(v.Command)
		if err != nil {
			return nil, err
		}
		o, err := f.environment.options(command)
		if err != nil {
			return nil, err
		}
		names := slices.Sorted(maps.Keys(v.Env))
		for _, name := range names {
			o.Env = append(slices.Clone(o.Env), name+"="+v.Env[name])
		}
		all = append(all, bench.Variant{Name: v.Name, EnvNames: names, Options: o})
	}
	return all, nil
}
