// Package timeline draws what each goroutine of one cold start did, as one
// self-contained SVG: a row a goroutine, time from left to right, phases as
// columns. The figures behind each piece show when pointed at.
package timeline

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"html"
	"io"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/reports/figure"
)

//go:embed style.css
var style string

// ColdStart is what a timeline shows.
type ColdStart struct {
	Timeline *trace.Timeline
	Phases   *phase.Result // nothing outside of its window is shown
	Title    string
	// Function names the first function of a goroutine; nil or "": by ID alone.
	Function func(*trace.GoroutineLife) string
	MaxRows  int // default 200: the goroutines that ran longest
}

// The picture's measures in pixels.
const (
	width     = 1400
	names     = 330 // wide
	margin    = 12
	top       = 92 // title, legend and the phases' names lie above
	rowHeight = 18
	barHeight = 12
	charWidth = 6.6
	nameWidth = 47 // characters that fit beside the rows
)

// classes are the states' colours, in style.css.
var classes = [trace.GoStateCount]string{"on_cpu", "runqueue", "fault", "syscall", "runnable", "waiting"}

var legend = [trace.GoStateCount]string{"on CPU", "thread waits for a CPU", "page fault", "system call", "runnable", "waiting"}

// Render draws a timeline. It fails if the cold start has no window, or w fails.
func Render(w io.Writer, c ColdStart) error {
	if c.Timeline == nil || c.Phases == nil || c.Phases.End <= c.Phases.Start {
		return errors.New("a timeline needs a traced cold start with a window")
	}
	if c.MaxRows <= 0 {
		c.MaxRows = 200
	}
	p := &picture{ColdStart: c, from: c.Phases.Start, to: c.Phases.End}
	p.draw()
	_, err := w.Write(p.out.Bytes())
	return err
}

type picture struct {
	ColdStart
	from, to int64
	out      bytes.Buffer
}

func (p *picture) print(format string, args ...any) { fmt.Fprintf(&p.out, format, args...) }

// x is the place of a time.
func (p *picture) x(at int64) float64 {
	return names + float64(at-p.from)/float64(p.to-p.from)*(width-names-margin)
}

func (p *picture) draw() {
	rows, left := p.rows()
	height := top + len(rows)*rowHeight + 2*margin
	if len(rows) == 0 || left > 0 {
		height += rowHeight
	}
	p.print(`<svg xmlns="http://www.w3.org/2000/svg" class="initprof-timeline" viewBox="0 0 %d %d" width="%d" height="%d"><style>%s</style>`,
		width, height, width, height, style)
	p.print(`<rect class="paper" width="%d" height="%d"/>`, width, height)
	p.print(`<text class="title" x="%d" y="26">%s</text>`, margin, escape(figure.Clean(p.Title)))
	p.print(`<text class="dim" x="%d" y="44">%d goroutines, exec → /next, %s</text>`, margin, len(rows)+left, figure.Duration(float64(p.to-p.from)))
	x := margin
	for s := range trace.GoStateCount {
		p.print(`<rect class="%s" x="%d" y="54" width="12" height="12"/><text class="dim" x="%d" y="64">%s</text>`, classes[s], x, x+17, legend[s])
		x += 34 + int(charWidth*float64(len(legend[s])))
	}
	p.columns(height)
	for n, g := range rows {
		p.row(n, g)
	}
	y := top + len(rows)*rowHeight + barHeight
	switch {
	case len(rows) == 0:
		p.print(`<text class="dim" x="%d" y="%d">no goroutines were seen: the report says why</text>`, margin, y)
	case left > 0:
		p.print(`<text class="dim" x="%d" y="%d">… %d more, which ran less</text>`, margin, y, left)
	}
	p.print("</svg>\n")
}

// rows are the goroutines to show, by start, and how many are left out.
func (p *picture) rows() (rows []*trace.GoroutineLife, left int) {
	ran := map[*trace.GoroutineLife]int64{}
	for _, g := range p.Timeline.Goroutines {
		for i := range g.Between(p.from, p.to) {
			if i.State.Running() || i.State == trace.GoInSyscall {
				ran[g] += i.NS()
			} else {
				ran[g] += 0
			}
		}
	}
	least := smallest(ran, p.MaxRows)
	for _, g := range p.Timeline.Goroutines {
		ns, alive := ran[g]
		switch {
		case !alive:
		case ns < least || len(rows) == p.MaxRows:
			left++
		default:
			rows = append(rows, g)
		}
	}
	return rows, left
}

func (p *picture) columns(height int) {
	for n, ph := range p.Phases.Phases {
		x, end := p.x(ph.Start), p.x(ph.End)
		if n%2 == 0 {
			p.print(`<rect class="column" x="%.1f" y="%d" width="%.1f" height="%d"/>`, x, top-6, end-x, height-top-margin+6)
		}
		name := figure.Shorten(figure.Clean(ph.Name), int((end-x-4)/charWidth))
		p.print(`<g><title>%s: %s</title><text class="dim" x="%.1f" y="%d">%s</text></g>`,
			escape(figure.Clean(ph.Name)), figure.Duration(float64(ph.End-ph.Start)), x+3, top-10, escape(name))
	}
}

func (p *picture) row(n int, g *trace.GoroutineLife) {
	y := top + n*rowHeight
	p.print(`<text class="name" x="%d" y="%d">%s</text>`, margin, y+barHeight-2,
		escape(figure.Shorten(p.label(g), nameWidth)))
	for i := range g.Between(p.from, p.to) {
		if i.Reason == trace.NotSeen {
			continue
		}
		x, end := p.x(i.Start), p.x(i.End)
		p.print(`<rect class="%s" x="%.2f" y="%d" width="%.2f" height="%d"><title>%s</title></rect>`,
			classes[i.State], x, y, max(end-x, .3), barHeight, escape(p.describe(g, &i)))
	}
}

func (p *picture) label(g *trace.GoroutineLife) string {
	label := fmt.Sprintf("%d", g.ID)
	if p.Function != nil {
		f := p.Function(g)
		label += " " + f[strings.LastIndexByte(f, '/')+1:]
	}
	return figure.Clean(label)
}

// describe is what shows when a piece is pointed at.
func (p *picture) describe(g *trace.GoroutineLife, i *trace.GoInterval) string {
	text := fmt.Sprintf("%s\n%s %s, from %s", p.label(g), legend[i.State], figure.Duration(float64(i.NS())), figure.Duration(float64(i.Start-p.from)))
	if i.Call != nil {
		text += "\n" + p.Timeline.SyscallName(i.Call.Syscall)
	}
	if i.Reason != "" {
		text += "\n" + figure.Clean(i.Reason)
	}
	if r := i.Ready; r != nil {
		by := r.Source.String()
		if r.By != nil {
			by = p.label(r.By)
		}
		text += "\nready by " + by
	}
	return text
}

func escape(s string) string { return html.EscapeString(s) }

// smallest is the n-th largest time, 0 if there are no more than n.
func smallest(ran map[*trace.GoroutineLife]int64, n int) int64 {
	if len(ran) <= n {
		return 0
	}
	all := make([]int64, 0, len(ran))
	for _, ns := range ran {
		all = append(all, ns)
	}
	slices.Sort(all)
	return all[len(all)-n]
}
