package symbolize

import (
	"cmp"
	"debug/dwarf"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
)

// Bounds on debug information. A program with more keeps its symbols' names.
const (
	maxDWARF      = 384 << 20 // bytes of the sections that are read, unpacked
	maxUnits      = 1 << 20
	maxUnitDIEs   = 1 << 22
	maxUnitRanges = 1 << 22
)

// dwarfInfo finds source lines and inlined calls of C, C++ and Rust code. Units
// are indexed by their address ranges and decoded when first hit.
type dwarfInfo struct {
	o      *Object
	data   *dwarf.Data
	line   []byte
	ranges []unitRange

	mu    sync.Mutex
	units map[dwarf.Offset]*dwarfUnit
}

type unitRange struct {
	start, end uint64
	offset     dwarf.Offset
}

// dwarfUnit is a decoded compilation unit.
type dwarfUnit struct {
	once      sync.Once
	functions []dwarfScope // by start
	rows      []lineRow
	files     []string
	reach     []uint64
	directory string // of the compilation, for relative file names
}

// dwarfScope is a stretch of code that belongs to a function or to a call
// inlined into it; a scope with several ranges occurs once for each.
type dwarfScope struct {
	start, end uint64
	name       string
	callFile   int // of the call, for an inlined one
	callLine   int
	inlined    []dwarfScope
}

type lineRow struct {
	address uint64
	file    int32 // index in files, -1 at the end of a sequence
	line    int32
}

// dwarf returns the object's debug information, nil if it has none.
func (o *Object) dwarf() *dwarfInfo {
	o.dwarfOnce.Do(func() {
		defer func() {
			if p := recover(); p != nil {
				o.fault(fmt.Errorf("debug information: %v", p))
				o.dwarfInfo = nil
			}
		}()
		info, err := o.readDWARF()
		if err != nil {
			o.fault(fmt.Errorf("debug information: %w", err))
			return
		}
		o.dwarfInfo = info
	})
	return o.dwarfInfo
}

// index walks the unit headers itself: debug/dwarf could only read every entry
// to get from one unit to the next.
func (d *dwarfInfo) index(raw []byte) error {
	r := d.data.Reader()
	for at, n := uint64(0), 0; at+12 <= uint64(len(raw)) && n < maxUnits; n++ {
		length, header := uint64(le.Uint32(raw[at:])), uint64(4)
		wide := uint64(4)
		if length == 0xffffffff {
			length, header, wide = le.Uint64(raw[at+4:]), 12, 8
		}
		next := at + header + length
		if next > uint64(len(raw)) || next <= at || length < 8 {
			return errUnits
		}
		body := raw[at+header : next]
		first := at + header + 2 + wide + 1 // version, abbreviations, address size
		typ := byte(1)
		if le.Uint16(body) >= 5 {
			typ = body[2]
			first++
			if typ == 4 || typ == 5 { // DW_UT_skeleton, DW_UT_split_compile: a unit ID
				first += 8
			}
		}
		if typ == 1 || typ == 4 { // DW_UT_compile, DW_UT_skeleton
			d.indexUnit(r, dwarf.Offset(first))
		}
		at = next
	}
	return nil
}

func (d *dwarfInfo) indexUnit(r *dwarf.Reader, first dwarf.Offset) {
	r.Seek(first)
	e, err := r.Next()
	if err != nil || e == nil || e.Tag != dwarf.TagCompileUnit && e.Tag != dwarf.TagSkeletonUnit {
		return
	}
	for _, p := range d.rangesOf(e) {
		if len(d.ranges) < maxUnitRanges {
			d.ranges = append(d.ranges, unitRange{p[0], p[1], first})
		}
	}
}

// rangesOf returns an entry's address ranges within the object's code: code
// that the linker dropped has ranges at 0.
func (d *dwarfInfo) rangesOf(e *dwarf.Entry) [][2]uint64 {
	if !d.o.work.spend(1) {
		return nil
	}
	ranges, err := d.data.Ranges(e)
	if err != nil {
		d.o.work.spend(failedTable)
		return nil
	}
	if !d.o.work.spend(128 * len(ranges)) {
		return nil
	}
	return slices.DeleteFunc(ranges, func(p [2]uint64) bool {
		return p[1] <= p[0] || d.o.executableEnd(p[0]) == 0
	})
}

// unitsAt calls f for the units that may hold an address until it returns true.
func (d *dwarfInfo) unitsAt(address uint64, f func(*dwarfUnit) bool) {
	i, _ := slices.BinarySearchFunc(d.ranges, address, func(r unitRange, a uint64) int {
		if r.start <= a {
			return -1
		}
		return 1
	})
	for n := 0; i > 0 && n < 32; n++ {
		i--
		if r := d.ranges[i]; address < r.end && f(d.unit(r.offset)) {
			return
		}
	}
}

func (d *dwarfInfo) unit(offset dwarf.Offset) *dwarfUnit {
	d.mu.Lock()
	u := d.units[offset]
	if u == nil {
		u = &dwarfUnit{}
		d.units[offset] = u
	}
	d.mu.Unlock()
	u.once.Do(func() {
		defer func() {
			if p := recover(); p != nil {
				d.o.fault(fmt.Errorf("debug information of the unit at %#x: %v", offset, p))
			}
		}()
		d.decode(u, offset)
	})
	return u
}

func (d *dwarfInfo) decode(u *dwarfUnit, offset dwarf.Offset) {
	if !d.o.work.spend(1024) {
		return
	}
	r := d.data.Reader()
	r.Seek(offset)
	e, err := r.Next()
	if err != nil || e == nil {
		return
	}
	u.directory, _ = e.Val(dwarf.AttrCompDir).(string)
	d.decodeLines(u, e)
	if !e.Children {
		return
	}
	w := unitWalk{d: d, u: u, r: r, names: nameReader{d: d, known: map[dwarf.Offset]string{}}}
	w.children(&u.functions, 0)
	slices.SortStableFunc(u.functions, func(a, b dwarfScope) int { return cmp.Compare(a.start, b.start) })
	var reach uint64
	for _, f := range u.functions {
		reach = max(reach, f.end)
		u.reach = append(u.reach, reach)
	}
}

// unitWalk reads the functions of a unit.
type unitWalk struct {
	d     *dwarfInfo
	u     *dwarfUnit
	r     *dwarf.Reader
	names nameReader
	dies  int
	ended bool
}

// children reads the entries below one, and puts inlined calls into scopes and
// functions into the unit.
func (w *unitWalk) children(scopes *[]dwarfScope, depth int) {
	for !w.ended {
		e, err := w.r.Next()
		w.dies++
		if err != nil || e == nil || w.dies > maxUnitDIEs || !w.d.o.work.spend(64+16*len(e.Field)) {
			w.ended = true
			return
		}
		if e.Tag == 0 {
			return
		}
		if e.Children && depth > 2*maxInlined {
			w.r.SkipChildren()
			continue
		}
		if e.Tag != dwarf.TagSubprogram && e.Tag != dwarf.TagInlinedSubroutine {
			if e.Children {
				w.children(scopes, depth+1)
			}
			continue
		}
		ranges := w.d.rangesOf(e)
		var inner []dwarfScope
		if e.Children {
			if len(ranges) == 0 {
				w.r.SkipChildren()
				continue
			}
			w.children(&inner, depth+1)
		}
		if len(ranges) == 0 {
			continue
		}
		to := scopes
		if e.Tag == dwarf.TagSubprogram {
			to = &w.u.functions
		}
		file, _ := e.Val(dwarf.AttrCallFile).(int64)
		line, _ := e.Val(dwarf.AttrCallLine).(int64)
		name := w.names.name(e, 0)
		for _, p := range ranges {
			s := dwarfScope{start: p[0], end: p[1], name: name, callFile: int(file), callLine: int(line)}
			if len(ranges) == 1 {
				s.inlined = inner
			} else {
				for _, i := range inner {
					if i.start >= p[0] && i.start < p[1] {
						s.inlined = append(s.inlined, i)
					}
				}
			}
			*to = append(*to, s)
		}
	}
}

// nameReader finds the names of functions, which stand at the entry itself or
// at the one that it is an instance or definition of.
type nameReader struct {
	d     *dwarfInfo
	known map[dwarf.Offset]string
}

func (n *nameReader) name(e *dwarf.Entry, depth int) string {
	for _, attr := range []dwarf.Attr{dwarf.AttrLinkageName, attrMIPSLinkageName} {
		if s, ok := e.Val(attr).(string); ok && s != "" {
			return Demangle(s)
		}
	}
	for _, attr := range []dwarf.Attr{dwarf.AttrAbstractOrigin, dwarf.AttrSpecification} {
		origin, ok := e.Val(attr).(dwarf.Offset)
		if !ok || depth > 4 {
			continue
		}
		if s, ok := n.known[origin]; ok {
			return s
		}
		r := n.d.data.Reader()
		r.Seek(origin)
		if o, err := r.Next(); err == nil && o != nil {
			s := n.name(o, depth+1)
			n.known[origin] = s
			if s != "" {
				return s
			}
		}
	}
	s, _ := e.Val(dwarf.AttrName).(string)
	return s
}

// attrMIPSLinkageName is what compilers wrote before DWARF 4.
const attrMIPSLinkageName dwarf.Attr = 0x2007

func (d *dwarfInfo) decodeLines(u *dwarfUnit, e *dwarf.Entry) {
	if at, ok := e.Val(dwarf.AttrStmtList).(int64); ok {
		if err := checkLines(d.line, at); err != nil {
			d.o.fault(err)
			return
		}
	}
	lines, err := d.data.LineReader(e)
	if err != nil {
		d.o.work.spend(failedTable)
		return
	}
	if lines == nil || !d.o.work.spend(128*len(lines.Files())) {
		return
	}
	numbers := map[*dwarf.LineFile]int32{}
	for i, f := range lines.Files() {
		numbers[f] = int32(i)
	}
	var entry dwarf.LineEntry
	for {
		if err := lines.Next(&entry); err != nil {
			if !errors.Is(err, io.EOF) {
				d.o.fault(fmt.Errorf("line table: %w", err))
			}
			break
		}
		if !d.o.work.spend(32) {
			break
		}
		row := lineRow{address: entry.Address, file: numbers[entry.File], line: int32(min(entry.Line, 1<<31-1))}
		if entry.EndSequence {
			row.file = -1
		}
		u.rows = append(u.rows, row)
	}
	for _, f := range lines.Files() {
		name := ""
		if f != nil {
			name = f.Name
		}
		if name != "" && !path.IsAbs(name) && path.IsAbs(u.directory) {
			name = path.Join(u.directory, name)
		}
		u.files = append(u.files, name)
	}
	// A sequence that ends where another begins gives way to it.
	slices.SortStableFunc(u.rows, func(a, b lineRow) int {
		return cmp.Or(cmp.Compare(a.address, b.address), cmp.Compare(min(a.file, 0), min(b.file, 0)))
	})
}

// dwarfFrames returns the frames of an address with source lines and inlined
// calls. symbol is the name that the symbol table gives the function, which
// is preferred for the physical function.
func (c *cursor) dwarfFrames(address uint64, symbol string) []Frame {
	d := c.o.dwarf()
	if d == nil {
		return nil
	}
	var frames []Frame
	d.unitsAt(address, func(u *dwarfUnit) bool {
		frames = u.frames(address, symbol)
		return len(frames) > 0
	})
	return frames
}

func (u *dwarfUnit) frames(address uint64, symbol string) []Frame {
	scope := u.function(address)
	if scope == nil && symbol == "" {
		return nil
	}
	file, line := u.line(address)
	name := symbol
	if name == "" {
		name = scope.name
	}
	var calls []*dwarfScope // inlined ones, outermost first
	for scope != nil && len(calls) < maxInlined {
		i := slices.IndexFunc(scope.inlined, func(s dwarfScope) bool { return address >= s.start && address < s.end })
		if i < 0 {
			break
		}
		scope = &scope.inlined[i]
		calls = append(calls, scope)
	}
	frames := make([]Frame, 0, len(calls)+1)
	for _, call := range slices.Backward(calls) {
		if call.name != "" {
			frames = append(frames, Frame{call.name, file, line})
		}
		file, line = u.fileName(call.callFile), call.callLine
	}
	if name == "" {
		return nil
	}
	return append(frames, Frame{name, file, line})
}

func (u *dwarfUnit) function(address uint64) *dwarfScope {
	i, _ := slices.BinarySearchFunc(u.functions, address, func(s dwarfScope, a uint64) int {
		if s.start <= a {
			return -1
		}
		return 1
	})
	for n := 0; i > 0 && n < 64 && u.reach[i-1] > address; n++ {
		i--
		if address < u.functions[i].end {
			return &u.functions[i]
		}
	}
	return nil
}

// line returns the source line of an address; line is 0 where the compiler
// attributes the code to none.
func (u *dwarfUnit) line(address uint64) (file string, line int) {
	i, _ := slices.BinarySearchFunc(u.rows, address, func(r lineRow, a uint64) int {
		if r.address <= a {
			return -1
		}
		return 1
	})
	if i == 0 || u.rows[i-1].file < 0 || u.rows[i-1].line == 0 {
		return "", 0
	}
	return u.fileName(int(u.rows[i-1].file)), int(u.rows[i-1].line)
}

func (u *dwarfUnit) fileName(i int) string {
	if i < 0 || i >= len(u.files) {
		return ""
	}
	return u.files[i]
}
