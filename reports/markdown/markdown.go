// Package markdown renders the answers of analysis as tables for pull requests
// and issues: what the terminal report says first, in GitHub's dialect. It is
// an end of the data flow.
package markdown

import (
	"fmt"
	"io"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/reports/figure"
)

// rows is how many entries of each list are shown.
const rows = 10

type page struct{ strings.Builder }

func (p *page) printf(format string, args ...any) { fmt.Fprintf(p, format, args...) }

// table begins a table; names that begin with "<" are aligned to the left.
func (p *page) table(names ...string) {
	var head, rule strings.Builder
	for _, name := range names {
		name, left := strings.CutPrefix(name, "<")
		head.WriteString("| " + name + " ")
		if left {
			rule.WriteString("| :-- ")
		} else {
			rule.WriteString("| --: ")
		}
	}
	p.printf("\n%s|\n%s|\n", head.String(), rule.String())
}

func (p *page) row(cells ...string) {
	p.printf("| %s |\n", strings.Join(cells, " | "))
}

// escaped makes text that a subject chose stay text: no markup, no HTML, no
// mention, no end of a cell.
func escaped(s string) string {
	var b strings.Builder
	for _, r := range figure.Clean(s) {
		switch {
		case strings.ContainsRune("\\`*_{}[]()#+!|~", r):
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '<':
			b.WriteString("&lt;")
		case r == '>':
			b.WriteString("&gt;")
		case r == '&':
			b.WriteString("&amp;")
		case r == '@':
			b.WriteString("@\u2060") // a word joiner, so that nobody is called
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// code is a code span that holds whatever text, on its own or in a cell.
func code(s string) string {
	s = strings.ReplaceAll(figure.Clean(s), "|", "¦")
	if s == "" {
		return ""
	}
	longest, run := 0, 0
	for _, r := range s {
		if r == '`' {
			run++
			longest = max(longest, run)
		} else {
			run = 0
		}
	}
	if longest == 0 {
		return "`" + s + "`"
	}
	fence := strings.Repeat("`", longest+1)
	return fence + " " + s + " " + fence
}

// Report writes a report. It fails only when w does.
func Report(w io.Writer, r *analysis.Report) error {
	var p page
	p.printf("### %s\n\n", code(strings.Join(r.Subject.Command, " ")))
	traced, untraced, failed := 0, 0, 0
	for _, run := range r.Runs {
		switch {
		case run.Outcome != analysis.OutcomeOK:
			failed++
		case run.Traced:
			traced++
		default:
			untraced++
		}
	}
	p.printf("%d cold starts traced, %d untraced, %d failed%s.\n", traced, untraced, failed, conditions(&r.Host, &r.Settings))
	p.distributions(r)
	p.phases(r)
	p.ledger(r)
	p.lists(r)
	if o := r.Overhead; o != nil && o.Ratio != nil {
		p.printf("\nTraced ÷ untraced, release → /next, medians: %.3f.\n", *o.Ratio)
	}
	for _, probe := range r.Probes {
		if probe.Status == analysis.ProbeUnavailable {
			p.printf("\nUnavailable: %s — %s\n", code(probe.Name), escaped(probe.Reason))
		}
	}
	for _, run := range r.Runs {
		if run.Outcome != analysis.OutcomeOK {
			p.printf("\nCold start %d: **%s** %s\n", run.Index, escaped(run.Outcome), escaped(run.OutcomeDetail))
		}
	}
	p.warnings(r.Warnings)
	_, err := io.WriteString(w, p.String())
	return err
}

// conditions is a list of what is known, each part behind a comma.
func conditions(h *analysis.Host, s *analysis.Settings) string {
	parts := []string{""}
	if h.Kernel != "" {
		parts = append(parts, escaped(h.Kernel+" "+h.Arch))
	}
	if s.As != "" {
		parts = append(parts, escaped(s.As))
	}
	if s.InitializationType != "" {
		parts = append(parts, escaped(s.InitializationType))
	}
	if s.CPUs != nil {
		parts = append(parts, fmt.Sprintf("%d CPUs", *s.CPUs))
	}
	if s.CPUQuota != nil {
		parts = append(parts, fmt.Sprintf("quota %.4g", *s.CPUQuota))
	}
	if s.MemoryMB != nil {
		parts = append(parts, fmt.Sprintf("%d MB", *s.MemoryMB))
	}
	if s.PageCache != "" {
		parts = append(parts, "page cache "+escaped(s.PageCache))
	}
	if s.Latency != "" {
		parts = append(parts, "latency "+escaped(s.Latency))
	}
	return strings.Join(parts, ", ")
}

func (p *page) distributions(r *analysis.Report) {
	var largest int64
	lines := []struct {
		name string
		s    *analysis.Summary
	}{
		{"exec → end of the window", r.Wall},
		{"release → /next, untraced", r.Untraced},
		{"init", r.Init},
		{"first invoke", r.FirstInvoke},
	}
	if until := r.Settings.Until; until == "" || until == "next" {
		lines[0].name = "exec → /next"
	}
	for _, l := range lines {
		if l.s != nil {
			largest = max(largest, l.s.Max)
		}
	}
	if largest == 0 {
		return
	}
	d := figure.Decimals(largest)
	p.table("<ms", "n", "min", "p50", "95 % of p50", "p90", "p99", "max", "mean")
	for _, l := range lines {
		if l.s != nil && l.s.N > 0 {
			p.row(append([]string{l.name, fmt.Sprint(l.s.N)}, summary(l.s, d, true)...)...)
		}
	}
}

// summary is the cells of a distribution from min to mean.
func summary(s *analysis.Summary, decimals int, interval bool) []string {
	ms := func(v int64) string { return figure.Milliseconds(v, decimals) }
	cells := []string{ms(s.Min), "**" + ms(s.P50) + "**"}
	if interval {
		ci := "–"
		if s.CI95 != nil {
			ci = ms(s.CI95[0]) + " … " + ms(s.CI95[1])
		}
		cells = append(cells, ci)
	}
	p99 := ms(s.P99)
	if s.P99IsMax() {
		p99 = "(=max)"
	}
	return append(cells, ms(s.P90), p99, ms(s.Max), ms(s.Mean))
}

func (p *page) phases(r *analysis.Report) {
	if len(r.Phases) == 0 {
		return
	}
	var largest int64
	weights := make([]int64, len(r.Phases))
	for i, ph := range r.Phases {
		largest = max(largest, ph.Cumulative.Max)
		weights[i] = ph.Delta.Mean * int64(ph.Delta.N)
	}
	d := figure.Decimals(largest)
	shares := stat.Apportion(1000, weights)
	p.table("<phase, ms", "n", "delta p50", "min", "max", "cumulative p50", "share")
	for i, ph := range r.Phases {
		p.row(code(ph.Name), fmt.Sprint(ph.Delta.N), "**"+figure.Milliseconds(ph.Delta.P50, d)+"**",
			figure.Milliseconds(ph.Delta.Min, d), figure.Milliseconds(ph.Delta.Max, d),
			figure.Milliseconds(ph.Cumulative.P50, d), fmt.Sprintf("%d.%d %%", shares[i]/10, shares[i]%10))
	}
}

func (p *page) lists(r *analysis.Report) {
	if len(r.Syscalls) > 0 {
		p.table("<system call", "count", "errors", "time")
		for _, c := range r.Syscalls[:min(rows, len(r.Syscalls))] {
			p.row(code(c.Name), figure.Count(c.Count), figure.Count(c.Errors), figure.Duration(float64(c.NS)))
		}
		p.more(len(r.Syscalls), "system calls")
	}
	if f := r.Faults; f != nil && len(f.ByMapping) > 0 {
		p.table("<page faults in", "<kind", "minor", "major", "time")
		for _, m := range f.ByMapping[:min(rows, len(f.ByMapping))] {
			p.row(code(m.Mapping), escaped(m.Kind), figure.Count(m.Minor), figure.Count(m.Major), figure.Duration(float64(m.NS)))
		}
		p.more(len(f.ByMapping), "mappings")
	}
	p.startup(r)
	if len(r.Requests) > 0 {
		p.table("<request", "start", "until read", "status")
		for _, q := range r.Requests[:min(rows, len(r.Requests))] {
			ns, status := "unanswered", "–"
			if q.NS != nil {
				ns = figure.Duration(float64(*q.NS))
			}
			if q.Status != nil {
				status = fmt.Sprint(*q.Status)
			}
			p.row(code(q.Method+" "+q.Path), figure.Duration(float64(q.StartNS)), ns, status)
		}
		p.more(len(r.Requests), "requests")
	}
}

func (p *page) more(n int, what string) {
	if n > rows {
		p.printf("\n… and %d more %s.\n", n-rows, what)
	}
}

func (p *page) warnings(warnings []string) {
	for _, text := range warnings {
		p.printf("\n> **Warning** %s\n", escaped(text))
	}
}

// Bench writes a comparison, a table a metric.
func Bench(w io.Writer, b *analysis.Bench) error {
	var p page
	p.printf("### %d variants, untraced, interleaved\n\nSeed %d%s.\n", len(b.Variants), b.Seed, conditions(&b.Host, &b.Settings))
	for _, m := range []struct{ name, title string }{
		{"release_to_next", "release → /next"},
		{"ready", "ready"},
		{"init", "INIT"},
		{"first_invoke", "first invoke"},
		{"init_plus_first_invoke", "INIT plus first invoke"},
	} {
		p.metric(b, m.name, m.title)
	}
	if b.AA != nil {
		p.printf("\nA/A: %s, %s.\n", figure.Signed(b.AA.ShiftNS, figure.Duration(float64(b.AA.ShiftNS))), figure.P(b.AA.P))
	}
	p.warnings(b.Warnings)
	_, err := io.WriteString(w, p.String())
	return err
}

func (p *page) metric(b *analysis.Bench, name, title string) {
	var largest int64
	for i := range b.Variants {
		if s := *b.Variants[i].Metrics.Field(name); s != nil {
			largest = max(largest, s.Max)
		}
	}
	if largest == 0 {
		return
	}
	d := figure.Decimals(largest)
	base := *b.Variants[0].Metrics.Field(name)
	p.table("<"+title+", ms", "n", "min", "p50", "p90", "p99", "max", "mean", "Δ p50", "<verdict")
	for i := range b.Variants {
		v := &b.Variants[i]
		s := *v.Metrics.Field(name)
		if s == nil || s.N == 0 {
			p.row(code(v.Name), "0", "–", "–", "–", "–", "–", "–", "", "")
			continue
		}
		delta, verdict := "", ""
		if i > 0 && base != nil {
			delta = figure.Shift(s.P50-base.P50, base.P50, figure.Milliseconds(s.P50-base.P50, d))
			for _, c := range b.Comparisons {
				if c.Variant == v.Name && c.Metric == name {
					verdict = strings.ReplaceAll(c.Verdict, "_", " ") + ", " + figure.P(c.PHolm)
				}
			}
		}
		p.row(append(append([]string{code(v.Name), fmt.Sprint(s.N)}, summary(s, d, false)...), delta, verdict)...)
	}
}
