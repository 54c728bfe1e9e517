package record

import (
	"fmt"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/ledger"
)

// WhatIf predicts how long the cold starts that went well would have been
// without some of their work. The error may wrap ledger.ErrWithout.
func (r *Run) WhatIf(text string) (*analysis.WhatIf, error) {
	rules := r.Rules
	if rules == nil {
		rules = ledger.BuiltIn()
	}
	var walls, predicted, work []int64
	for _, e := range r.Manifest.ColdStarts {
		if e.Events == "" || e.Outcome != analysis.OutcomeOK {
			continue
		}
		c, names, _ := r.load(e) // warnings are the report's
		in := r.ledgerInput(c, names)
		if in == nil {
			continue
		}
		var phases []string
		for _, p := range c.Phases.Phases {
			phases = append(phases, p.Name)
		}
		without, err := ledger.ParseWithout(text, rules.Categories(), phases)
		if err != nil {
			return nil, err
		}
		p, w := ledger.Replay(*in, without)
		walls, predicted, work = append(walls, c.Phases.End-c.Phases.Start), append(predicted, p), append(work, w)
	}
	if len(walls) == 0 {
		return nil, fmt.Errorf("%s: no traced cold start with waits went well: there is nothing to replay", r.Dir)
	}
	return analysis.NewWhatIf(text, walls, predicted, work), nil
}
