// Package text writes reports for a terminal. It computes nothing: figures come
// from profiler/analysis.
package text

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
)

// rows is how many lines a table of many has.
const rows = 12

// Report writes a report.
func Report(w io.Writer, r *analysis.Report) error {
	p := &printer{}
	p.head(r)
	p.outcomes(r)
	p.phases(r)
	p.spans(r)
	p.requests(r)
	p.syscalls(r)
	p.faults(r)
	p.files(r)
	p.threads(r)
	p.quality(r)
	_, err := io.WriteString(w, p.String())
	return err
}

type printer struct{ strings.Builder }

func (p *printer) line(format string, args ...any) { fmt.Fprintf(p, format+"\n", args...) }

// table writes rows of tab-separated cells, numbers to the right.
func (p *printer) table(lines []string) {
	t := tabwriter.NewWriter(p, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, l := range lines {
		fmt.Fprintln(t, l)
	}
	_ = t.Flush() // a strings.Builder does not fail
}

// Duration writes nanoseconds in the unit that fits, with three digits or more.
func Duration(ns int64) string {
	v := float64(ns)
	switch a := math.Abs(v); {
	case a >= 1e9:
		return fmt.Sprintf("%.3f s", v/1e9)
	case a >= 1e6:
		return fmt.Sprintf("%.2f ms", v/1e6)
	case a >= 1e3:
		return fmt.Sprintf("%.1f µs", v/1e3)
	}
	return fmt.Sprintf("%d ns", ns)
}

func ms(ns int64) string { return fmt.Sprintf("%.3f", float64(ns)/1e6) }

func number(v float64) string {
	if v == math.Trunc(v) {
		return fmt.Sprintf("%.0f", v)
	}
	return fmt.Sprintf("%.1f", v)
}

func (p *printer) head(r *analysis.Report) {
	name := "subject"
	if len(r.Subject.Command) > 0 {
		name = filepath.Base(r.Subject.Command[0])
	}
	p.line("%s — %s, %s", name, strings.Join(r.Subject.Command, " "), described(r))
	p.line("%s %s, %s, %d CPUs", r.Host.Arch, r.Host.Kernel, r.Host.CPUModel, r.Host.CPUs)
	p.line("%s", settings(r))
	p.line("")
	if r.Wall != nil {
		p.line("INIT: exec → /next %s (p50 of %d traced cold starts, %s … %s)%s",
			Duration(r.Wall.P50), r.Wall.N, Duration(r.Wall.Min), Duration(r.Wall.Max), made(r))
	}
	if r.Untraced != nil {
		p.line("untraced: release → /next %s (p50 of %d, %s … %s)",
			Duration(r.Untraced.P50), r.Untraced.N, Duration(r.Untraced.Min), Duration(r.Untraced.Max))
	}
	if r.Init != nil {
		p.line("whole INIT %s   first invoke behind it %s", Duration(r.Init.P50), optional(r.FirstInvoke))
	}
	p.modes(r)
	p.line("")
}

func optional(s *analysis.Summary) string {
	if s == nil {
		return "–"
	}
	return Duration(s.P50)
}

func described(r *analysis.Report) string {
	parts := []string{}
	for _, s := range []string{r.Subject.Language + " " + r.Subject.LanguageVersion, r.Subject.Linkage} {
		if s = strings.TrimSpace(s); s != "" {
			parts = append(parts, s)
		}
	}
	if r.Subject.SHA256 != "" {
		parts = append(parts, "sha256 "+r.Subject.SHA256[:12])
	}
	return strings.Join(parts, ", ")
}

func settings(r *analysis.Report) string {
	s := r.Settings
	parts := []string{fmt.Sprintf("as %s", s.As)}
	if s.CPUs != nil {
		parts = append(parts, fmt.Sprintf("%d CPUs visible", *s.CPUs))
	}
	if s.CPUQuota != nil {
		parts = append(parts, fmt.Sprintf("quota %.2f CPU", *s.CPUQuota))
	}
	if s.ThrottledNS != nil {
		parts = append(parts, "throttled "+Duration(*s.ThrottledNS))
	}
	if s.MemoryMB != nil {
		parts = append(parts, fmt.Sprintf("%d MB", *s.MemoryMB))
	}
	for _, v := range []string{s.InitializationType, s.PageCache + " page cache", s.Network + " network", "latency " + s.Latency + " (assumed)"} {
		if !strings.HasPrefix(v, " ") {
			parts = append(parts, v)
		}
	}
	return strings.Join(parts, ", ")
}

// made tells what the threads did while the window lasted.
func made(r *analysis.Report) string {
	if len(r.Phases) == 0 {
		return ""
	}
	longest := r.Phases[0]
	for _, p := range r.Phases {
		if p.Delta.Mean > longest.Delta.Mean {
			longest = p
		}
	}
	s := fmt.Sprintf("; longest phase %s, %s", longest.Name, Duration(longest.Delta.P50))
	if r.Faults != nil {
		s += fmt.Sprintf("; %s page faults, %s", number(r.Faults.Minor+r.Faults.Major), Duration(r.Faults.NS))
	}
	return s
}

func (p *printer) modes(r *analysis.Report) {
	var walls []int64
	for _, run := range r.Runs {
		if run.Traced && run.WallNS != nil {
			walls = append(walls, *run.WallNS)
		}
	}
	if m := stat.Modes(walls); m != nil {
		p.line("two modes: %d cold starts around %s and %d around %s — look at one of each (--run K) before trusting a mean",
			m.Modes[0].N, Duration(m.Modes[0].Median), m.Modes[1].N, Duration(m.Modes[1].Median))
	}
	if r.Wall == nil || r.Wall.N < 2 {
		return
	}
	best, distance := 0, int64(math.MaxInt64)
	for _, run := range r.Runs {
		if run.WallNS == nil || !run.Traced {
			continue
		}
		d := *run.WallNS - r.Wall.P50
		if d < 0 {
			d = -d
		}
		if d < distance {
			best, distance = run.Index, d
		}
	}
	p.line("nearest the median: cold start %d (--run %d)", best, best)
}

func (p *printer) outcomes(r *analysis.Report) {
	for _, run := range r.Runs {
		if run.Outcome == analysis.OutcomeOK {
			continue
		}
		p.line("cold start %d: %s — %s", run.Index, run.Outcome, run.OutcomeDetail)
		for _, l := range run.LastOutput {
			p.line("    | %s", l)
		}
	}
}

const barWidth = 30

func (p *printer) phases(r *analysis.Report) {
	if len(r.Phases) == 0 {
		return
	}
	p.line("Phases (ms; each is named by the checkpoint that ends it)")
	var total int64
	for _, ph := range r.Phases {
		total += ph.Delta.Mean
	}
	out := []string{"delta p50\tmin\tmax\tcumulative p50\tshare\t \t"}
	for _, ph := range r.Phases {
		share := 0.0
		if total > 0 {
			share = float64(ph.Delta.Mean) / float64(total)
		}
		bar := strings.Repeat("█", int(math.Round(share*barWidth)))
		mark := ""
		if ph.Source != analysis.SourceUniversal {
			mark = " (" + ph.Source + ")"
		}
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t%s\t%.1f%%\t \t%s%s %s", ms(ph.Delta.P50), ms(ph.Delta.Min), ms(ph.Delta.Max),
			ms(ph.Cumulative.P50), share*100, ph.Name, mark, bar))
	}
	p.table(out)
	p.line("")
}

func (p *printer) spans(r *analysis.Report) {
	if len(r.Spans) == 0 {
		return
	}
	p.line("Spans (ms; own cost of work that may overlap)")
	out := []string{"own p50\toverlapped p50\t \t"}
	for _, s := range r.Spans {
		overlap := "–"
		if s.Overlap != nil {
			overlap = ms(s.Overlap.P50)
		}
		out = append(out, fmt.Sprintf("%s\t%s\t \t%s", ms(s.Own.P50), overlap, s.Name))
	}
	p.table(out)
	p.line("")
}

func (p *printer) requests(r *analysis.Report) {
	if len(r.Requests) == 0 {
		return
	}
	p.line("Requests to the runtime API (ms)")
	out := []string{"sent at\ttook\tstatus\t \t"}
	for _, q := range r.Requests {
		took, status := "–", "–"
		if q.NS != nil {
			took = ms(*q.NS)
		}
		if q.Status != nil {
			status = fmt.Sprint(*q.Status)
		}
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t \t%s %s", ms(q.StartNS), took, status, q.Method, q.Path))
	}
	p.table(out)
	p.line("")
}

func (p *printer) more(n int) {
	if n > rows {
		p.line("  … and %d more (--format json has all)", n-rows)
	}
	p.line("")
}

func (p *printer) syscalls(r *analysis.Report) {
	if len(r.Syscalls) == 0 {
		return
	}
	p.line("System calls (per cold start; time includes waiting, over all threads)")
	out := []string{"ms\tcalls\terrors\t \t"}
	for _, s := range r.Syscalls[:min(rows, len(r.Syscalls))] {
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t \t%s", ms(s.NS), number(s.Count), number(s.Errors), s.Name))
	}
	p.table(out)
	p.more(len(r.Syscalls))
}

func (p *printer) faults(r *analysis.Report) {
	if r.Faults == nil {
		return
	}
	p.line("Page faults (per cold start): %s minor, %s major, %s", number(r.Faults.Minor), number(r.Faults.Major), Duration(r.Faults.NS))
	out := []string{"ms\tminor\tmajor\t \t"}
	for _, m := range r.Faults.ByMapping[:min(rows, len(r.Faults.ByMapping))] {
		name := m.Mapping
		if name == "" {
			name = "[unknown]"
		}
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t \t%s %s", ms(m.NS), number(m.Minor), number(m.Major), name, m.Kind))
	}
	p.table(out)
	p.more(len(r.Faults.ByMapping))
}

func (p *printer) files(r *analysis.Report) {
	if len(r.Files) == 0 {
		return
	}
	p.line("Files (per cold start)")
	out := []string{"ms\topens\tbytes\t \t"}
	for _, f := range r.Files[:min(rows, len(r.Files))] {
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t \t%s", ms(f.NS), number(f.Opens), number(f.Bytes), f.Path))
	}
	p.table(out)
	p.more(len(r.Files))
}

func (p *printer) threads(r *analysis.Report) {
	if len(r.Threads) == 0 {
		return
	}
	p.line("Threads (ms)")
	out := []string{"on CPU\trunnable\twaiting\t \t"}
	for _, t := range r.Threads[:min(rows, len(r.Threads))] {
		out = append(out, fmt.Sprintf("%s\t%s\t%s\t \t%s", ms(t.OnCPUNS), ms(t.RunnableNS), ms(t.WaitingNS), t.Name))
	}
	p.table(out)
	p.more(len(r.Threads))
}

// quality tells how far the figures can be trusted.
func (p *printer) quality(r *analysis.Report) {
	if o := r.Overhead; o != nil && o.Ratio != nil {
		p.line("Tracing: release → /next %s traced, %s untraced (p50): %.2f ×", Duration(*o.TracedP50NS), Duration(*o.UntracedP50NS), *o.Ratio)
	}
	if o := r.Overhead; o != nil && o.EventsPerRun != nil {
		var lost int64
		for _, run := range r.Runs {
			if run.LostEvents != nil {
				lost += *run.LostEvents
			}
		}
		p.line("%s events a cold start, %d lost", number(*o.EventsPerRun), lost)
	}
	if s := r.Stacks; s != nil {
		parts := []string{fmt.Sprintf("%s reach the thread's entry by frame pointers", number(s.Complete))}
		for _, t := range s.Truncated {
			parts = append(parts, fmt.Sprintf("%s do not (%s)", number(t.Count), t.Reason))
		}
		p.line("stacks: %s", strings.Join(parts, ", "))
	}
	for _, probe := range r.Probes {
		if probe.Status == analysis.ProbeUnavailable {
			p.line("unavailable: %s — %s", probe.Name, probe.Reason)
		}
	}
	for _, w := range r.Warnings {
		p.line("warning: %s", w)
	}
}
