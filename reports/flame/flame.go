// Package flame draws flame graphs as self-contained SVG and writes folded
// stacks. It stands at the end of the data flow: whoever has weighted stacks
// (profiles, ledger cells, phases) hands them over, and gets one picture a
// call; one per phase and one for all are that many calls.
//
// The picture needs no network and no file beside it, opened by itself or
// inlined in an HTML page: the root is on top, children lie below by size, a
// click zooms, and a search says what part of the whole it matches. Edges are
// mapped from integers, each frame carries its exact value, and the same
// samples give the same bytes. Names are hostile until proven otherwise.
package flame

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"
	"strings"
)

// Kind is what a frame is, for its colour.
type Kind uint8

// The kinds of frames.
const (
	KindUnknown   Kind = iota // an address without a name
	KindLabel                 // no code: a phase, a thread, a state
	KindGo                    // Go, outside of its runtime
	KindGoRuntime             // the Go runtime
	KindNative                // C, C++, Rust of the program itself
	KindLibrary               // a shared library
	KindLoader                // the dynamic linker
	KindKernel                // the kernel
	kinds
)

var kindNames = [kinds]string{
	"unnamed", "label", "Go", "Go runtime", "native", "library", "loader", "kernel",
}

// String is the kind's name in the legend.
func (k Kind) String() string {
	if k < kinds {
		return kindNames[k]
	}
	return kindNames[KindUnknown]
}

// Frame is one box of the graph. Siblings with equal frames become one box.
type Frame struct {
	Name   string // of the function, or whatever shall stand in the box
	Module string // where it lives: a path, "[kernel]"; shown, and may be empty
	Kind   Kind
}

// Sample is one observation, or several with the same stack.
type Sample struct {
	Stack []Frame // leaf first; empty counts for the root alone
	Value int64   // ≥ 0, in Options.Unit
	Count int64   // how many observations Value sums; 0 means 1
}

// Unit is what values are.
type Unit string

// The units.
const (
	Nanoseconds Unit = "ns"
	Count       Unit = "count"
	Bytes       Unit = "bytes"
)

// Options says how a graph is drawn. The zero value works.
type Options struct {
	Title      string // default "Flame graph"
	Subtitle   string
	Unit       Unit   // default Nanoseconds
	Noun       string // what Value is a sum of: "on-CPU time"; default "total"
	Samples    string // what Count counts, plural: default "samples"
	ColdStarts int    // over how many the values are summed; above 1, each value is also given per cold start
	Empty      string // why there are no samples, if there are none
	Width      int    // in pixels without a script to fit it; default 1200
	MaxFrames  int    // the smallest beyond are left out, and the graph says so; default 20,000
	Fragment   bool   // without XML declaration, to be inlined in HTML
}

func (o Options) withDefaults() Options {
	o.Title = cmp.Or(o.Title, "Flame graph")
	o.Unit = cmp.Or(o.Unit, Nanoseconds)
	o.Noun = cmp.Or(o.Noun, "total")
	o.Samples = cmp.Or(o.Samples, "samples")
	o.Empty = cmp.Or(o.Empty, "nothing was observed here")
	o.ColdStarts = max(o.ColdStarts, 1)
	if o.Width <= 0 {
		o.Width = 1200
	}
	o.Width = min(max(o.Width, 300), 20000)
	if o.MaxFrames <= 0 {
		o.MaxFrames = 20000
	}
	return o
}

// maxDepth bounds the height of the picture. Only runaway recursion is deeper;
// the frames nearest to the root are kept.
const maxDepth = 500

// ErrTooLarge is returned when values do not fit their sum.
var ErrTooLarge = errors.New("flame graph: values sum to more than 2^62")

// node is a box: a frame below one path of frames.
type node struct {
	frame    Frame
	value    int64 // of all samples through it
	self     int64 // of those that end here
	count    int64
	children []*node
	index    map[Frame]*node
}

func (n *node) child(f Frame) *node {
	if c := n.index[f]; c != nil {
		return c
	}
	if n.index == nil {
		n.index = make(map[Frame]*node)
	}
	c := &node{frame: f}
	n.index[f] = c
	n.children = append(n.children, c)
	return c
}

// build merges samples into a tree, children by decreasing value.
func build(samples []Sample) (root *node, frames int, err error) {
	root = &node{frame: Frame{Name: "all", Kind: KindLabel}}
	for i, s := range samples {
		if s.Value < 0 || s.Count < 0 {
			return nil, 0, fmt.Errorf("flame graph: sample %d has a negative value", i)
		}
		if s.Value == 0 {
			continue // no width
		}
		if s.Value > math.MaxInt64/2-root.value || s.Count > math.MaxInt64/2-root.count {
			return nil, 0, ErrTooLarge
		}
		count := max(s.Count, 1)
		n := root
		n.value, n.count = n.value+s.Value, n.count+count
		for depth, f := range slices.Backward(s.Stack) {
			if len(s.Stack)-depth > maxDepth {
				f = Frame{Name: fmt.Sprintf("… deeper than %d frames", maxDepth), Kind: KindLabel}
			}
			n = n.child(f)
			n.value, n.count = n.value+s.Value, n.count+count
			if len(s.Stack)-depth > maxDepth {
				break
			}
		}
		n.self += s.Value
	}
	for pending := []*node{root}; len(pending) > 0; {
		n := pending[len(pending)-1]
		pending = append(pending[:len(pending)-1], n.children...)
		frames += len(n.children)
		n.index = nil
		slices.SortFunc(n.children, func(a, b *node) int {
			return cmp.Or(cmp.Compare(b.value, a.value), cmp.Compare(a.frame.Name, b.frame.Name),
				cmp.Compare(a.frame.Module, b.frame.Module), cmp.Compare(a.frame.Kind, b.frame.Kind))
		})
	}
	return root, frames, nil
}

// runtimePackages begin the names of the Go runtime's functions.
var runtimePackages = []string{
	"runtime.", "runtime/internal/", "internal/runtime/", "internal/abi.", "internal/bytealg.", "internal/cpu.",
}

// Classify tells the kind of a frame from its module (a path, "[kernel]",
// "[vdso]" or empty), its function (empty: unnamed) and whether the module was
// built by Go.
func Classify(module, function string, goModule bool) Kind {
	base := path.Base(module)
	switch {
	case module == "[kernel]":
		return KindKernel
	case strings.HasPrefix(base, "ld-linux"), strings.HasPrefix(base, "ld-musl"), strings.HasPrefix(base, "ld.so"),
		strings.HasPrefix(base, "ld-2."), strings.HasPrefix(base, "ld64.so"):
		return KindLoader
	case function == "":
		return KindUnknown
	case goModule:
		if !strings.Contains(function, ".") {
			return KindGoRuntime // its assembly: gogo, memeqbody, _rt0_amd64
		}
		for _, prefix := range runtimePackages {
			if strings.HasPrefix(function, prefix) {
				return KindGoRuntime
			}
		}
		return KindGo
	case module == "[vdso]", strings.HasSuffix(base, ".so"), strings.Contains(base, ".so."):
		return KindLibrary
	}
	return KindNative
}
