package trace

import "strings"

// Region is a part of an address space that a page fault can hit.
type Region struct {
	Path string // a file, "[heap]", "[stack]", "[vdso]", "//anon", or "" if unknown
	Kind string // "text", "rodata", "data", "anonymous", "heap", "stack", "vdso", or ""
}

// regionChange is one change of an address space.
type regionChange struct {
	at           int64
	start, limit uint64
	region       Region
	unmapped     bool
	reset        bool // exec: all that was there before is gone
}

// maxStack is the default limit of the main thread's stack, which grows
// downwards from where it was mapped.
const maxStack = 8 << 20

// RegionAt returns what was mapped at an address at that time. Stacks are
// found below their mapping too, into which they grow.
func (p *Process) RegionAt(address uint64, at int64) Region {
	var stack *regionChange
	for n := len(p.regions) - 1; n >= 0; n-- {
		r := &p.regions[n]
		if r.at > at {
			continue
		}
		if r.reset {
			break
		}
		if r.start <= address && address < r.limit {
			if r.unmapped {
				return Region{}
			}
			return r.region
		}
		if r.region.Kind == "stack" && address < r.start && r.start-address <= maxStack {
			stack = r
		}
	}
	if stack != nil {
		return stack.region
	}
	return Region{}
}

// mapped takes in a mapping event. It knows more than the call that made it,
// which is not yet back.
func (p *Process) mapped(m *Mapping) {
	p.regions = append(p.regions, regionChange{at: m.Time, start: m.Start, limit: m.Limit, region: regionOf(m.Path, m.Prot)})
}

func regionOf(path string, prot uint32) Region {
	r := Region{Path: path}
	switch {
	case path == "[heap]" || path == "[stack]" || path == "[vdso]":
		r.Kind = strings.Trim(path, "[]")
	case path == "" || path == "//anon" || strings.HasPrefix(path, "[anon"):
		r = Region{Path: "//anon", Kind: "anonymous"}
	case strings.HasPrefix(path, "[stack"):
		r.Kind = "stack"
	case strings.HasPrefix(path, "["):
	case prot&ProtExec != 0:
		r.Kind = "text"
	case prot&ProtWrite != 0:
		r.Kind = "data"
	default:
		r.Kind = "rodata"
	}
	return r
}

// remap follows the calls that change an address space, for mappings of data
// and of no file, which need not have events of their own.
func (w *walker) remap(t *tables, s step) {
	c := s.call
	is := func(name string) bool { return w.b.calls.is(c.Number, name) }
	p := s.process
	result := uint64(c.Return)
	change := regionChange{at: s.at}
	switch {
	case is("mmap"):
		change.start, change.limit = result, result+pageUp(c.Args[1])
		if p.knows(change.start, c.Begin, c.Until) {
			return
		}
		name := ""
		if c.File != nil {
			name = c.File.Path
			if name == "" {
				return
			}
		}
		change.region = regionOf(name, uint32(c.Args[2]))
	case is("munmap"):
		change.start, change.limit = c.Args[0], c.Args[0]+pageUp(c.Args[1])
		change.unmapped = true
	case is("mremap"):
		change.region = p.RegionAt(c.Args[0], c.Begin)
		change.start, change.limit = result, result+pageUp(c.Args[2])
	case is("brk"):
		if t.brk == 0 {
			t.brk = result
		}
		change.start, change.limit = t.brk, pageUp(result)
		change.region = Region{Path: "[heap]", Kind: "heap"}
	default:
		return
	}
	if change.start < change.limit {
		p.regions = append(p.regions, change)
	}
}

// knows reports whether an event told of a mapping at that address in that time.
func (p *Process) knows(start uint64, from, to int64) bool {
	for n := len(p.regions) - 1; n >= 0 && p.regions[n].at >= from; n-- {
		if r := &p.regions[n]; r.start == start && r.at <= to && !r.unmapped {
			return true
		}
	}
	return false
}

// pageUp rounds to the smallest page size of both architectures.
func pageUp(n uint64) uint64 { return (n + 4095) &^ 4095 }
