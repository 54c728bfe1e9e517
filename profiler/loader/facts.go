package loader

import (
	"debug/elf"
	"fmt"
	"math/bits"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/symbolize"
)

// Bounds on an object's dynamic section and relocations. Chromium, which is
// larger than any extension, has 0.7 million relocations and 2,000 PLT entries.
const (
	maxRelocations = 4 << 20 // 96 MB of them
	maxNamed       = 1 << 18 // symbols whose names are kept
	maxStrings     = 64 << 20
	maxNeeded      = 4096
	maxName        = 4096
)

// RELRO is how much of the relocated data is made read-only at start.
type RELRO string

// The degrees of RELRO. With full RELRO, which needs BIND_NOW, the PLT's table
// of addresses is read-only too.
const (
	NoRELRO      RELRO = "none"
	PartialRELRO RELRO = "partial"
	FullRELRO    RELRO = "full"
)

// Counts are an object's dynamic relocations by what the loader does for each.
type Counts struct {
	Relative  int // add the load address: no symbol is looked up
	RELR      int // the same, from the compact table
	GlobDat   int // an address looked up when the object is relocated
	JumpSlot  int // a function, looked up at its first call unless bound eagerly
	IRelative int // a resolver of the object is called
	TLS       int // DTPMOD, DTPOFF, TPOFF, TLSDESC
	Copy      int
	Symbolic  int // an address looked up into a word of data
	Other     int
}

// Total is the number of all relocations.
func (c Counts) Total() int {
	return c.Relative + c.RELR + c.GlobDat + c.JumpSlot + c.IRelative + c.TLS + c.Copy + c.Symbolic + c.Other
}

// Lookups is the number of relocations for which a symbol is looked up.
func (c Counts) Lookups() int { return c.GlobDat + c.JumpSlot + c.Copy + c.Symbolic + c.TLS }

// PLTEntry is one entry of DT_JMPREL, by whose index _dl_fixup is called.
type PLTEntry struct {
	Symbol string // empty if it has none, as IRELATIVE has none
	Lazy   bool   // JUMP_SLOT or TLSDESC: bound at first use unless bound eagerly
}

// Facts are what an object's headers and dynamic section ask of the loader.
type Facts struct {
	Dynamic bool // it has a dynamic section
	PIE     bool // a program that is position independent
	Program bool // it is a program and no library

	Interpreter, Soname string
	Needed              []string
	RunPath             string

	BindNow  bool // all symbols are bound at start: DF_BIND_NOW, DF_1_NOW or DT_BIND_NOW
	RELRO    RELRO
	TextRel  bool // the code itself is relocated
	Counts   Counts
	Preinit  int // entries of preinit_array, init_array
	Init     int
	InitFunc bool // DT_INIT

	PLT      []PLTEntry // in the order of DT_JMPREL
	GlobDats []string   // symbols of the GLOB_DAT relocations, in their order

	Warnings []string
}

// tables are what the dynamic section tells of the object's tables.
type tables struct {
	rela, relaSize, jmprel, jmprelSize, relr, relrSize uint64
	symtab, strtab, strSize                            uint64
}

// FactsOf reads the facts of an object, through PT_DYNAMIC, or through its
// section headers if it has none, as static programs have none.
func FactsOf(o *symbolize.Object) (f *Facts, err error) {
	// debug/elf promises no resistance to hostile files.
	defer func() {
		if p := recover(); p != nil {
			f, err = nil, fmt.Errorf("malformed object: %v", p)
		}
	}()
	types, ok := relocationTypes[o.Info.Machine]
	if !ok {
		return nil, fmt.Errorf("an object for %s: only amd64 and arm64 are known", o.Info.Machine)
	}
	f = &Facts{Interpreter: o.Info.Interpreter, RELRO: NoRELRO}
	r := &relocationReader{o: o, facts: f, types: types}
	r.readDynamic()
	if f.Dynamic {
		r.readTables()
	} else {
		r.readSections()
	}
	_, _, relro := o.Program(elf.PT_GNU_RELRO)
	switch {
	case relro && f.BindNow:
		f.RELRO = FullRELRO
	case relro:
		f.RELRO = PartialRELRO
	}
	return f, nil
}

type relocationReader struct {
	o        *symbolize.Object
	facts    *Facts
	types    map[uint32]relocationKind
	tables   tables
	strings  []byte
	symbols  []byte
	globDats []uint32 // symbol indices
	plt      []pltReloc
	left     int // relocations that may still be read
}

type pltReloc struct {
	symbol uint32
	lazy   bool
}

func (r *relocationReader) warn(format string, args ...any) {
	if len(r.facts.Warnings) < 16 {
		r.facts.Warnings = append(r.facts.Warnings, fmt.Sprintf(format, args...))
	}
}

func (r *relocationReader) readDynamic() {
	f, t := r.facts, &r.tables
	var needed []uint64
	var soname, runpath, flags, flags1 uint64
	r.o.Dynamic(func(tag elf.DynTag, value uint64) {
		f.Dynamic = true
		switch tag {
		case elf.DT_RELA:
			t.rela = value
		case elf.DT_RELASZ:
			t.relaSize = value
		case elf.DT_JMPREL:
			t.jmprel = value
		case elf.DT_PLTRELSZ:
			t.jmprelSize = value
		case dtRELR:
			t.relr = value
		case dtRELRSZ:
			t.relrSize = value
		case elf.DT_SYMTAB:
			t.symtab = value
		case elf.DT_STRTAB:
			t.strtab = value
		case elf.DT_STRSZ:
			t.strSize = value
		case elf.DT_NEEDED:
			if len(needed) < maxNeeded {
				needed = append(needed, value)
			}
		case elf.DT_SONAME:
			soname = value
		case elf.DT_RUNPATH, elf.DT_RPATH:
			runpath = value
		case elf.DT_FLAGS:
			flags = value
		case elf.DT_FLAGS_1:
			flags1 = value
		case elf.DT_BIND_NOW:
			f.BindNow = true
		case elf.DT_TEXTREL:
			f.TextRel = true
		case elf.DT_INIT:
			f.InitFunc = value != 0
		case elf.DT_INIT_ARRAYSZ:
			f.Init = int(min(value/8, maxRelocations))
		case elf.DT_PREINIT_ARRAYSZ:
			f.Preinit = int(min(value/8, maxRelocations))
		}
	})
	f.BindNow = f.BindNow || flags&uint64(elf.DF_BIND_NOW) != 0 || flags1&uint64(elf.DF_1_NOW) != 0
	f.TextRel = f.TextRel || flags&uint64(elf.DF_TEXTREL) != 0
	// libc.so.6 has an interpreter too, but it has a name for others to need.
	f.Program = flags1&uint64(elf.DF_1_PIE) != 0 || !r.o.Info.PIE || f.Interpreter != "" && soname == 0
	f.PIE = f.Program && r.o.Info.PIE
	if t.strtab == 0 || t.strSize == 0 {
		return
	}
	b, err := r.o.ReadAddress(t.strtab, min(t.strSize, maxStrings))
	if err != nil {
		r.warn("string table: %v", err)
		return
	}
	r.strings = b
	for _, n := range needed {
		if name := r.str(n); name != "" {
			f.Needed = append(f.Needed, name)
		}
	}
	f.Soname, f.RunPath = r.str(soname), r.str(runpath)
}

// str returns a name of the string table; offset 0 is the empty one.
func (r *relocationReader) str(at uint64) string {
	if at == 0 || at >= uint64(len(r.strings)) {
		return ""
	}
	b := r.strings[at:]
	b = b[:min(len(b), maxName)]
	if i := slices.Index(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}

// readTables counts the relocations of the dynamic section's tables.
func (r *relocationReader) readTables() {
	t := r.tables
	r.left = maxRelocations
	// Some linkers let DT_RELA cover DT_JMPREL at its end.
	if t.jmprelSize > 0 && t.jmprel >= t.rela && t.jmprel-t.rela < t.relaSize {
		t.relaSize = t.jmprel - t.rela
	}
	read := func(what string, address, size uint64, count func([]byte)) {
		if size == 0 {
			return
		}
		b, err := r.o.ReadAddress(address, min(size, 24*maxRelocations))
		switch {
		case err != nil:
			r.warn("%s: %v", what, err)
		case uint64(len(b)) < size:
			r.warn("%s: %d bytes are said to be there, %d are", what, size, len(b))
		}
		count(b)
	}
	read("DT_RELA", t.rela, t.relaSize, func(b []byte) { r.countRela(b, false) })
	read("DT_JMPREL", t.jmprel, t.jmprelSize, func(b []byte) { r.countRela(b, true) })
	read("DT_RELR", t.relr, t.relrSize, r.countRELR)
	r.nameSymbols()
}

// readSections counts the relocations of a static program: its own start-up
// code applies them, which are IRELATIVE.
func (r *relocationReader) readSections() {
	r.left = maxRelocations
	for _, s := range r.o.Sections() {
		if s.Flags&elf.SHF_ALLOC == 0 || s.Type != elf.SHT_RELA && s.Type != shtRELR {
			continue
		}
		b, err := r.o.ReadSection(s, 24*maxRelocations)
		if err != nil {
			r.warn("%v", err)
			continue
		}
		if s.Type == shtRELR {
			r.countRELR(b)
		} else {
			r.countRela(b, false)
		}
	}
	for _, s := range r.o.Sections() {
		switch s.Name {
		case ".init_array":
			r.facts.Init = int(min(s.Size/8, maxRelocations))
		case ".preinit_array":
			r.facts.Preinit = int(min(s.Size/8, maxRelocations))
		}
	}
}

// Of the generic ABI's addition for relative relocations, which debug/elf does
// not name.
const (
	dtRELRSZ elf.DynTag      = 35
	dtRELR   elf.DynTag      = 36
	shtRELR  elf.SectionType = 19
)

// countRELR counts the addresses of a RELR table: an even word is one address,
// an odd one is a map of which of the 63 words behind it are others.
func (r *relocationReader) countRELR(b []byte) {
	for ; len(b) >= 8 && r.left > 0; b = b[8:] {
		n := 1
		if w := le.Uint64(b); w&1 == 1 {
			n = bits.OnesCount64(w) - 1
		}
		r.facts.Counts.RELR += n
		r.left--
	}
}

func (r *relocationReader) countRela(b []byte, plt bool) {
	c := &r.facts.Counts
	for ; len(b) >= 24; b = b[24:] {
		if r.left == 0 {
			r.warn("more than %d relocations: the rest is not counted", maxRelocations)
			return
		}
		r.left--
		info := le.Uint64(b[8:])
		kind, symbol := r.types[uint32(info)], uint32(info>>32)
		switch kind {
		case relative:
			c.Relative++
		case globDat:
			c.GlobDat++
			if len(r.globDats) < maxNamed {
				r.globDats = append(r.globDats, symbol)
			}
		case jumpSlot:
			c.JumpSlot++
		case iRelative:
			c.IRelative++
		case tls, tlsDesc:
			c.TLS++
		case copyRelocation:
			c.Copy++
		case symbolic:
			c.Symbolic++
		default:
			c.Other++
		}
		if plt && len(r.plt) < maxNamed {
			r.plt = append(r.plt, pltReloc{symbol, kind == jumpSlot || kind == tlsDesc})
		}
	}
}

// nameSymbols reads the names of the symbols that were kept.
func (r *relocationReader) nameSymbols() {
	last := uint32(0)
	for _, s := range r.globDats {
		last = max(last, s)
	}
	for _, p := range r.plt {
		last = max(last, p.symbol)
	}
	if last > 0 {
		b, err := r.o.ReadAddress(r.tables.symtab, min((uint64(last)+1)*elf.Sym64Size, maxStrings))
		if err != nil {
			r.warn("DT_SYMTAB: %v", err)
		}
		r.symbols = b
	}
	for _, p := range r.plt {
		r.facts.PLT = append(r.facts.PLT, PLTEntry{Symbol: r.symbol(p.symbol), Lazy: p.lazy})
	}
	for _, s := range r.globDats {
		r.facts.GlobDats = append(r.facts.GlobDats, r.symbol(s))
	}
}

// symbol returns a dynamic symbol's name, without version.
func (r *relocationReader) symbol(i uint32) string {
	at := uint64(i) * elf.Sym64Size
	if i == 0 || at+elf.Sym64Size > uint64(len(r.symbols)) {
		return ""
	}
	return r.str(uint64(le.Uint32(r.symbols[at:])))
}

// LazySymbol returns the name of the symbol that a call of _dl_fixup binds.
// relocArg is its second argument: an index on amd64, and on arm64 the offset
// in bytes of a relocation of 24 bytes.
func (f *Facts) LazySymbol(arch string, relocArg uint64) (string, error) {
	index := relocArg
	if arch == "arm64" {
		if relocArg%24 != 0 {
			return "", fmt.Errorf("reloc_arg %#x is no offset of a relocation", relocArg)
		}
		index /= 24
	}
	if index >= uint64(len(f.PLT)) {
		return "", fmt.Errorf("reloc_arg %#x lies behind the %d entries of DT_JMPREL", relocArg, len(f.PLT))
	}
	return f.PLT[index].Symbol, nil
}

// Lazy is the number of symbols that would be bound at first use if nothing
// asked for eager binding.
func (f *Facts) Lazy() int {
	n := 0
	for _, p := range f.PLT {
		if p.Lazy {
			n++
		}
	}
	return n
}

// Libc tells by the interpreter's name which C library a program is for.
func (f *Facts) Libc() Kind {
	switch {
	case strings.Contains(f.Interpreter, "/ld-linux"):
		return Glibc
	case strings.Contains(f.Interpreter, "/ld-musl-"):
		return Musl
	}
	return Unknown
}

type relocationKind uint8

const (
	other relocationKind = iota
	relative
	globDat
	jumpSlot
	iRelative
	tls
	tlsDesc
	copyRelocation
	symbolic
)

var relocationTypes = map[string]map[uint32]relocationKind{
	"amd64": {
		uint32(elf.R_X86_64_RELATIVE): relative, uint32(elf.R_X86_64_RELATIVE64): relative,
		uint32(elf.R_X86_64_GLOB_DAT): globDat, uint32(elf.R_X86_64_JMP_SLOT): jumpSlot,
		uint32(elf.R_X86_64_IRELATIVE): iRelative, uint32(elf.R_X86_64_DTPMOD64): tls,
		uint32(elf.R_X86_64_DTPOFF64): tls, uint32(elf.R_X86_64_TPOFF64): tls,
		uint32(elf.R_X86_64_TLSDESC): tlsDesc, uint32(elf.R_X86_64_COPY): copyRelocation,
		uint32(elf.R_X86_64_64): symbolic,
	},
	"arm64": {
		uint32(elf.R_AARCH64_RELATIVE): relative, uint32(elf.R_AARCH64_GLOB_DAT): globDat,
		uint32(elf.R_AARCH64_JUMP_SLOT): jumpSlot, uint32(elf.R_AARCH64_IRELATIVE): iRelative,
		uint32(elf.R_AARCH64_TLS_DTPMOD64): tls, uint32(elf.R_AARCH64_TLS_DTPREL64): tls,
		uint32(elf.R_AARCH64_TLS_TPREL64): tls, uint32(elf.R_AARCH64_TLSDESC): tlsDesc,
		uint32(elf.R_AARCH64_COPY): copyRelocation, uint32(elf.R_AARCH64_ABS64): symbolic,
	},
}
