package cli

import (
	"encoding/json"
	"errors"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/reports/text"
)

func whatifCommand() *cobra.Command {
	var without, rules, format string
	c := &cobra.Command{
		Use:   "whatif RUN --without WHAT",
		Short: "Predict INIT without some of its work",
		Long: `whatif replays the dependencies of each recorded cold start with some work
costing nothing: a category, a phase, a function with all it calls, or the answer
to a request. What is not on the critical path saves nothing, and what lies
hidden behind the work comes to light. "start PHASE at EARLIER-PHASE" keeps the
work, but lets it begin when the earlier phase ends, beside what ran then.`,
		Example: `  initprof whatif my-extension.initprof --without cert-loading
  initprof whatif my-extension.initprof --without phase:config_parse
  initprof whatif my-extension.initprof --without 'function:^main\.loadConfig$'
  initprof whatif my-extension.initprof --without 'PUT /2022-07-01/telemetry'
  initprof whatif my-extension.initprof --without 'start telemetry_subscribe at register'`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usage("--format is text or json, not %s", format)
			}
			if without == "" {
				return usage("without what? --without takes a category, a phase, a function or a request")
			}
			run, err := openRun(args[0], rules)
			if err != nil {
				return err
			}
			result, err := run.WhatIf(without)
			if errors.Is(err, ledger.ErrWithout) {
				return usage("--without: %w", err)
			}
			if err != nil {
				return err
			}
			if format == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(result)
			}
			return text.WhatIf(cmd.OutOrStdout(), result, textOptions(""))
		},
	}
	c.Flags().StringVar(&without, "without", "", "the `work`: category:, phase:, function:, request:, or start PHASE at PHASE")
	c.Flags().StringVar(&format, "format", "text", "text or json")
	c.Flags().StringVar(&rules, "rules", "", rulesHelp)
	return c
}
