package cli

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/reports/text"
)

// openRun opens a run with the rules of a file, if one is given.
func openRun(dir, rules string) (*record.Run, error) {
	run, err := record.Open(dir)
	if err != nil {
		return nil, err
	}
	run.Rules, err = readRules(rules)
	return run, err
}

// readRules reads --rules; without a file the built-in ones apply.
func readRules(file string) (*ledger.Rules, error) {
	if file == "" {
		return ledger.BuiltIn(), nil
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return nil, usage("--rules: %w", err)
	}
	rules, err := ledger.ParseRules(b)
	if err != nil {
		return nil, usage("--rules %s: %w", file, err)
	}
	return rules, nil
}

const rulesHelp = "a YAML `file` of rules for categories, in front of the built-in ones (docs/ledger.md)"

func blameCommand() *cobra.Command {
	var rules string
	var only int
	c := &cobra.Command{
		Use:   "blame RUN",
		Short: "List what INIT was spent on, by its share of the critical path",
		Long: `blame lists the cells of the ledger, phase × category × state, by the time that
they delayed /next. What ran beside the critical path is not among them: without
it INIT would have been as long.`,
		Example: `  initprof blame my-extension.initprof
  initprof blame my-extension.initprof --run 3
  initprof blame my-extension.initprof --rules rules.yaml`,
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
			return text.Blame(cmd.OutOrStdout(), report, textOptions(""))
		},
	}
	c.Flags().IntVar(&only, "run", 0, "only this cold start, counted from 1")
	c.Flags().StringVar(&rules, "rules", "", rulesHelp)
	return c
}

func criticalChainCommand() *cobra.Command {
	var rules string
	var only int
	var share float64
	c := &cobra.Command{
		Use:   "critical-chain RUN",
		Short: "Show the chain of work and waits that ended with /next as a tree",
		Long: `critical-chain starts at /next and goes back to whoever the one before had to
wait for: the goroutine that made it ready, the thread that woke it, the process
that it forked, the request that the environment answered.`,
		Example: `  initprof critical-chain my-extension.initprof            # the cold start nearest to the median
  initprof critical-chain my-extension.initprof --run 3 --share 0`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			run, err := openRun(args[0], rules)
			if err != nil {
				return err
			}
			if only == 0 {
				all, err := run.Report(0)
				if err != nil {
					return err
				}
				if only = analysis.NearestMedian(all.Runs); only == 0 {
					return fmt.Errorf("%s: no traced cold start went well; --run chooses one of the others", args[0])
				}
			}
			report, err := run.Report(only)
			if err != nil {
				return err
			}
			return text.Chain(cmd.OutOrStdout(), report, analysis.Chain(report.CriticalPath, share), textOptions(""))
		},
	}
	c.Flags().IntVar(&only, "run", 0, "the cold start, counted from 1 (default: the one nearest to the median)")
	c.Flags().Float64Var(&share, "share", 0.005, "hops shorter than this `part` of INIT are joined")
	c.Flags().StringVar(&rules, "rules", "", rulesHelp)
	return c
}
