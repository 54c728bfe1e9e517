package cli

import (
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/stat"
)

// variant is one command of a bench and what its cold starts took, in ns.
type variant struct {
	name    string
	options coldstart.Options
	values  map[string][]int64
	failed  int
}

// benchMetrics in the order of the table.
var benchMetrics = []string{"release → /next", "ready", "first invoke"}

func benchCommand() *cobra.Command {
	var f environmentFlags
	var n int
	c := &cobra.Command{
		Use:   "bench [flags] NAME=COMMAND…",
		Short: "Compare untraced cold starts, in randomised interleaved blocks",
		Example: `  sudo initprof bench before=./old-extension after=./new-extension
  sudo initprof bench -n 50 'a=./ext --fast' 'b=./ext --slow'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var variants []*variant
			for _, a := range args {
				name, command, ok := strings.Cut(a, "=")
				if !ok || name == "" {
					return usage("%s: want NAME=COMMAND", a)
				}
				w, err := words(command)
				if err != nil {
					return err
				}
				o, err := f.options(w)
				if err != nil {
					return err
				}
				variants = append(variants, &variant{name: name, options: o, values: map[string][]int64{}})
			}
			launch.CleanStale()
			for range n {
				for _, i := range rand.Perm(len(variants)) {
					if err := variants[i].measure(cmd); err != nil {
						return err
					}
				}
			}
			for _, v := range variants {
				if v.failed > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "initprof: %s: %d of %d cold starts failed\n", v.name, v.failed, n)
				}
			}
			return benchTable(cmd.OutOrStdout(), variants)
		},
	}
	c.Flags().IntVarP(&n, "runs", "n", 25, "cold starts of each command")
	f.add(c.Flags())
	return c
}

func (v *variant) measure(cmd *cobra.Command) error {
	r, err := coldstart.Run(cmd.Context(), v.options, nil, nil)
	if err != nil {
		return err
	}
	if r.Outcome != coldstart.OK {
		v.failed++
		return nil
	}
	v.values[benchMetrics[0]] = append(v.values[benchMetrics[0]], r.FirstNext-r.Released)
	if r.Ready > 0 {
		v.values[benchMetrics[1]] = append(v.values[benchMetrics[1]], int64(r.Ready))
	}
	if r.FirstInvoke > 0 {
		v.values[benchMetrics[2]] = append(v.values[benchMetrics[2]], int64(r.FirstInvoke))
	}
	return nil
}

func benchTable(w io.Writer, variants []*variant) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	ms := func(ns int64) string { return fmt.Sprintf("%.3f", float64(ns)/1e6) }
	for _, metric := range benchMetrics {
		fmt.Fprintf(t, "%s (ms)\tn\tmin\tp50\tp90\tp99\tmax\tmean\tΔ p50\t95 %% CI\tp\t\n", metric)
		base := variants[0].values[metric]
		for _, v := range variants {
			values := v.values[metric]
			if len(values) == 0 {
				continue
			}
			s := stat.Summarize(values)
			p99 := ms(s.P99)
			if s.P99IsMax() {
				p99 = "(=max)"
			}
			delta, ci, p := "", "", ""
			if v != variants[0] && len(base) > 0 {
				shift := stat.Compare(base, values, 1)
				delta = fmt.Sprintf("%+.3f", float64(shift.Estimate)/1e6)
				ci = fmt.Sprintf("%+.3f … %+.3f", float64(shift.CI95[0])/1e6, float64(shift.CI95[1])/1e6)
				p = fmt.Sprintf("%.3f", shift.P)
			}
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t\n", v.name, s.N, ms(s.Min), ms(s.P50), ms(s.P90), p99, ms(s.Max), ms(s.Mean), delta, ci, p)
		}
		fmt.Fprintln(t)
	}
	return t.Flush()
}
