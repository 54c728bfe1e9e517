package text

import (
	"fmt"
	"io"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// benchMetrics are the tables of a comparison, the primary metric first.
var benchMetrics = []struct{ name, title string }{
	{"release_to_next", "release → /next"},
	{"ready", "ready, as the subject prints it"},
	{"init", "INIT"},
	{"first_invoke", "first invoke"},
	{"init_plus_first_invoke", "INIT plus first invoke"},
}

// Bench writes a comparison: one table a metric, a row a variant.
func Bench(w io.Writer, b *analysis.Bench, o Options) error {
	p := newPrinter(o)
	blocks := 0
	for _, v := range b.Variants {
		for _, run := range v.Raw {
			blocks = max(blocks, run.Block)
		}
	}
	p.line(p.paint(fmt.Sprintf("%s, untraced, in %s", plural(len(b.Variants), "variant"), plural(blocks, "interleaved block")), bold))
	var parts []string
	parts = append(parts, fmt.Sprintf("seed %d", b.Seed))
	for _, s := range []string{b.Settings.As, b.Settings.InitializationType} {
		if s != "" {
			parts = append(parts, figure.Clean(s))
		}
	}
	if b.Settings.PageCache != "" {
		parts = append(parts, "page cache "+figure.Clean(b.Settings.PageCache))
	}
	if b.Settings.CPUQuota != nil {
		parts = append(parts, fmt.Sprintf("quota %.4g", *b.Settings.CPUQuota))
	}
	if l := b.Settings.Latency; l != "" && l != "none" {
		parts = append(parts, "assumed latency "+figure.Clean(l))
	}
	parts = append(parts, strings.TrimSpace(figure.Clean(b.Host.Kernel+" "+b.Host.Arch)), figure.Clean(b.Host.CPUModel))
	p.joined(parts, dim)
	for _, m := range benchMetrics {
		p.benchTable(b, m.name, m.title)
	}
	if b.AA != nil {
		p.line("")
		p.wrap(fmt.Sprintf("A/A, the base against itself: %s, %s", figure.Signed(b.AA.ShiftNS, figure.Duration(float64(b.AA.ShiftNS))), figure.P(b.AA.P)), 0, plain)
	}
	p.benchFailures(b)
	p.warnings(b.Warnings)
	return p.flush(w)
}

func (p *printer) benchTable(b *analysis.Bench, metric, title string) {
	var largest int64
	for i := range b.Variants {
		if s := *b.Variants[i].Metrics.Field(metric); s != nil {
			largest = max(largest, s.Max)
		}
	}
	if largest == 0 {
		return
	}
	p.heading(title, "ms")
	decimals := figure.Decimals(largest)
	t := &table{columns: []column{
		{name: "variant", left: true, flex: true},
		{name: "n", quiet: true},
		{name: "min"},
		{name: "p50"},
		{name: "p90"},
		{name: "p99"},
		{name: "max"},
		{name: "mean"},
		{name: "Δ p50"},
		{left: true},
	}}
	base := *b.Variants[0].Metrics.Field(metric)
	for i := range b.Variants {
		v := &b.Variants[i]
		s := *v.Metrics.Field(metric)
		if s == nil || s.N == 0 {
			t.add(figure.Clean(v.Name), "0", "–", "–", "–", "–", "–", "–", "", "")
			continue
		}
		ms := func(v int64) string { return figure.Milliseconds(v, decimals) }
		delta, note := cell{}, cell{}
		if i > 0 && base != nil {
			shift := s.P50 - base.P50
			delta.text = figure.Shift(shift, base.P50, ms(shift))
			for _, c := range b.Comparisons {
				if c.Variant == v.Name && c.Metric == metric {
					delta.ink, note = verdict(c, decimals)
				}
			}
		}
		t.add(figure.Clean(v.Name), figure.Group(int64(s.N)), ms(s.Min), cell{ms(s.P50), bold}, ms(s.P90), p99(s, decimals), ms(s.Max), ms(s.Mean), delta, note)
	}
	p.print(t)
	p.shifts(b, metric, decimals)
}

func verdict(c analysis.Comparison, decimals int) (ink, cell) {
	switch c.Verdict {
	case analysis.VerdictPays:
		return green, cell{"pays", green}
	case analysis.VerdictHurts:
		return red, cell{"hurts", red}
	case analysis.VerdictNoEffect:
		return dim, cell{"no effect", dim}
	}
	return dim, cell{"~", dim}
}

// shifts prints the test behind each row's verdict.
func (p *printer) shifts(b *analysis.Bench, metric string, decimals int) {
	t := &table{columns: []column{{left: true, flex: true}, {}, {left: true, quiet: true}, {left: true, quiet: true}, {left: true}}}
	for _, c := range b.Comparisons {
		if c.Metric != metric {
			continue
		}
		ci := ""
		if c.CI95 != nil {
			ci = "95 % " + figure.Signed(c.CI95[0], figure.Milliseconds(c.CI95[0], decimals)) + " … " +
				figure.Signed(c.CI95[1], figure.Milliseconds(c.CI95[1], decimals))
		}
		holm := figure.P(c.PHolm)
		if !c.Significant {
			holm = "~ " + holm
		}
		t.add(figure.Clean(c.Variant)+" − "+figure.Clean(c.Base), figure.Signed(c.ShiftNS, figure.Milliseconds(c.ShiftNS, decimals)), ci, holm, "")
	}
	if len(t.rows) > 0 {
		p.line(strings.Repeat(" ", indent) + p.paint("shift (Hodges–Lehmann; Mann–Whitney, Holm; ~ not significant)", dim))
		p.print(t)
	}
}

func (p *printer) benchFailures(b *analysis.Bench) {
	for _, v := range b.Variants {
		for _, run := range v.Raw {
			if run.Outcome == analysis.OutcomeOK || run.Outcome == "" {
				continue
			}
			failed := 0
			for outcome, n := range v.Outcomes {
				if outcome != analysis.OutcomeOK {
					failed += n
				}
			}
			text := fmt.Sprintf("%s: %s failed; in block %d the subject %s", figure.Clean(v.Name), plural(failed, "cold start"), run.Block, outcomes[run.Outcome])
			if run.OutcomeDetail != "" {
				text += ": " + figure.Clean(run.OutcomeDetail)
			}
			p.line("")
			p.wrap(text, 0, red)
			break
		}
	}
}
