package symbolize

import (
	"debug/elf"
	"slices"
)

// goModule is what is read of runtime.moduledata (runtime/symtab.go): where
// the code begins, and where funcdata, with the trees of inlined calls, may lie.
type goModule struct {
	text  uint64
	words []uint64 // of the structure, relocated
}

// Offsets in moduledata of Go 1.18 to 1.26, in words. The structure begins with
// a pointer to the pclntab's header and slices of its five sub-tables.
const (
	moduleText   = 22
	moduleGofunc = 40 // since Go 1.20; found by trial in others
	moduleWords  = 80
)

// moduleSlices are the words with the pointers of the slices funcnametab,
// cutab, filetab, pctab and pclntable, in the order of the header's offsets.
var moduleSlices = [5]int{1, 4, 7, 10, 13}

// findModule finds the moduledata that belongs to a pclntab: the place whose
// pointers lead to the table's header and sub-tables. In a position independent
// program they are relative relocations, elsewhere they stand in the data.
func (o *Object) findModule(t *goTable) *goModule {
	var candidates []uint64
	relocations := o.relativeRelocations()
	for _, r := range relocations {
		if r.addend == t.address && len(candidates) < 256 {
			candidates = append(candidates, r.address)
		}
	}
	for _, s := range o.segments {
		if !s.Write || s.FileSize < 8*moduleWords {
			continue
		}
		b, err := o.readFile(s.Offset, min(s.FileSize, maxTable))
		if err != nil {
			continue
		}
		skew := int(-s.Address & 7)
		for at := skew; at+8 <= len(b); at += 8 {
			if le.Uint64(b[at:]) == t.address && len(candidates) < 512 {
				candidates = append(candidates, s.Address+uint64(at))
			}
		}
	}
	for _, c := range candidates {
		if m := o.readModule(t, c, relocations); m != nil {
			return m
		}
	}
	return nil
}

// readModule reads the moduledata at an address and checks that it is the
// table's.
func (o *Object) readModule(t *goTable, address uint64, relocations []relocation) *goModule {
	b, err := o.ReadAddress(address, 8*moduleWords)
	if err != nil || len(b) < 8*(moduleGofunc+1) {
		return nil
	}
	words := make([]uint64, len(b)/8)
	for i := range words {
		words[i] = le.Uint64(b[8*i:])
	}
	at, _ := slices.BinarySearchFunc(relocations, address, compareRelocation)
	for ; at < len(relocations); at++ {
		d := relocations[at].address - address
		if d >= uint64(8*len(words)) {
			break
		}
		if d%8 == 0 {
			words[d/8] = relocations[at].addend
		}
	}
	for i, w := range moduleSlices {
		if words[w] != t.address+t.offsets[i] {
			return nil
		}
	}
	if o.executableEnd(words[moduleText]) == 0 {
		return nil
	}
	return &goModule{text: words[moduleText], words: words}
}

// findInlineData returns the address of go:func.*, relative to which functions
// name their inline trees. Where moduledata keeps it differs between versions
// of Go, so the known place is tried first and then the others; the trees
// themselves show which one is right.
func (t *goTable) findInlineData(m *goModule) uint64 {
	if t.plausible(m.words[moduleGofunc]) {
		return m.words[moduleGofunc]
	}
	for _, w := range m.words[moduleText+2:] {
		if t.plausible(w) {
			return w
		}
	}
	return 0
}

// plausible reports whether a sample of the functions has sound inline trees
// if funcdata is at the address.
func (t *goTable) plausible(inline uint64) bool {
	if _, err := t.o.FileOffset(inline); err != nil {
		return false
	}
	try := *t
	try.inline = inline
	var buf []run
	checked := 0
	step := max(1, t.funcs/2000)
	for i := 0; i < t.funcs && checked < 40; i += step {
		f, ok := try.function(i)
		if !ok || f.inlineTree == 0 {
			continue
		}
		buf = try.runs(buf, f.inlineTree, &f)
		last := int32(-1)
		for _, r := range buf {
			last = max(last, r.value)
		}
		if last < 0 || last > 1<<16 {
			continue
		}
		tree, ok := try.tree(&f, last+1)
		if !ok {
			return false
		}
		for _, c := range tree {
			if uint64(c.name) >= uint64(len(t.names)) || c.name > 0 && t.names[c.name-1] != 0 ||
				t.names[c.name] == 0 || uint64(c.parent) >= f.end-f.entry {
				return false
			}
		}
		checked++
	}
	return checked > 0
}

// inlinedCall is an entry of an inline tree (runtime/symtabinl.go):
// funcID u8, 3 bytes of padding, nameOff i32, parentPc i32, startLine i32.
type inlinedCall struct {
	name   uint32 // offset in the name table
	parent uint32 // offset from the entry of an instruction at the call site
}

const inlinedCallSize = 16

// tree reads the first n entries of a function's inline tree.
func (t *goTable) tree(f *goFunc, n int32) ([]inlinedCall, bool) {
	if n <= 0 || n > 1<<16 {
		return nil, false
	}
	want := uint64(n) * inlinedCallSize
	b, err := t.o.ReadAddress(t.inline+uint64(f.treeOffset), want)
	if err != nil || uint64(len(b)) < want {
		return nil, false
	}
	calls := make([]inlinedCall, n)
	for i := range calls {
		e := b[i*inlinedCallSize:]
		calls[i] = inlinedCall{name: le.Uint32(e[4:]), parent: le.Uint32(e[8:])}
	}
	return calls, true
}

// relocation is a relative relocation with its addend: a pointer into the
// object itself.
type relocation struct{ address, addend uint64 }

func compareRelocation(r relocation, address uint64) int {
	switch {
	case r.address < address:
		return -1
	case r.address > address:
		return 1
	}
	return 0
}

// relativeRelocations returns DT_RELA's relative relocations, by address.
// Those of DT_RELR need none: their addends stand in the data.
func (o *Object) relativeRelocations() []relocation {
	var table, size uint64
	o.dynamic(func(tag elf.DynTag, value uint64) {
		switch tag {
		case elf.DT_RELA:
			table = value
		case elf.DT_RELASZ:
			size = value
		}
	})
	if table == 0 || size == 0 || size > maxTable {
		return nil
	}
	b, err := o.ReadAddress(table, size)
	if err != nil {
		return nil
	}
	var relative uint32
	switch o.file.Machine {
	case elf.EM_X86_64:
		relative = uint32(elf.R_X86_64_RELATIVE)
	case elf.EM_AARCH64:
		relative = uint32(elf.R_AARCH64_RELATIVE)
	default:
		return nil
	}
	var relocations []relocation
	for ; len(b) >= 24; b = b[24:] {
		if uint32(le.Uint64(b[8:])) == relative {
			relocations = append(relocations, relocation{le.Uint64(b), le.Uint64(b[16:])})
		}
	}
	slices.SortStableFunc(relocations, func(a, b relocation) int { return compareRelocation(a, b.address) })
	return relocations
}
