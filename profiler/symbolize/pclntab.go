package symbolize

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"sort"
	"strings"
)

// Magic numbers of a pclntab (internal/abi/symtab.go of the Go tree).
const (
	go118Magic = 0xfffffff0 // Go 1.18, 1.19
	go120Magic = 0xfffffff1 // Go 1.20 and later
)

// goTable is the pclntab of a Go program: the table that its runtime unwinds
// and prints stacks with, and that stripping leaves in place.
//
// debug/gosym reads it too, but knows nothing of inlined calls, and reads
// hostile tables without bounds.
type goTable struct {
	o         *Object
	data      []byte // from the header on
	address   uint64 // of the header
	quantum   uint32 // pc deltas are multiples of it
	textStart uint64 // function entries are offsets from it
	funcs     int

	names, units, files, pcs, table []byte // the sub-tables, each to the end of data
	offsets                         [5]uint64

	startLines bool   // whether _func has a startLine (Go 1.20)
	inline     uint64 // address of go:func.*, 0 if unknown: no inlined calls then
}

var errNoPclntab = errors.New("no pclntab")

// goTable returns the object's pclntab, nil if it has none.
func (o *Object) goTable() *goTable {
	o.goOnce.Do(func() {
		defer func() {
			if p := recover(); p != nil {
				o.fault(fmt.Errorf("pclntab: %v", p))
				o.goTab = nil
			}
		}()
		t, err := o.readGoTable()
		switch {
		case err == nil:
			o.goTab = t
		case !errors.Is(err, errNoPclntab):
			o.fault(fmt.Errorf("pclntab: %w", err))
		}
	})
	return o.goTab
}

func (o *Object) readGoTable() (*goTable, error) {
	// PIE puts it into .data.rel.ro while it needs a relocation (its header
	// held textStart until Go 1.25).
	for _, name := range []string{".gopclntab", ".data.rel.ro.gopclntab"} {
		s := o.section(name, elf.SHT_NULL)
		if s == nil {
			continue
		}
		b, err := o.sectionBytes(s)
		if err != nil {
			return nil, err
		}
		return newGoTable(o, b, s.Addr)
	}
	// External linkers may merge it into .data.rel.ro, and sections can be
	// stripped altogether.
	return o.scanGoTable()
}

// scanGoTable looks for the header of a pclntab in the file's segments.
func (o *Object) scanGoTable() (*goTable, error) {
	if s := o.file.Section(".go.buildinfo"); s == nil && len(o.file.Sections) > 0 {
		return nil, errNoPclntab
	}
	left, chunks := maxCandidates, maxTable/scanChunk
	for _, s := range o.segments {
		for at := uint64(0); at+72 <= s.FileSize && chunks > 0; at += scanChunk {
			chunks--
			b, err := o.readFile(s.Offset+at, min(s.FileSize-at, scanChunk+8))
			if err != nil {
				break
			}
			for _, i := range goHeaders(b, s.Address+at) {
				if left--; left < 0 {
					return nil, errNoPclntab
				}
				from := at + uint64(i)
				whole, err := o.readFile(s.Offset+from, min(s.FileSize-from, maxTable))
				if err != nil {
					continue
				}
				if t, err := newGoTable(o, whole, s.Address+from); err == nil {
					return t, nil
				}
			}
		}
	}
	return nil, errNoPclntab
}

// Bounds on the search for a pclntab: what is read at once, and how many places
// that look like its header are looked at.
const (
	scanChunk     = 1 << 20
	maxCandidates = 4
)

// goHeaders returns where in b, which stands at an address, the first 8 bytes
// are those of a pclntab's header.
func goHeaders(b []byte, address uint64) []int {
	var found []int
	for _, magic := range []uint32{go120Magic, go118Magic} {
		want := append(le.AppendUint32(nil, magic), 0, 0)
		for at := 0; at+8 <= len(b); at += len(want) {
			i := bytes.Index(b[at:], want)
			if i < 0 || at+i+8 > len(b) {
				break
			}
			at += i
			if (address+uint64(at))%8 == 0 && b[at+7] == 8 {
				found = append(found, at)
			}
		}
	}
	return found
}

// newGoTable reads the header:
//
//	magic u32, 0, 0, quantum u8, pointer size u8,
//	nfunc, nfiles, textStart (unused since Go 1.26), funcname, cu, filetab, pctab, pcln uintptr
func newGoTable(o *Object, b []byte, address uint64) (*goTable, error) {
	if len(b) < 72 {
		return nil, fmt.Errorf("%d bytes are too few", len(b))
	}
	magic := le.Uint32(b)
	if magic != go118Magic && magic != go120Magic {
		return nil, fmt.Errorf("unknown version %#x: Go 1.18 and later are read", magic)
	}
	t := &goTable{o: o, data: b, address: address, quantum: uint32(b[6]), startLines: magic == go120Magic}
	if b[4] != 0 || b[5] != 0 || t.quantum != 1 && t.quantum != 2 && t.quantum != 4 || b[7] != 8 {
		return nil, errors.New("malformed header")
	}
	word := func(i int) uint64 { return le.Uint64(b[8+8*i:]) }
	for i, sub := range []*[]byte{&t.names, &t.units, &t.files, &t.pcs, &t.table} {
		off := word(3 + i)
		if off > uint64(len(b)) {
			return nil, fmt.Errorf("sub-table %d lies behind the end", i)
		}
		t.offsets[i] = off
		*sub = b[off:]
	}
	nfunc := word(0)
	if nfunc == 0 || nfunc > uint64(len(t.table)-4)/8 || len(t.table) < 12 {
		return nil, fmt.Errorf("%d functions do not fit", nfunc)
	}
	t.funcs = int(nfunc)
	m := o.findModule(t)
	switch text := o.file.Section(".text"); {
	case m != nil:
		t.textStart = m.text
	case word(2) != 0:
		t.textStart = word(2)
	case text != nil:
		t.textStart = text.Addr
	default:
		return nil, errors.New("the address of its code is not known: no moduledata")
	}
	if o.executableEnd(t.textStart) == 0 {
		return nil, fmt.Errorf("its code is said to be at %#x, where no code is", t.textStart)
	}
	if m != nil && magic == go120Magic {
		t.inline = t.findInlineData(m)
	}
	return t, nil
}

// entry returns the address of function i; entry(funcs) is the end of the last.
func (t *goTable) entry(i int) uint64 {
	return t.textStart + uint64(le.Uint32(t.table[8*i:]))
}

// findFunc returns the index of the function that holds an address, or -1.
func (t *goTable) findFunc(address uint64) int {
	if address < t.entry(0) || address >= t.entry(t.funcs) {
		return -1
	}
	return sort.Search(t.funcs, func(i int) bool { return t.entry(i) > address }) - 1
}

// goFunc is a decoded _func (runtime/runtime2.go).
type goFunc struct {
	entry, end uint64
	name       uint32 // offset in names
	unit       uint32 // index of its compilation unit's first file in units
	file, line uint32 // offsets in pcs of the tables pc → file number, line
	stack      uint32 // offset in pcs of the table pc → how far the stack pointer was moved
	inlineTree uint32 // offset in pcs of the table pc → index in the inline tree; 0 if none
	treeOffset uint32 // of the inline tree from go:func.*; valid if inlineTree != 0
}

const (
	pcdataInlineTree   = 2 // abi.PCDATA_InlTreeIndex
	funcdataInlineTree = 3 // abi.FUNCDATA_InlTree
)

// function decodes function i. ok is false if it is malformed.
func (t *goTable) function(i int) (f goFunc, ok bool) {
	if i < 0 || i >= t.funcs {
		return f, false
	}
	off := uint64(le.Uint32(t.table[8*i+4:]))
	fixed := uint64(40)
	if t.startLines {
		fixed = 44
	}
	if off+fixed > uint64(len(t.table)) {
		return f, false
	}
	b := t.table[off:]
	f = goFunc{
		entry: t.entry(i), end: t.entry(i + 1), name: le.Uint32(b[4:]),
		stack: le.Uint32(b[16:]), file: le.Uint32(b[20:]), line: le.Uint32(b[24:]), unit: le.Uint32(b[32:]),
	}
	if f.end < f.entry {
		return f, false
	}
	npcdata, nfuncdata := uint64(le.Uint32(b[28:])), uint64(b[fixed-1])
	if npcdata > 64 || fixed+4*(npcdata+nfuncdata) > uint64(len(b)) {
		return f, true
	}
	if t.inline != 0 && npcdata > pcdataInlineTree && nfuncdata > funcdataInlineTree {
		tree := le.Uint32(b[fixed+4*(npcdata+funcdataInlineTree):])
		if tree != ^uint32(0) {
			f.inlineTree = le.Uint32(b[fixed+4*pcdataInlineTree:])
			f.treeOffset = tree
		}
	}
	return f, true
}

// run is a stretch of a function's code over which a value holds.
type run struct {
	end   uint32 // first offset from the entry that is behind it
	value int32
}

// runs decodes a table pc → value (runtime/symtab.go, step) into dst. It
// returns an empty slice for a missing or malformed table.
func (t *goTable) runs(dst []run, off uint32, f *goFunc) []run {
	dst = dst[:0]
	if off == 0 || uint64(off) >= uint64(len(t.pcs)) {
		return dst
	}
	p := t.pcs[off:]
	size := f.end - f.entry
	pc, value := uint64(0), int32(-1)
	for first := true; pc < size; first = false {
		u, n := uvarint32(p)
		if n == 0 || u == 0 && !first {
			break
		}
		p = p[n:]
		value += int32(-(u & 1) ^ (u >> 1))
		d, n := uvarint32(p)
		if n == 0 || d == 0 {
			break
		}
		p = p[n:]
		pc += uint64(d) * uint64(t.quantum)
		if pc > 1<<31 {
			break
		}
		dst = append(dst, run{end: uint32(pc), value: value})
	}
	if !t.o.work.spend(len(dst)) {
		return dst[:0]
	}
	return dst
}

// valueAt returns the value at an offset from the function's entry, -1 if
// there is none.
func valueAt(runs []run, pc uint32) int32 {
	i := sort.Search(len(runs), func(i int) bool { return runs[i].end > pc })
	if i == len(runs) {
		return -1
	}
	return runs[i].value
}

// uvarint32 decodes a varint of at most 32 bits; n is 0 if it does not end.
func uvarint32(p []byte) (v uint32, n int) {
	for n < 5 && n < len(p) {
		b := p[n]
		v |= uint32(b&0x7f) << (7 * n)
		n++
		if b&0x80 == 0 {
			return v, n
		}
	}
	return 0, 0
}

// funcName returns the name at an offset of the name table.
func (t *goTable) funcName(off uint32) string {
	if uint64(off) >= uint64(len(t.names)) {
		return ""
	}
	b := t.names[off:]
	return cString(b[:min(len(b), 64<<10)])
}

// shownName is a function's name as Go's own stacks and profiles show it: the
// type arguments of an instance, which are its shapes, become "[...]".
func shownName(name string) string {
	i := strings.IndexByte(name, '[')
	j := strings.LastIndexByte(name, ']')
	if i < 0 || j <= i {
		return name
	}
	return name[:i] + "[...]" + name[j+1:]
}

// fileName returns the file of a number in a function's compilation unit.
func (t *goTable) fileName(unit uint32, number int32) string {
	at := (uint64(unit) + uint64(uint32(number))) * 4
	if number < 0 || at+4 > uint64(len(t.units)) {
		return ""
	}
	off := le.Uint32(t.units[at:])
	if uint64(off) >= uint64(len(t.files)) {
		return ""
	}
	b := t.files[off:]
	return cString(b[:min(len(b), 64<<10)])
}
