package flame

import (
	"bytes"
	"errors"
	"math"
	"strings"
	"testing"
)

var (
	mainFrame = goFrame("main.main")
	roots     = goFrame("crypto/x509.loadSystemRoots")
	config    = goFrame("main.loadConfig")
	registers = goFrame("main.register")
)

// before and after are a phase in which one function grew, one shrank, one
// appeared and one vanished.
var (
	beforeStacks = []Sample{
		{Stack: stack(goFrame("main.parse"), roots, mainFrame), Value: 2_000_000},
		{Stack: stack(config, mainFrame), Value: 1_000_000},
		{Stack: stack(registers, mainFrame), Value: 3_000_000},
		{Stack: stack(mainFrame), Value: 10_000},
	}
	afterStacks = []Sample{
		{Stack: stack(config, mainFrame), Value: 1_500_000},
		{Stack: stack(goFrame("main.burn"), config, mainFrame), Value: 4_000_000},
		{Stack: stack(registers, mainFrame), Value: 2_600_000},
		{Stack: stack(mainFrame), Value: 10_000},
	}
)

func renderDiff(t *testing.T, before, after []Sample, opts Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := RenderDiff(&out, before, after, opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// class finds how a frame is drawn, in a panel.
func class(t *testing.T, svg []byte, panel, name string) string {
	t.Helper()
	_, rest, _ := strings.Cut(string(svg), `<g class="frames `+panel+`">`)
	rest, _, _ = strings.Cut(rest, "\n</g>\n<") // the panel's end
	for line := range strings.Lines(rest) {
		if strings.Contains(line, "<title>"+name) {
			_, class, _ := strings.Cut(line, `class="f `)
			class, _, _ = strings.Cut(class, `"`)
			return class
		}
	}
	return ""
}

func TestRenderDiff(t *testing.T) {
	svg := renderDiff(t, beforeStacks, afterStacks, Options{Title: "ext, diff: wall, phase register", Subtitle: "exec → /next", Noun: "time on the critical path"})
	golden(t, "diff.svg", svg)
	for _, c := range []struct{ panel, name, class string }{
		{"after", "main.loadConfig", "up3"},
		{"after", "main.burn", "up3 new"},
		{"after", "main.register", "dn1"},
		{"vanished", "crypto/x509.loadSystemRoots", "dn2"},
		{"vanished", "main.parse", "dn2"},
		{"vanished", "main.main", "eq0"}, // it is only what called it
		{"after", "main.parse", ""},
		{"vanished", "main.register", ""},
	} {
		if got := class(t, svg, c.panel, c.name); got != c.class {
			t.Errorf("%s in %s has the class %q, want %q", c.name, c.panel, got, c.class)
		}
	}
	golden(t, "diff-hostile.svg", renderDiff(t, afterStacks, hostile, Options{Title: "</title><script>alert(1)</script>", Fragment: true}))
	parse(t, renderDiff(t, hostile, nil, Options{}))
}

// A phase against itself is grey, and nothing vanished.
func TestRenderDiffOfEquals(t *testing.T) {
	svg := renderDiff(t, afterStacks, afterStacks, Options{})
	golden(t, "diff-same.svg", svg)
	if strings.Contains(string(svg), `class="f up`) || strings.Contains(string(svg), `class="f dn`) || strings.Contains(string(svg), `class="frames vanished"`) {
		t.Error("a difference")
	}
}

// The boxes of each panel tile, both panels have one scale, and widths are of
// after.
func TestRenderDiffTiles(t *testing.T) {
	for name, c := range map[string]struct {
		before, after []Sample
		boxes         int
		widest        int64
	}{
		"both":     {beforeStacks, afterStacks, 5 + 4, 8_110_000},
		"vanished": {beforeStacks, nil, 6, 6_010_000},
		"appeared": {nil, afterStacks, 5, 8_110_000},
		"nothing":  {nil, nil, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			frames := parse(t, renderDiff(t, c.before, c.after, Options{}))
			if len(frames) != c.boxes {
				t.Fatalf("%d boxes, want %d", len(frames), c.boxes)
			}
			for _, f := range frames {
				x, _ := f.x.Float64()
				width, _ := f.width.Float64()
				scale := (1200 - 2*margin) / float64(c.widest)
				if math.Abs(width-float64(f.value)*scale) > 0.01 || math.Abs(x-margin-float64(f.start)*scale) > 0.01 {
					t.Errorf("%q of %d at %d is drawn at %g, %g wide", f.title, f.value, f.start, x, width)
				}
			}
		})
	}
}

func TestRenderDiffRefuses(t *testing.T) {
	large := []Sample{{Value: math.MaxInt64 / 2}, {Value: math.MaxInt64 / 2}}
	if err := RenderDiff(&bytes.Buffer{}, large, nil, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if err := RenderDiff(&bytes.Buffer{}, nil, []Sample{{Value: -1}}, Options{}); err == nil {
		t.Error("a negative value is drawn")
	}
}
