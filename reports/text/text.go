// Package text renders the answers of analysis for a terminal: dense tables
// that fit its width, with colour only where there is one. It is the end of
// the data flow that people read first; what it prints is in the JSON too.
package text

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// Options says how the output looks. The zero value is plain text of 100
// columns.
type Options struct {
	Width int  // columns; default 100, at least 60
	Color bool // SGR sequences
	Rows  int  // of each list of the report; default 8
}

// For returns the options that fit a file: colour and the real width on a
// terminal, unless the environment variable NO_COLOR is set or TERM is dumb.
func For(f *os.File) Options {
	var o Options
	if !term.IsTerminal(int(f.Fd())) {
		return o
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		o.Width = min(width, 160)
	}
	o.Color = os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	return o
}

const indent = 2

type printer struct {
	out strings.Builder // all of it, as a report is small
	Options
}

func newPrinter(o Options) *printer {
	if o.Width <= 0 {
		o.Width = 100
	}
	o.Width = max(o.Width, 60)
	if o.Rows <= 0 {
		o.Rows = 8
	}
	return &printer{Options: o}
}

func (p *printer) flush(w io.Writer) error {
	_, err := io.WriteString(w, p.out.String())
	return err
}

// line ends a line; nothing has blanks at its end.
func (p *printer) line(s string) {
	p.out.WriteString(strings.TrimRight(s, " "))
	p.out.WriteByte('\n')
}

// heading begins a section: its name, and what it shows.
func (p *printer) heading(name, about string) {
	p.line("")
	room := p.Width - figure.Width(name) - 2
	if figure.Width(about) <= room {
		p.line(p.paint(name, bold) + "  " + p.paint(about, dim))
		return
	}
	p.line(p.paint(name, bold))
	p.wrap(about, indent, dim)
}

// wrap prints words within the width.
func (p *printer) wrap(text string, blanks int, i ink) {
	var line []string
	width := blanks
	flush := func() {
		if len(line) > 0 {
			p.line(strings.Repeat(" ", blanks) + p.paint(strings.Join(line, " "), i))
		}
		line, width = nil, blanks
	}
	for word := range strings.FieldsSeq(text) {
		if w := figure.Width(word); len(line) > 0 && width+w+1 > p.Width {
			flush()
			width += w
		} else {
			width += w + 1
		}
		line = append(line, word)
	}
	flush()
}

// joined prints parts with a separator, as many a line as fit.
func (p *printer) joined(parts []string, i ink) {
	line, width := "", 0
	for _, part := range parts {
		part = figure.Shorten(part, p.Width)
		w := figure.Width(part)
		if line != "" && width+3+w > p.Width {
			p.line(p.paint(line, i))
			line, width = "", 0
		}
		if line != "" {
			line, width = line+" · ", width+3
		}
		line, width = line+part, width+w
	}
	p.line(p.paint(line, i))
}

// Report writes a report. It fails only when w does.
func Report(w io.Writer, r *analysis.Report, o Options) error {
	p := newPrinter(o)
	p.subject(r)
	p.composition(r)
	p.distributions(r)
	p.phases(r)
	p.ledger(r)
	p.initPath(r)
	p.longest(r)
	p.varying(r)
	p.spans(r)
	p.startup(r)
	p.syscalls(r)
	p.faults(r)
	p.requests(r)
	p.files(r)
	p.imports(r)
	p.threads(r)
	p.goroutines(r)
	p.quality(r)
	p.failures(r)
	p.warnings(r.Warnings)
	return p.flush(w)
}

// subject prints what ran, where and how.
func (p *printer) subject(r *analysis.Report) {
	command := make([]string, len(r.Subject.Command))
	for i, arg := range r.Subject.Command {
		command[i] = quote(arg)
	}
	p.line(p.paint(figure.Shorten(strings.Join(command, " "), p.Width), bold))
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
	var parts []string
	add := func(format string, args ...any) {
		if s := strings.TrimSpace(fmt.Sprintf(format, args...)); s != "" {
			parts = append(parts, figure.Clean(s))
		}
	}
	if len(r.Runs) == 1 {
		add("cold start %d alone", r.Runs[0].Index)
	} else {
		add("%s traced, %d untraced", plural(traced, "cold start"), untraced)
	}
	if failed > 0 {
		add("%d failed", failed)
	}
	add("%s", r.Settings.As)
	version := strings.TrimPrefix(r.Subject.LanguageVersion, r.Subject.Language) // "go1.26.8" says go itself
	add("%s", strings.TrimSpace(r.Subject.Language+" "+version))
	add("%s", r.Subject.Linkage)
	if r.Settings.Until != "" && r.Settings.Until != "next" {
		add("until %s", r.Settings.Until)
	}
	if s := r.Settings; s.CPUs != nil {
		add("%s of %d", plural(*s.CPUs, "CPU"), r.Host.CPUs)
	} else if r.Host.CPUs > 0 {
		add("%s", plural(r.Host.CPUs, "CPU"))
	}
	if q := r.Settings.CPUQuota; q != nil {
		quota := fmt.Sprintf("quota %.4g", *q)
		if t := r.Settings.ThrottledNS; t != nil && *t > 0 {
			quota += ", throttled " + figure.Duration(float64(*t))
		}
		add("%s", quota)
	}
	if m := r.Settings.MemoryMB; m != nil {
		add("%d MB", *m)
	}
	add("%s", r.Settings.InitializationType)
	if r.Settings.PageCache != "" {
		add("page cache %s", r.Settings.PageCache)
	}
	if r.Settings.Latency != "" && r.Settings.Latency != "none" {
		add("assumed latency %s", r.Settings.Latency)
	}
	add("%s %s", r.Host.Kernel, r.Host.Arch)
	add("%s", r.Host.CPUModel)
	p.joined(parts, dim)
}

func quote(arg string) string {
	arg = figure.Clean(arg)
	if arg == "" || strings.ContainsAny(arg, " '\"\\$&|;<>()*?[]`!#") {
		return "'" + strings.ReplaceAll(arg, "'", `'\''`) + "'"
	}
	return arg
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return figure.Group(int64(n)) + " " + noun + "s"
}

func (p *printer) warnings(warnings []string) {
	if len(warnings) == 0 {
		return
	}
	p.heading("warnings", "")
	for _, w := range warnings {
		p.wrap("! "+figure.Clean(w), indent, yellow)
	}
}
