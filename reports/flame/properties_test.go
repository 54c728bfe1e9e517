package flame

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
)

// drawn is a frame as a reader of the file finds it.
type drawn struct {
	start, value int64
	depth        int
	x, width     *big.Rat
	title        string
}

// parse reads a picture as XML and returns its frames. It fails on what is not
// well-formed, and on elements that Render does not draw.
func parse(t *testing.T, svg []byte) (frames []drawn) {
	t.Helper()
	allowed := map[string]bool{"svg": true, "title": true, "style": true, "rect": true, "text": true, "g": true, "script": true}
	scripts := 0
	decoder := xml.NewDecoder(bytes.NewReader(svg))
	inFrame := false
	var text strings.Builder
	for {
		token, err := decoder.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatalf("not well-formed: %v\n%s", err, svg)
		}
		switch token := token.(type) {
		case xml.StartElement:
			name := token.Name.Local
			if !allowed[name] {
				t.Fatalf("element %s", name)
			}
			if name == "script" {
				scripts++
			}
			attribute := map[string]string{}
			for _, a := range token.Attr {
				attribute[a.Name.Local] = a.Value
				if strings.HasPrefix(a.Name.Local, "on") || a.Name.Local == "href" {
					t.Fatalf("attribute %s", a.Name.Local)
				}
			}
			text.Reset()
			switch {
			case name == "g":
				inFrame = strings.HasPrefix(attribute["class"], "f ")
				if inFrame {
					start, _ := strconv.ParseInt(attribute["data-s"], 10, 64)
					value, _ := strconv.ParseInt(attribute["data-v"], 10, 64)
					depth, _ := strconv.Atoi(attribute["data-d"])
					frames = append(frames, drawn{start: start, value: value, depth: depth})
				}
			case name == "rect" && inFrame:
				f := &frames[len(frames)-1]
				f.x, _ = new(big.Rat).SetString(attribute["x"])
				f.width, _ = new(big.Rat).SetString(attribute["width"])
			}
		case xml.CharData:
			text.Write(token)
		case xml.EndElement:
			if token.Name.Local == "title" && inFrame {
				frames[len(frames)-1].title = text.String()
			}
		}
	}
	if scripts > 1 {
		t.Fatalf("%d scripts", scripts)
	}
	return frames
}

// Each edge, read back from the file, is the nanosecond that it stands for,
// and siblings share their edges.
func TestEdgesAreExact(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []int64{1, 1000, 1e6, 1e9, 1e11} {
		var samples []Sample
		for range 200 {
			var frames []Frame
			for range 1 + random.IntN(6) {
				frames = append(frames, Frame{Name: string(rune('a' + random.IntN(4)))})
			}
			samples = append(samples, Sample{Stack: frames, Value: 1 + random.Int64N(scale)})
		}
		var total int64
		for _, s := range samples {
			total += s.Value
		}
		frames := parse(t, render(t, samples, Options{}))
		width := big.NewRat(1200-2*margin, 1)
		perUnit := new(big.Rat).Quo(big.NewRat(total, 1), width)
		half := big.NewRat(1, 2)
		for _, f := range frames {
			x := new(big.Rat).Sub(f.x, big.NewRat(margin, 1))
			for _, edge := range []struct {
				at   *big.Rat
				want int64
			}{{x, f.start}, {new(big.Rat).Add(x, f.width), f.start + f.value}} {
				off := new(big.Rat).Sub(new(big.Rat).Mul(edge.at, perUnit), big.NewRat(edge.want, 1))
				if off.Abs(off).Cmp(half) >= 0 {
					t.Fatalf("total %d: an edge is %s units off %d", total, off.FloatString(3), edge.want)
				}
			}
		}
		if frames[0].value != total {
			t.Errorf("root %d, total %d", frames[0].value, total)
		}
	}
}

func TestHostileNamesStayText(t *testing.T) {
	frames := parse(t, render(t, hostile, Options{Title: "<b>", Subtitle: "]]></svg>", Samples: "\"'><", Empty: "<"}))
	var names []string
	for _, f := range frames {
		name, _, _ := strings.Cut(f.title, "\n")
		names = append(names, name)
	}
	for _, want := range []string{"<script>alert('1')</script>", "]]><script>alert(2)</script>", "a;b␊c␀\ufffd", "\ufffd bad", "?"} {
		found := false
		for _, name := range names {
			found = found || name == want
		}
		if !found {
			t.Errorf("no frame %q in %q", want, names)
		}
	}
}

// The order in which samples come does not show.
func TestOrderDoesNotMatter(t *testing.T) {
	want := render(t, register, Options{})
	shuffled := append([]Sample(nil), register...)
	for range 5 {
		rand.Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		if !bytes.Equal(want, render(t, shuffled, Options{})) {
			t.Fatal("another order, another picture")
		}
	}
}

func TestRefusals(t *testing.T) {
	if err := Render(io.Discard, []Sample{{Value: -1}}, Options{}); err == nil {
		t.Error("a negative value is drawn")
	}
	if err := Render(io.Discard, []Sample{{Value: math.MaxInt64 / 2}, {Value: math.MaxInt64 / 2}}, Options{}); !errors.Is(err, ErrTooLarge) {
		t.Errorf("a sum that does not fit: %v", err)
	}
	render(t, []Sample{{Value: math.MaxInt64 / 2, Stack: stack(goFrame("main.main"))}, {Value: 0}}, Options{Width: 20000})
}

func TestManyFramesAreBounded(t *testing.T) {
	var samples []Sample
	for i := range 3000 {
		samples = append(samples, Sample{Stack: stack(Frame{Name: strconv.Itoa(i)}), Value: int64(1 + i%100)})
	}
	svg := render(t, samples, Options{MaxFrames: 500})
	if frames := parse(t, svg); len(frames) > 501 || len(frames) < 400 {
		t.Errorf("%d frames", len(frames))
	}
	if !bytes.Contains(svg, []byte("left out")) {
		t.Error("what was left out is not said")
	}
	deep := Sample{Value: 1}
	for range 5000 {
		deep.Stack = append(deep.Stack, Frame{Name: "f"})
	}
	if frames := parse(t, render(t, []Sample{deep}, Options{})); len(frames) != maxDepth+2 {
		t.Errorf("%d levels", len(frames))
	}
}

func TestClassify(t *testing.T) {
	for _, c := range []struct {
		module, function string
		goModule         bool
		want             Kind
	}{
		{"[kernel]", "ksys_read", false, KindKernel},
		{"[kernel]", "", false, KindKernel},
		{"/lib64/ld-linux-aarch64.so.1", "_dl_start", false, KindLoader},
		{"/lib/ld-musl-x86_64.so.1", "", false, KindLoader},
		{"/opt/ext", "", true, KindUnknown},
		{"/opt/ext", "runtime.mallocgc", true, KindGoRuntime},
		{"/opt/ext", "gogo", true, KindGoRuntime},
		{"/opt/ext", "runtime/pprof.StartCPUProfile", true, KindGo},
		{"/opt/ext", "main.main", true, KindGo},
		{"/lib64/libc.so.6", "memcpy", false, KindLibrary},
		{"[vdso]", "__vdso_clock_gettime", false, KindLibrary},
		{"/opt/ext", "main", false, KindNative},
	} {
		if got := Classify(c.module, c.function, c.goModule); got != c.want {
			t.Errorf("%s %s is %v, want %v", c.module, c.function, got, c.want)
		}
	}
}

func FuzzRender(f *testing.F) {
	f.Add("a", "b", int64(3), "title")
	f.Add("<x>", "]]>\x00", int64(1)<<61, "\xff\ufffe")
	f.Fuzz(func(t *testing.T, name, module string, value int64, title string) {
		samples := []Sample{{Stack: stack(Frame{Name: name, Module: module}), Value: value}, {Value: 1}}
		var out bytes.Buffer
		if err := Render(&out, samples, Options{Title: title, Subtitle: module, Noun: name}); err != nil {
			if value >= 0 && value < math.MaxInt64/2 {
				t.Fatal(err)
			}
			return
		}
		parse(t, out.Bytes())
		if err := Folded(&out, samples); err != nil {
			t.Fatal(err)
		}
	})
}

func TestFit(t *testing.T) {
	const name = "github.com/initprof/initprof/extension/boot.(*Extension).Run"
	for room, want := range map[int]string{
		60: name, 40: "boot.(*Extension).Run", 10: "boot.(*Ex…", 3: "bo…", 2: "",
	} {
		if got := fit(name, 6.5+float64(room)*charWidth); got != want {
			t.Errorf("%d characters: %q, want %q", room, got, want)
		}
	}
	if got := fit("漢字漢字", 6.5+5*charWidth); got != "漢字…" {
		t.Errorf("wide characters: %q", got)
	}
}
