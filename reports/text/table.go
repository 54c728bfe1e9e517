package text

import (
	"strings"

	"github.com/initprof/initprof/reports/figure"
)

// ink is how a piece of text looks on a terminal, as SGR parameters.
type ink string

const (
	plain  ink = ""
	bold   ink = "1"
	dim    ink = "2"
	red    ink = "31"
	green  ink = "32"
	yellow ink = "33"
	blue   ink = "34"
	cyan   ink = "36"
)

func (p *printer) paint(s string, i ink) string {
	if !p.Color || i == plain || s == "" {
		return s
	}
	return "\x1b[" + string(i) + "m" + s + "\x1b[0m"
}

// column describes one column of a table.
type column struct {
	name  string
	left  bool // aligned to the left
	flex  bool // gives way when the table is too wide
	quiet bool // less important
}

// cell is text with its look.
type cell struct {
	text string
	ink  ink
}

type table struct {
	columns []column
	rows    [][]cell
}

func (t *table) add(cells ...any) {
	row := make([]cell, len(cells))
	for i, c := range cells {
		switch c := c.(type) {
		case cell:
			row[i] = c
		case string:
			row[i] = cell{text: c}
		}
		if row[i].ink == plain && i < len(t.columns) && t.columns[i].quiet {
			row[i].ink = dim
		}
	}
	t.rows = append(t.rows, row)
}

// print writes the table, indented, within the width of the output as far as
// its flexible columns can give way, the first ones first. The last column is not padded.
func (p *printer) print(t *table) {
	const gap = 2
	widths := make([]int, len(t.columns))
	total := -gap
	for i, c := range t.columns {
		widths[i] = figure.Width(c.name)
		for _, row := range t.rows {
			if i < len(row) {
				widths[i] = max(widths[i], figure.Width(row[i].text))
			}
		}
		total += widths[i] + gap
	}
	over := total + indent - p.Width
	for i, c := range t.columns {
		if c.flex && over > 0 && widths[i] > 12 {
			given := min(over, widths[i]-12)
			widths[i] -= given
			over -= given
		}
	}
	header := make([]cell, len(t.columns))
	named := false
	for i, c := range t.columns {
		header[i] = cell{c.name, dim}
		named = named || c.name != ""
	}
	rows := t.rows
	if named {
		rows = append([][]cell{header}, rows...)
	}
	for _, row := range rows {
		var line strings.Builder
		blanks := indent
		for i, c := range row {
			text := figure.Shorten(c.text, widths[i])
			pad := widths[i] - figure.Width(text)
			if !t.columns[i].left {
				blanks += pad
			}
			if text != "" {
				line.WriteString(strings.Repeat(" ", blanks))
				line.WriteString(p.paint(text, c.ink))
				blanks = 0
			}
			if t.columns[i].left {
				blanks += pad
			}
			blanks += gap
		}
		p.line(line.String())
	}
}

// bar draws [from, to) of a whole in a number of cells, to half a cell. What
// is shorter still leaves a trace.
func bar(from, to, whole int64, cells int) string {
	if whole <= 0 || cells <= 0 {
		return ""
	}
	halves := func(v int64) int {
		v = min(max(v, 0), whole)
		return int(float64(v)/float64(whole)*float64(2*cells) + 0.5)
	}
	start, end := halves(from), halves(to)
	if start >= end {
		at := min(start/2, cells-1)
		return strings.Repeat(" ", at) + "▏"
	}
	var b strings.Builder
	for i := range cells {
		left, right := start <= 2*i && 2*i < end, start <= 2*i+1 && 2*i+1 < end
		switch {
		case left && right:
			b.WriteString("█")
		case left:
			b.WriteString("▌")
		case right:
			b.WriteString("▐")
		case 2*i < end:
			b.WriteString(" ")
		}
	}
	return b.String()
}
