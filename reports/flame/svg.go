package flame

import (
	"bytes"
	_ "embed"
	"fmt"
	"hash/fnv"
	"io"
	"math/bits"
	"slices"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

//go:embed style.css
var style string

//go:embed script.js
var script string

// The picture's measures in pixels; script.js reads them from the root element.
const (
	margin     = 10
	rowHeight  = 17
	boxHeight  = 16
	graphTop   = 88 // title, subtitle, legend and details lie above
	footHeight = 26
	fontSize   = 11.5
	charWidth  = 6.95 // of the monospaced font at that size
	variants   = 4    // shades of one colour
)

// Render draws samples. It fails when a value is negative, their sum does not
// fit, or w fails. Without samples it draws a note that says so.
func Render(w io.Writer, samples []Sample, opts Options) error {
	o := opts.withDefaults()
	root, frames, err := build(samples)
	if err != nil {
		return err
	}
	p := &picture{Options: o, total: root.value, frames: frames}
	if root.value > 0 {
		p.layOut(root)
	}
	p.draw(root)
	_, err = w.Write(p.out.Bytes())
	return err
}

// box is a node with its place: [start, start+value) of the total.
type box struct {
	*node
	parent int64 // value of the box above
	start  int64
	depth  int
}

type picture struct {
	Options
	out      bytes.Buffer
	total    int64
	frames   int
	omitted  int
	smallest int64 // values below are left out
	boxes    []box
	depth    int
	byKind   [kinds]int64 // self values
	decimals int
}

// layOut places the boxes, depth first.
func (p *picture) layOut(root *node) {
	if p.frames > p.MaxFrames {
		p.smallest = threshold(root, p.MaxFrames)
	}
	pending := []box{{node: root, parent: root.value}}
	for len(pending) > 0 {
		b := pending[len(pending)-1]
		pending = pending[:len(pending)-1]
		p.boxes = append(p.boxes, b)
		p.depth = max(p.depth, b.depth)
		p.byKind[min(b.frame.Kind, kinds)%kinds] += b.self
		at := len(pending)
		start := b.start
		for _, c := range b.children {
			if c.value >= p.smallest {
				pending = append(pending, box{node: c, parent: b.value, start: start, depth: b.depth + 1})
			} else {
				p.byKind[min(b.frame.Kind, kinds)%kinds] += c.value
			}
			start += c.value
		}
		slices.Reverse(pending[at:]) // left to right in the file
	}
	p.omitted = p.frames - (len(p.boxes) - 1)
	// As many decimals as tell any two neighbouring edges apart.
	for scale := uint64(p.width()); scale < 2*uint64(p.total) && p.decimals < 12; p.decimals++ {
		scale *= 10
	}
	p.decimals = max(p.decimals, 2)
}

// threshold is the smallest value of which at most limit nodes are no smaller.
func threshold(root *node, limit int) int64 {
	var values []int64
	for pending := slices.Clone(root.children); len(pending) > 0; {
		n := pending[len(pending)-1]
		pending = append(pending[:len(pending)-1], n.children...)
		values = append(values, n.value)
	}
	slices.SortFunc(values, func(a, b int64) int { return int(min(max(b-a, -1), 1)) })
	return values[limit] + 1
}

func (p *picture) width() int { return p.Width - 2*margin }

// edge maps a cumulative value to its coordinate times 10^decimals, rounded.
// Boxes share their edges, so they tile whatever the rounding.
func (p *picture) edge(value int64) uint64 {
	scale := uint64(p.width())
	for range p.decimals {
		scale *= 10
	}
	hi, lo := bits.Mul64(uint64(value), scale)
	lo, carry := bits.Add64(lo, uint64(p.total)/2, 0)
	q, _ := bits.Div64(hi+carry, lo, uint64(p.total))
	return q
}

// fixed prints an edge, shifted by whole pixels.
func (p *picture) fixed(v uint64, shift int) string {
	unit := uint64(1)
	for range p.decimals {
		unit *= 10
	}
	text := strconv.FormatUint(v/unit+uint64(shift), 10)
	if rest := v % unit; rest > 0 {
		text += "." + strings.TrimRight(fmt.Sprintf("%0*d", p.decimals, rest), "0")
	}
	return text
}

func (p *picture) printf(format string, args ...any) { fmt.Fprintf(&p.out, format, args...) }

func (p *picture) draw(root *node) {
	height := graphTop + (p.depth+1)*rowHeight + footHeight
	if p.total == 0 {
		height = graphTop + 3*rowHeight + footHeight
	}
	if !p.Fragment {
		p.printf("<?xml version=\"1.0\" encoding=\"UTF-8\" standalone=\"no\"?>\n")
	}
	p.printf(`<svg xmlns="http://www.w3.org/2000/svg" class="initprof-flame" width="%d" height="%d" viewBox="0 0 %d %d" role="img"`,
		p.Width, height, p.Width, height)
	p.printf(` data-total="%d" data-count="%d" data-unit="%s" data-runs="%d" data-samples="%s"`,
		p.total, root.count, escape(string(p.Unit)), p.ColdStarts, escape(p.Samples))
	p.printf(` data-margin="%d" data-row="%d" data-top="%d" data-char="%g">`, margin, rowHeight, graphTop, charWidth)
	p.printf("\n<title>%s</title>\n<style><![CDATA[\n%s]]></style>\n", escape(oneLine(p.Title)), style)
	p.printf("<rect class=\"paper\" width=\"100%%\" height=\"100%%\"/>\n")
	p.printf("<text class=\"title\" x=\"%d\" y=\"24\">%s</text>\n", margin, escape(oneLine(p.Title)))
	p.printf("<text class=\"subtitle\" x=\"%d\" y=\"41\">%s</text>\n", margin, escape(p.facts(root)))
	if p.total == 0 {
		p.printf("<rect class=\"none\" x=\"%d\" y=\"%d\" width=\"%d\" height=\"%d\"/>\n", margin, graphTop, p.width(), 3*rowHeight-1)
		p.printf("<text class=\"note\" x=\"%d\" y=\"%d\">No %s: %s.</text>\n</svg>\n",
			2*margin, graphTop+rowHeight+rowHeight/2+4, escape(p.Samples), escape(oneLine(p.Empty)))
		return
	}
	p.legend()
	p.printf("<text class=\"details\" x=\"%d\" y=\"%d\"></text>\n<g class=\"frames\">\n", margin, graphTop-9)
	for _, b := range p.boxes {
		p.box(b)
	}
	p.printf("</g>\n<text class=\"foot\" x=\"%d\" y=\"%d\">%s</text>\n", margin, height-9, escape(p.foot()))
	p.printf("<script><![CDATA[\n%s]]></script>\n</svg>\n", script)
}

// facts is the line below the title.
func (p *picture) facts(root *node) string {
	var parts []string
	if p.Subtitle != "" {
		parts = append(parts, oneLine(p.Subtitle))
	}
	if p.total > 0 {
		parts = append(parts, p.Noun+" "+p.amount(p.total))
		if p.ColdStarts > 1 {
			parts = append(parts, fmt.Sprintf("%d cold starts, %s each", p.ColdStarts, p.each(p.total)))
		}
		if p.Unit != Count || root.count != p.total {
			noun := p.Samples
			if root.count == 1 {
				noun = strings.TrimSuffix(noun, "s")
			}
			parts = append(parts, group(root.count)+" "+noun)
		}
	}
	return strings.Join(parts, " · ")
}

func (p *picture) foot() string {
	text := "click a frame to zoom · Esc to reset · / to search"
	if p.omitted > 0 {
		text += fmt.Sprintf(" · %s frames below %s left out", group(int64(p.omitted)), p.amount(p.smallest))
	}
	return text
}

// legend names the kinds that occur with their part of the self values, which
// adds up to 100 %.
func (p *picture) legend() {
	p.printf("<g class=\"legend\">\n")
	x := float64(margin)
	for kind := range kinds {
		if p.byKind[kind] == 0 {
			continue
		}
		text := kind.String() + " " + percent(p.byKind[kind], p.total, 1)
		if kind == KindLabel {
			text = "no stack " + percent(p.byKind[kind], p.total, 1)
		}
		p.printf("<rect class=\"%s1\" x=\"%.1f\" y=\"51\" width=\"11\" height=\"11\" rx=\"2\"/>", kindClasses[kind], x)
		p.printf("<text x=\"%.1f\" y=\"60.5\">%s</text>\n", x+16, escape(text))
		x += 16 + charWidth*float64(utf8.RuneCountInString(text)) + 18
	}
	p.printf("</g>\n")
}

var kindClasses = [kinds]string{"un", "la", "go", "gr", "na", "li", "lo", "ke"}

func (p *picture) box(b box) {
	kind := b.frame.Kind
	if kind >= kinds {
		kind = KindUnknown
	}
	hash := fnv.New32a()
	_, _ = io.WriteString(hash, b.frame.Name)
	name := b.name()
	p.printf(`<g class="f %s%d" data-s="%d" data-v="%d" data-d="%d"><title>%s</title>`,
		kindClasses[kind], hash.Sum32()%variants, b.start, b.value, b.depth, escape(p.tooltip(b, name)))
	p.printf("%s</g>\n", p.face(b, graphTop, name))
}

// name is what a box is labelled with.
func (b *box) name() string {
	if name := oneLine(b.frame.Name); name != "" {
		return name
	}
	return "?"
}

// face is a box's rectangle and as much of its name as fits; top is where the
// boxes of no depth begin.
func (p *picture) face(b box, top int, name string) string {
	left, right := p.edge(b.start), p.edge(b.start+b.value)
	y := top + b.depth*rowHeight
	face := fmt.Sprintf(`<rect x="%s" y="%d" width="%s" height="%d"/>`, p.fixed(left, margin), y, p.fixed(right-left, 0), boxHeight)
	scale := 1.0
	for range p.decimals {
		scale *= 10
	}
	if label := fit(name, float64(right-left)/scale); label != "" {
		face += fmt.Sprintf(`<text x="%s" y="%d">%s</text>`, p.fixed(left, margin+3), y+12, escape(label))
	}
	return face
}

// tooltip has the name in its first line, which the script relies on.
func (p *picture) tooltip(b box, name string) string {
	lines := []string{name}
	if b.frame.Module != "" {
		lines = append(lines, oneLine(b.frame.Module))
	}
	lines = append(lines, p.exact(b.value)+" · "+percent(b.value, p.total, 4)+" of all · "+percent(b.value, b.parent, 2)+" of its caller")
	if b.self != b.value {
		lines = append(lines, "self "+p.exact(b.self)+" · "+percent(b.self, p.total, 4)+" of all")
	}
	if p.ColdStarts > 1 {
		lines = append(lines, p.each(b.value)+" per cold start")
	}
	if p.Unit != Count || b.count != b.value {
		lines = append(lines, group(b.count)+" "+p.Samples)
	}
	return strings.Join(lines, "\n")
}

// exact is a value to the last digit.
func (p *picture) exact(v int64) string {
	if p.Unit == Count {
		return group(v)
	}
	return group(v) + " " + string(p.Unit)
}

// amount is a value for reading.
func (p *picture) amount(v int64) string {
	if p.Unit != Nanoseconds {
		return p.exact(v)
	}
	return duration(float64(v))
}

// each is a value per cold start, for reading.
func (p *picture) each(v int64) string {
	mean := float64(v) / float64(p.ColdStarts)
	switch p.Unit {
	case Nanoseconds:
		return duration(mean)
	case Count:
		return strconv.FormatFloat(mean, 'f', 1, 64)
	}
	return strconv.FormatFloat(mean, 'f', 0, 64) + " " + string(p.Unit)
}

// duration prints nanoseconds with four significant digits.
func duration(ns float64) string {
	for _, u := range []struct {
		name string
		size float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= 0.99995*u.size {
			v := ns / u.size
			digits := 3
			for limit := 9.9995; v >= limit && digits > 0; limit *= 10 {
				digits--
			}
			return strconv.FormatFloat(v, 'f', digits, 64) + " " + u.name
		}
	}
	return strconv.FormatFloat(ns, 'f', -1, 64) + " ns"
}

// group parts thousands by commas.
func group(v int64) string {
	text := strconv.FormatInt(v, 10)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}

// percent is part/whole with that many decimals, rounded from integers.
func percent(part, whole int64, decimals int) string {
	if whole <= 0 {
		return "–"
	}
	unit := uint64(1)
	for range decimals {
		unit *= 10
	}
	hi, lo := bits.Mul64(uint64(part), 100*unit)
	lo, carry := bits.Add64(lo, uint64(whole)/2, 0)
	q, _ := bits.Div64(hi+carry, lo, uint64(whole))
	return fmt.Sprintf("%d.%0*d %%", q/unit, decimals, q%unit)
}

// fit shortens a name to a width in pixels; too little shows nothing. The
// directories of a Go import path go first: what is called tells more.
func fit(name string, width float64) string {
	room := int((width - 6) / charWidth)
	if room < 3 {
		return ""
	}
	if utf8.RuneCountInString(name) > room {
		plain := name
		if i := strings.IndexAny(name, "([<{ "); i >= 0 {
			plain = name[:i]
		}
		if i := strings.LastIndexByte(plain, '/'); i >= 0 && i+1 < len(name) {
			name = name[i+1:]
		}
	}
	used := 0
	for i, r := range name {
		if used += cells(r); used > room {
			cut := i
			used -= cells(r)
			for used > room-1 {
				last, size := utf8.DecodeLastRuneInString(name[:cut])
				if cut -= size; cut <= 0 {
					break
				}
				used -= cells(last)
			}
			return name[:max(cut, 0)] + "…"
		}
	}
	return name
}

// cells is how many cells of a monospaced font a character takes, roughly.
func cells(r rune) int {
	if r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 || r >= 0xf900 && r <= 0xfaff || r >= 0xff00 && r <= 0xff60 || r >= 0x1f300) {
		return 2
	}
	return 1
}

// oneLine keeps a name on its line and readable: control characters and those
// that reorder or hide text become visible.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r < 0x20:
			return 0x2400 + r // ␀ … ␟
		case r == 0x7f:
			return '␡'
		case unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

var escaper = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;", "\n", "&#10;")

// escape makes text safe between tags and in attributes, in XML and in HTML.
// Characters that XML does not allow are replaced.
func escape(s string) string {
	s = strings.Map(func(r rune) rune {
		if r == 0xfffe || r == 0xffff || r < 0x20 && r != '\t' && r != '\n' {
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
	return escaper.Replace(s)
}
