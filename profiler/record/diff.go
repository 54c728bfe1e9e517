package record

import (
	"fmt"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/symbolize"
)

// Compared is what a run gives to a diff: its report, and its critical path as
// weighted stacks, both from one reading of the recordings. It fails if no cold
// start went well, since there is nothing to compare then.
func (r *Run) Compared() (analysis.DiffInput, error) {
	ok, traced, tracedOK := 0, 0, 0
	for _, e := range r.Manifest.ColdStarts {
		if e.Outcome == analysis.OutcomeOK {
			ok++
		}
		if e.Traced {
			traced++
			if e.Outcome == analysis.OutcomeOK {
				tracedOK++
			}
		}
		for _, ns := range []*int64{e.ReleaseToNextNS, e.FirstInvokeNS, e.InitNS} {
			if ns != nil && (*ns < 0 || *ns > longest) {
				return analysis.DiffInput{}, fmt.Errorf("%s: its manifest.json is damaged: cold start %d has a duration of %d ns", r.Dir, e.Index, *ns)
			}
		}
	}
	if ok == 0 {
		return analysis.DiffInput{}, fmt.Errorf("%s: none of its %d cold starts went well: there is nothing to compare; 'initprof report %s' says why", r.Dir, len(r.Manifest.ColdStarts), r.Dir)
	}
	if traced > 0 && tracedOK == 0 {
		return analysis.DiffInput{}, fmt.Errorf("%s: none of its %d traced cold starts went well, although untraced ones did: there is nothing to compare; 'initprof report %s' says why", r.Dir, traced, r.Dir)
	}
	b, accounted := r.newBuilder(), 0
	report, err := r.report(0, func(e Entry, c analysis.ColdStart, names *symbolize.Resolver) {
		if e.Traced && c.Ledger != nil && names != nil && e.Outcome == analysis.OutcomeOK {
			b.AddWall(profiled(e, c, names))
			accounted++
		}
	})
	if err != nil {
		return analysis.DiffInput{}, err
	}
	return analysis.DiffInput{
		Name: r.Dir, Report: report, Accounted: accounted,
		Stacks: profile.Stacks(b.Profile(profile.Wall), profile.AllPhases),
	}, nil
}

// longest is more than any cold start takes, and small enough to be added up.
const longest = int64(1) << 50
