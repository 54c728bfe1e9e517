package symbolize

import (
	"cmp"
	"slices"
)

// maxInlined bounds the calls inlined into one another at one address.
const maxInlined = 128

// Function is a function of an object, as probes are planned by it.
type Function struct {
	Name    string // demangled
	Symbol  string // as the symbol table has it
	Address uint64 // in the object's virtual addresses
	Size    uint64 // 0 if unknown
}

// Functions returns the object's functions by address: those of the pclntab of
// a Go program, and those of the symbol tables elsewhere.
func (o *Object) Functions() []Function {
	var functions []Function
	t := o.goTable()
	if t != nil {
		for i := range t.funcs {
			f, ok := t.function(i)
			if !ok {
				continue
			}
			if name := t.funcName(f.name); name != "" {
				functions = append(functions, Function{Name: shownName(name), Symbol: name, Address: f.entry, Size: f.end - f.entry})
			}
		}
	}
	s := o.table()
	for _, sym := range s.symbols {
		if t != nil && t.findFunc(sym.address) >= 0 {
			continue
		}
		name := s.name(sym)
		functions = append(functions, Function{Name: Demangle(name), Symbol: name, Address: sym.address, Size: sym.size})
	}
	slices.SortStableFunc(functions, func(a, b Function) int { return cmp.Compare(a.Address, b.Address) })
	return functions
}

// LookupFunc returns the address and size of the function with that name, in
// the object's virtual addresses; see FileOffset. The name may be a symbol or
// its demangled form; of several functions with the name it is the first by
// address.
func (o *Object) LookupFunc(name string) (address, size uint64, ok bool) {
	if t := o.goTable(); t != nil {
		for i := range t.funcs {
			if f, ok := t.function(i); ok && t.nameIs(f.name, name) {
				return f.entry, f.end - f.entry, true
			}
		}
	}
	s := o.table()
	for _, demangle := range []bool{false, true} {
		for _, sym := range s.symbols {
			n := s.name(sym)
			if demangle {
				n = Demangle(n)
			}
			if n == name {
				return sym.address, sym.size, true
			}
		}
	}
	return 0, 0, false
}

// nameIs compares without making a string of every name.
func (t *goTable) nameIs(off uint32, name string) bool {
	end := uint64(off) + uint64(len(name))
	return end < uint64(len(t.names)) && t.names[end] == 0 && string(t.names[off:end]) == name
}

// Frames returns the frames of an address in the object's virtual addresses,
// innermost first; nil if nothing names it. Callers with many addresses sort
// them and use a cursor.
func (o *Object) Frames(address uint64) []Frame {
	c := newCursor(o)
	return c.frames(address)
}

// cursor looks up addresses in one object and keeps what it decoded last, so
// that addresses in ascending order decode each function once. It serves one
// goroutine.
type cursor struct {
	o *Object

	// The last Go function, decoded.
	index      int
	function   goFunc
	file, line []run
	inline     []run
	tree       []inlinedCall
	goNames    map[uint32]string
	goFiles    map[goFile]string
	elfNames   map[symbol]string
	broken     bool
}

type goFile struct {
	unit   uint32
	number int32
}

func newCursor(o *Object) *cursor {
	return &cursor{
		o: o, index: -1, goNames: map[uint32]string{}, goFiles: map[goFile]string{},
		elfNames: map[symbol]string{},
	}
}

// frames never panics: a malformed table costs the names of its object.
func (c *cursor) frames(address uint64) (frames []Frame) {
	if c.broken {
		return nil
	}
	defer func() {
		if p := recover(); p != nil {
			c.broken = true
			c.o.fault(malformed{p})
			frames = nil
		}
	}()
	if t := c.o.goTable(); t != nil {
		if i := t.findFunc(address); i >= 0 {
			if frames := c.goFrames(t, i, address); len(frames) > 0 {
				return frames
			}
		}
	}
	s := c.o.table()
	sym, ok := s.find(address)
	name := ""
	if ok {
		if name, ok = c.elfNames[sym]; !ok {
			name = Demangle(s.name(sym))
			c.elfNames[sym] = name
		}
	}
	if frames := c.dwarfFrames(address, name); len(frames) > 0 {
		return frames
	}
	if name == "" {
		return nil
	}
	return []Frame{{Function: name}}
}

// goFrames walks the inline tree as runtime.inlineUnwinder does.
func (c *cursor) goFrames(t *goTable, index int, address uint64) []Frame {
	if index != c.index && !c.decode(t, index) {
		return nil
	}
	f := &c.function
	pc := uint32(address - f.entry)
	var frames []Frame
	for len(frames) < maxInlined {
		at := int32(-1)
		if len(c.inline) > 0 {
			at = valueAt(c.inline, pc)
		}
		if at < 0 || int(at) >= len(c.tree) {
			break
		}
		call := c.tree[at]
		frames = append(frames, c.goFrame(t, call.name, pc))
		if call.parent == pc {
			break
		}
		pc = call.parent
	}
	return append(frames, c.goFrame(t, f.name, pc))
}

func (c *cursor) goFrame(t *goTable, name, pc uint32) Frame {
	fn, ok := c.goNames[name]
	if !ok {
		fn = shownName(t.funcName(name))
		c.goNames[name] = fn
	}
	frame := Frame{Function: fn}
	number := valueAt(c.file, pc)
	if line := valueAt(c.line, pc); number >= 0 && line > 0 {
		key := goFile{c.function.unit, number}
		if frame.File, ok = c.goFiles[key]; !ok {
			frame.File = t.fileName(c.function.unit, number)
			c.goFiles[key] = frame.File
		}
		if frame.File != "" {
			frame.Line = int(line)
		}
	}
	return frame
}

func (c *cursor) decode(t *goTable, index int) bool {
	f, ok := t.function(index)
	if !ok || t.funcName(f.name) == "" {
		c.index = -1
		return false
	}
	c.index, c.function = index, f
	c.file = t.runs(c.file, f.file, &f)
	c.line = t.runs(c.line, f.line, &f)
	c.inline = t.runs(c.inline, f.inlineTree, &f)
	c.tree = nil
	last := int32(-1)
	for _, r := range c.inline {
		last = max(last, r.value)
	}
	if tree, ok := t.tree(&f, last+1); ok {
		c.tree = tree
	}
	return true
}

// FuncName returns the name of the function that holds an address of the
// object, empty if it is not known.
func (o *Object) FuncName(address uint64) string {
	frames := o.Frames(address)
	if len(frames) == 0 {
		return ""
	}
	return frames[len(frames)-1].Function
}
