// Package bench compares commands by untraced cold starts, in randomised
// interleaved blocks: each block holds each variant once, in random order, so
// that a machine that changes its speed changes it for all.
//
// It stands beside record, above everything from coldstart to analysis.
package bench

import (
	"context"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/profiler/stat"
)

// Variant is one command to be compared.
type Variant struct {
	Name     string
	EnvNames []string // of its own variables; values are never kept
	Options  coldstart.Options
}

// Options describes a comparison. The first variant is the base.
type Options struct {
	Variants []Variant
	Runs     int    // of each variant; default 25
	Seed     uint64 // of the order and the bootstrap; 0: a random one
	NoAA     bool   // the base is not compared with itself
	Progress func(done, all int)
}

const defaultRuns = 25

// metric is what decides; the others are shown.
const metric = "release_to_next"

// margin is the shift below which a change does not matter: 2 % of the base.
const margin = 50

// again is the base once more.
const again = -1

// Run makes the cold starts. One that fails counts as an outcome and goes on.
func Run(ctx context.Context, o Options) (*analysis.Bench, error) {
	if o.Runs == 0 {
		o.Runs = defaultRuns
	}
	if o.Seed == 0 {
		o.Seed = rand.Uint64()
	}
	random := rand.New(rand.NewPCG(o.Seed, 0))
	b := &analysis.Bench{
		Schema: analysis.BenchSchema, Seed: o.Seed, Host: record.Host(), Settings: settings(o), Warnings: []string{},
	}
	order := []int{}
	if !o.NoAA {
		order = append(order, again)
	}
	for i, v := range o.Variants {
		order = append(order, i)
		b.Variants = append(b.Variants, analysis.Variant{
			Name: v.Name, Command: v.Options.Command, EnvNames: v.EnvNames,
			SHA256: record.FileSum(v.Options.Command[0]), Outcomes: map[string]int{}, Raw: []analysis.BenchRun{},
		})
	}
	aa := analysis.Variant{Outcomes: map[string]int{}}
	// One of each that nobody looks at warms the page cache.
	for _, v := range o.Variants {
		if _, err := coldstart.Run(ctx, v.Options, nil, nil); err != nil {
			return nil, err
		}
	}
	done := 0
	for block := 1; block <= o.Runs && ctx.Err() == nil; block++ {
		random.Shuffle(len(order), func(i, k int) { order[i], order[k] = order[k], order[i] })
		for position, i := range order {
			if o.Progress != nil {
				o.Progress(done, o.Runs*len(order))
			}
			done++
			into := &aa
			if i != again {
				into = &b.Variants[i]
			}
			if err := one(ctx, o.Variants[max(i, 0)], into, b, block, position+1); err != nil {
				return nil, err
			}
		}
	}
	if ctx.Err() != nil {
		b.Warnings = append(b.Warnings, "interrupted: the last block is not whole")
	}
	summarize(b, &aa, o)
	return b, nil
}

func settings(o Options) analysis.Settings {
	c := o.Variants[0].Options
	s := analysis.Settings{As: "extension", Runs: o.Runs, Until: "next", InitializationType: c.InitializationType, PageCache: "warm", Latency: c.Latency.String()}
	if c.AsRuntime {
		s.As = "runtime"
	}
	if c.User != nil {
		s.User = c.User.Name
	}
	return s
}

// one makes one cold start of a variant.
func one(ctx context.Context, v Variant, into *analysis.Variant, b *analysis.Bench, block, position int) error {
	r, err := coldstart.Run(ctx, v.Options, nil, nil)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return nil
	}
	run := analysis.BenchRun{Block: block, Position: position, Outcome: r.Outcome, OutcomeDetail: r.Detail}
	into.Outcomes[r.Outcome]++
	between := func(from, to int64) *int64 {
		if from == 0 || to == 0 {
			return nil
		}
		return new(to - from)
	}
	positive := func(d time.Duration) *int64 {
		if d <= 0 {
			return nil
		}
		return new(int64(d))
	}
	if r.Outcome == coldstart.OK {
		m := &run.Metrics
		m.ReleaseToNext, m.ReleaseToRegister = between(r.Released, r.FirstNext), between(r.Released, r.Registered)
		m.Ready, m.Init, m.FirstInvoke = positive(r.Ready), between(r.InitStart, r.InitEnd), positive(r.FirstInvoke)
		if m.Init != nil && m.FirstInvoke != nil {
			m.InitPlusFirstInvoke = new(*m.Init + *m.FirstInvoke)
		}
		// Of the subject's whole life, invokes included; unknown where it had to be killed.
		if u := r.Usage; u.Maxrss > 0 {
			m.CPU = new(u.Utime.Nano() + u.Stime.Nano())
			m.MaxRSS, m.Faults = new(u.Maxrss<<10), new(u.Minflt+u.Majflt)
		}
	}
	into.Raw = append(into.Raw, run)
	if q := r.Box.CPUQuota; q > 0 {
		b.Settings.CPUQuota, b.Settings.CPUPeriodNS = new(q), new(int64(r.Box.CPUPeriod))
		b.Settings.CPUs = new(len(r.Box.CPUs))
	}
	for _, w := range r.Warnings {
		if !slices.Contains(b.Warnings, w) {
			b.Warnings = append(b.Warnings, w)
		}
	}
	return nil
}

// values are those of one metric.
func values(v *analysis.Variant, name string) (all []int64) {
	for i := range v.Raw {
		if m := *v.Raw[i].Field(name); m != nil {
			all = append(all, *m)
		}
	}
	return all
}

func summarize(b *analysis.Bench, aa *analysis.Variant, o Options) {
	for i := range b.Variants {
		v := &b.Variants[i]
		v.N = len(values(v, metric))
		for _, m := range analysis.MetricList {
			if all := values(v, m.Name); len(all) > 0 {
				*v.Metrics.Field(m.Name) = new(stat.Summarize(all))
			}
		}
	}
	base := values(&b.Variants[0], metric)
	if len(base) == 0 {
		return
	}
	if all := values(aa, metric); len(all) > 0 {
		shift := stat.Compare(base, all, b.Seed)
		b.AA = &analysis.AA{P: shift.P, ShiftNS: shift.Estimate}
	}
	for i := 1; i < len(b.Variants); i++ {
		for _, m := range []string{metric, "init", "first_invoke", "init_plus_first_invoke", "ready"} {
			x, y := values(&b.Variants[0], m), values(&b.Variants[i], m)
			if len(x) == 0 || len(y) == 0 {
				continue
			}
			shift := stat.Compare(x, y, b.Seed)
			b.Comparisons = append(b.Comparisons, analysis.Comparison{
				Base: b.Variants[0].Name, Variant: b.Variants[i].Name, Metric: m, ShiftNS: shift.Estimate,
				CI95: &shift.CI95, P: shift.P, EquivalenceNS: stat.Summarize(x).P50 / margin,
			})
		}
	}
	judge(b.Comparisons)
}

// significance is the level of all comparisons together.
const significance = 0.05

func judge(all []analysis.Comparison) {
	p := make([]float64, len(all))
	for i := range all {
		p[i] = all[i].P
	}
	for i, corrected := range stat.Holm(p) {
		c := &all[i]
		c.PHolm, c.Significant = corrected, corrected < significance
		within := c.CI95[0] > -c.EquivalenceNS && c.CI95[1] < c.EquivalenceNS
		switch {
		case within:
			c.Verdict = analysis.VerdictNoEffect
		case c.Significant && c.ShiftNS < 0:
			c.Verdict = analysis.VerdictPays
		case c.Significant && c.ShiftNS > 0:
			c.Verdict = analysis.VerdictHurts
		default:
			c.Verdict = analysis.VerdictUndecided
		}
	}
}
