package flame

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// headHeight is what the heading of a panel takes.
const headHeight = 24

// change is a box's value in the other run.
type change struct {
	before, after int64
	gone          bool // in the panel of what vanished
}

func (c change) delta() int64 { return c.after - c.before }

// RenderDiff draws what became of before in after, whose values must have one
// scale, such as nanoseconds per cold start. A box is as wide as it is after,
// red where it grew and blue where it shrank, by how much in Options.Unit and
// not by how much of itself. What is only in before stands in a panel of its
// own, with what called it, at the same scale.
func RenderDiff(w io.Writer, before, after []Sample, opts Options) error {
	o := opts.withDefaults()
	o.ColdStarts = 1
	was, _, err := build(before)
	if err != nil {
		return err
	}
	is, frames, err := build(after)
	if err != nil {
		return err
	}
	d := &difference{
		picture: picture{Options: o, total: is.value, frames: frames}, was: was, is: is,
		changes: map[*node]change{},
	}
	d.match(was, is)
	d.vanished = d.onlyBefore(was, is)
	d.draw()
	_, err = w.Write(d.out.Bytes())
	return err
}

// difference is a picture of two panels.
type difference struct {
	picture
	was, is  *node
	vanished *node            // nil: nothing vanished
	changes  map[*node]change // of the boxes of both panels
	most     int64            // the greatest change
}

// note keeps a box's change.
func (d *difference) note(n *node, c change) {
	d.changes[n] = c
	d.most = max(d.most, c.delta(), -c.delta())
}

// match notes what each box of after was.
func (d *difference) match(was, is *node) {
	c := change{after: is.value}
	before := map[Frame]*node{}
	if was != nil {
		c.before = was.value
		for _, child := range was.children {
			before[child.frame] = child
		}
	}
	d.note(is, c)
	for _, child := range is.children {
		d.match(before[child.frame], child)
	}
}

// onlyBefore returns the boxes without a counterpart in after, and those that
// they stand on, which are as wide as what vanished from them. It returns nil
// where nothing did.
func (d *difference) onlyBefore(was, is *node) *node {
	n := &node{frame: was.frame}
	after := map[Frame]*node{}
	if is != nil && is.value > 0 {
		for _, child := range is.children {
			after[child.frame] = child
		}
	} else {
		n.value, n.self, n.count = was.value, was.self, was.count
	}
	for _, child := range was.children {
		c := d.onlyBefore(child, after[child.frame])
		if c == nil {
			continue
		}
		n.children = append(n.children, c)
		if is != nil && is.value > 0 {
			n.value, n.count = n.value+c.value, n.count+c.count
		}
	}
	if n.value == 0 {
		return nil
	}
	if is == nil || is.value == 0 {
		d.note(n, change{before: n.value, gone: true})
	}
	return n
}

func countBoxes(n *node) int {
	boxes := 0
	for pending := []*node{n}; len(pending) > 0; {
		top := pending[len(pending)-1]
		pending = append(pending[:len(pending)-1], top.children...)
		boxes += len(top.children)
	}
	return boxes
}

func (d *difference) draw() {
	d.total = d.is.value
	gone := picture{Options: d.Options}
	if d.vanished != nil {
		gone.frames = countBoxes(d.vanished)
		d.total = max(d.total, d.vanished.value)
		gone.total = d.total // one scale
		gone.layOut(d.vanished)
	}
	if d.is.value > 0 {
		d.layOut(d.is)
	}
	afterTop := graphTop + headHeight
	goneTop := afterTop + (d.depth+1)*rowHeight + headHeight + rowHeight/2
	height := goneTop + rowHeight + footHeight
	if d.vanished != nil {
		height = goneTop + (gone.depth+1)*rowHeight + footHeight
	}
	if !d.Fragment {
		d.printf("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n")
	}
	d.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="initprof-flame" width="%d" height="%d" viewBox="0 0 %d %d" role="img"`,
		d.Width, height, d.Width, height)
	d.printf(` data-total="%d" data-before="%d" data-unit="%s" data-runs="1" data-margin="%d" data-row="%d" data-top="%d" data-char="%g">`,
		d.is.value, d.was.value, escape(string(d.Unit)), margin, rowHeight, afterTop, charWidth)
	d.printf("\n<title>%s</title>\n<style><![CDATA[\n%s]]></style>\n", escape(oneLine(d.Title)), style)
	d.printf("<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n")
	d.printf("<text class=\"title\" x=\"%d\" y=\"24\">%s</text>\n", margin, escape(oneLine(d.Title)))
	d.printf("<text class=\"subtitle\" x=\"%d\" y=\"41\">%s</text>\n", margin, escape(d.facts()))
	d.legend()
	d.printf("<text class=\"details\" x=\"%d\" y=\"%d\"></text>\n", margin, graphTop-9)

	d.heading(afterTop, "after", d.is.value, "nothing is left of it")
	if d.is.value > 0 {
		d.printf("<g class=\"frames after\">\n")
		for _, b := range d.boxes {
			d.box(&d.picture, b, afterTop)
		}
		d.printf("</g>\n")
	}
	heading := "vanished: stacks that are in before alone, at the same scale"
	if d.vanished == nil {
		d.heading(goneTop, "vanished", 0, "no stack")
	} else {
		d.heading(goneTop, heading, d.vanished.value, "")
		d.printf("<g class=\"frames vanished\">\n")
		for _, b := range gone.boxes {
			d.box(&gone, b, goneTop)
		}
		d.printf("</g>\n")
	}
	d.omitted += gone.omitted
	d.smallest = max(d.smallest, gone.smallest)
	d.printf("<text class=\"foot\" x=\"%d\" y=\"%d\">%s</text>\n", margin, height-9, escape(d.foot()))
	d.printf("<script><![CDATA[\n%s]]></script>\n</svg>\n", script)
}

// heading stands above a panel.
func (d *difference) heading(top int, name string, value int64, otherwise string) {
	text := name + ", " + d.amount(value)
	if value == 0 {
		text = name + ": " + otherwise
	}
	d.printf("<text class=\"subtitle\" x=\"%d\" y=\"%d\">%s</text>\n", margin, top-7, escape(text))
}

// facts is the line below the title.
func (d *difference) facts() string {
	var parts []string
	if d.Subtitle != "" {
		parts = append(parts, oneLine(d.Subtitle))
	}
	return strings.Join(append(parts, fmt.Sprintf("%s per cold start: before %s, after %s, %s",
		d.Noun, d.amount(d.was.value), d.amount(d.is.value), d.signed(d.is.value-d.was.value))), " · ")
}

// signed is a change for reading.
func (d *difference) signed(v int64) string {
	switch {
	case v > 0:
		return "+" + d.amount(v)
	case v < 0:
		return "−" + d.amount(-v)
	}
	return "±0"
}

// Steps of the colours, as parts of the greatest change.
var colourSteps = []int64{100, 10, 2} // 1/100, 1/10, 1/2

// step is how strong a change's colour is, 0 for one that is too small.
func (d *difference) step(delta int64) int {
	strength := 0
	for i, part := range colourSteps {
		if size := max(delta, -delta); size > 0 && size >= d.least(part) {
			strength = i + 1
		}
	}
	return strength
}

// least is the smallest change of a colour.
func (d *difference) least(part int64) int64 { return max(1, d.most/part) }

func (d *difference) class(delta int64) string {
	strength := d.step(delta)
	switch {
	case strength == 0:
		return "eq0"
	case delta > 0:
		return "up" + strconv.Itoa(strength)
	}
	return "dn" + strconv.Itoa(strength)
}

// legend names the colours and what they stand for, in time.
func (d *difference) legend() {
	type entry struct{ class, text string }
	var entries []entry
	if d.most == 0 {
		entries = []entry{{"eq0", "no difference"}}
	} else {
		for i := len(colourSteps) - 1; i >= 0; i-- {
			entries = append(entries, entry{fmt.Sprintf("up%d", i+1), "+" + d.amount(d.least(colourSteps[i]))})
		}
		entries = append(entries, entry{"eq0", "less"})
		for i := range colourSteps {
			entries = append(entries, entry{fmt.Sprintf("dn%d", i+1), "−" + d.amount(d.least(colourSteps[i]))})
		}
		entries = append(entries, entry{"up1 new", "appeared"})
	}
	d.printf("<g class=\"legend\">\n")
	x := float64(margin)
	word := func(text string) {
		d.printf("<text x=\"%.1f\" y=\"60.5\">%s</text>\n", x, escape(text))
		x += charWidth*float64(utf8.RuneCountInString(text)) + 12
	}
	for i, e := range entries {
		if d.most > 0 && i == 0 {
			word("grew")
		}
		d.printf("<rect class=\"%s\" x=\"%.1f\" y=\"51\" width=\"11\" height=\"11\" rx=\"2\"/>", e.class, x)
		x += 16
		word(e.text)
		if d.most > 0 && i == 2*len(colourSteps) {
			word("shrank")
		}
	}
	d.printf("</g>\n")
}

func (d *difference) box(p *picture, b box, top int) {
	c, known := d.changes[b.node]
	class, text := "eq0", "" // what called it, of which something vanished
	if known {
		class, text = d.class(c.delta()), d.signed(c.delta())
		if c.before == 0 && !c.gone {
			text += " (appeared)"
			if class != "eq0" { // outlines of what is too small would hide the rest
				class += " new"
			}
		}
		if c.gone {
			text += " (vanished)"
		}
	}
	name := b.name()
	d.printf(`<g class="f %s" data-s="%d" data-v="%d" data-d="%d" data-change="%s"><title>%s</title>`,
		class, b.start, b.value, b.depth, escape(text), escape(d.tooltip(b, name, c, known)))
	d.printf("%s</g>\n", p.face(b, top, name))
}

// tooltip has the name in its first line, which the script relies on.
func (d *difference) tooltip(b box, name string, c change, known bool) string {
	lines := []string{name}
	if b.frame.Module != "" {
		lines = append(lines, oneLine(b.frame.Module))
	}
	if !known {
		return strings.Join(append(lines, d.exact(b.value)+" of what it called vanished"), "\n")
	}
	lines = append(lines, fmt.Sprintf("before %s · after %s · %s", d.exact(c.before), d.exact(c.after), d.signed(c.delta())))
	if c.before > 0 && c.after > 0 {
		lines = append(lines, fmt.Sprintf("× %.3g", float64(c.after)/float64(c.before)))
	}
	return strings.Join(lines, "\n")
}
