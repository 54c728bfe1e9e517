package symbolize

import (
	"cmp"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
)

var le = binary.LittleEndian

// symbol is one function of a symbol table. Its name lies in the string table
// number table at offset name.
type symbol struct {
	address uint64
	size    uint64
	name    uint32
	table   uint8
	rank    uint8 // among symbols of one address: the higher is the better name
}

// symbolTable holds the functions of .symtab, .dynsym and others, sorted by
// address, one for each address.
type symbolTable struct {
	strings [][]byte
	symbols []symbol
	reach   []uint64 // highest end of symbols[0..i], so that a walk back can stop
	extra   []string // made-up names, in string table number extraTable
}

const (
	maxSymbols = 16 << 20
	extraTable = 255
)

// maxWork bounds the steps through variable-length tables that naming the
// addresses of one object may take: about a second.
const maxWork = 400e6

type workBudget struct{ left atomic.Int64 }

// spend reports whether n more steps may be taken.
func (w *workBudget) spend(n int) bool { return w.left.Add(-int64(n)) >= 0 }

// table returns the object's ELF symbols, read when first needed.
func (o *Object) table() *symbolTable {
	o.symbolsOnce.Do(func() {
		t := &symbolTable{}
		defer func() {
			if p := recover(); p != nil {
				o.fault(fmt.Errorf("symbol table: %v", p))
				t.symbols = nil
			}
			t.finish(o)
			o.symbols = t
		}()
		o.readSymbols(t)
	})
	return o.symbols
}

func (o *Object) readSymbols(t *symbolTable) {
	found := false
	for _, want := range []elf.SectionType{elf.SHT_SYMTAB, elf.SHT_DYNSYM} {
		for _, s := range o.file.Sections {
			if s.Type != want || s.FileSize == 0 || len(t.strings) >= 8 {
				continue
			}
			if s.Link == 0 || int(s.Link) >= len(o.file.Sections) {
				o.fault(fmt.Errorf("section %s has no string table", s.Name))
				continue
			}
			found = true
			symbols, err := o.sectionBytes(s)
			if err == nil {
				var names []byte
				if names, err = o.sectionBytes(o.file.Sections[s.Link]); err == nil {
					t.add(symbols, names)
				}
			}
			if err != nil {
				o.fault(err)
			}
		}
	}
	if !found {
		o.dynamicSymbols(t)
	}
	o.addDebugData(t)
	o.addPLT(t)
}

// add decodes an ELF64 symbol table.
func (t *symbolTable) add(table, names []byte) {
	index := uint8(len(t.strings))
	t.strings = append(t.strings, names)
	for ; len(table) >= elf.Sym64Size; table = table[elf.Sym64Size:] {
		name, info := le.Uint32(table), table[4]
		shndx := elf.SectionIndex(le.Uint16(table[6:]))
		address, size := le.Uint64(table[8:]), le.Uint64(table[16:])
		typ := elf.ST_TYPE(info)
		if shndx == elf.SHN_UNDEF || shndx == elf.SHN_ABS || address == 0 || int64(name) >= int64(len(names)) {
			continue
		}
		// STT_GNU_IFUNC is 10. STT_NOTYPE is what assembly without .type has.
		if typ != elf.STT_FUNC && typ != elf.STT_NOTYPE && typ != elf.STT_GNU_IFUNC {
			continue
		}
		first := names[name]
		// $x, $d: where arm64 code and data begin (AAELF64), no functions.
		if first == 0 || typ == elf.STT_NOTYPE && (first == '$' || first == '.') {
			continue
		}
		if size == 0 && endOfText(names[name:]) {
			continue
		}
		if len(t.symbols) == maxSymbols {
			return
		}
		t.symbols = append(t.symbols, symbol{
			address: address, size: size, name: name, table: index, rank: rank(typ, elf.ST_BIND(info), size, first),
		})
	}
}

// endOfText tells labels of linkers that end the code and name none of it.
func endOfText(name []byte) bool {
	switch cString(name[:min(len(name), 16)]) {
	case "etext", "_etext", "__etext", "runtime.etext":
		return true
	}
	return false
}

// rank prefers functions to labels, sized to unsized, global to local, and
// names without the underscore of an internal alias.
func rank(typ elf.SymType, bind elf.SymBind, size uint64, first byte) uint8 {
	var r uint8
	if typ != elf.STT_NOTYPE {
		r |= 16
	}
	if size > 0 {
		r |= 8
	}
	switch bind {
	case elf.STB_GLOBAL:
		r |= 4
	case elf.STB_WEAK:
		r |= 2
	}
	if first != '_' {
		r |= 1
	}
	return r
}

// addName adds a function that no symbol table has.
func (t *symbolTable) addName(address, size uint64, name string) {
	if len(t.symbols) == maxSymbols {
		return
	}
	t.symbols = append(t.symbols, symbol{address: address, size: size, name: uint32(len(t.extra)), table: extraTable})
	t.extra = append(t.extra, name)
}

// finish sorts, keeps the best symbol of each address, and lets symbols
// without a size reach to the next symbol or the end of their segment.
func (t *symbolTable) finish(o *Object) {
	slices.SortFunc(t.symbols, func(a, b symbol) int {
		return cmp.Or(cmp.Compare(a.address, b.address), -cmp.Compare(a.rank, b.rank),
			cmp.Compare(a.table, b.table), cmp.Compare(a.name, b.name))
	})
	t.symbols = slices.CompactFunc(t.symbols, func(a, b symbol) bool { return a.address == b.address })
	t.symbols = slices.Clip(t.symbols)
	t.reach = make([]uint64, len(t.symbols))
	var reach uint64
	for i := range t.symbols {
		s := &t.symbols[i]
		if s.size == 0 {
			end := o.executableEnd(s.address)
			if i+1 < len(t.symbols) {
				end = min(end, t.symbols[i+1].address)
			}
			if end > s.address {
				s.size = end - s.address
			}
		}
		if s.address+s.size < s.address {
			s.size = 0
		}
		reach = max(reach, s.address+s.size)
		t.reach[i] = reach
	}
}

// codeRange is the address range of executable bytes.
type codeRange struct{ start, end uint64 }

// executableEnd returns the end of the code that holds an address: of its
// section if it has one, else of its segment; 0 if it is no code.
func (o *Object) executableEnd(address uint64) uint64 {
	for _, c := range o.code {
		if address >= c.start && address < c.end {
			return c.end
		}
	}
	return 0
}

// findCode lists the executable sections and, behind them, segments.
func (o *Object) findCode() {
	const most = 64
	for _, s := range o.file.Sections {
		if s.Flags&elf.SHF_EXECINSTR != 0 && s.Addr+s.Size > s.Addr && len(o.code) < most {
			o.code = append(o.code, codeRange{s.Addr, s.Addr + s.Size})
		}
	}
	for _, s := range o.segments {
		if s.Exec && s.Address+s.MemSize > s.Address && len(o.code) < 2*most {
			o.code = append(o.code, codeRange{s.Address, s.Address + s.MemSize})
		}
	}
}

// find returns the innermost symbol that holds an address. It walks back over
// nested symbols, a bounded way.
func (t *symbolTable) find(address uint64) (symbol, bool) {
	i, exact := slices.BinarySearchFunc(t.symbols, address, func(s symbol, a uint64) int {
		return cmp.Compare(s.address, a)
	})
	if !exact {
		i--
	}
	for n := 0; i >= 0 && n < 64 && t.reach[i] > address; i, n = i-1, n+1 {
		if s := t.symbols[i]; address-s.address < s.size {
			return s, true
		}
	}
	return symbol{}, false
}

// name returns a symbol's name as it stands in the table, without its version.
func (t *symbolTable) name(s symbol) string {
	if s.table == extraTable {
		return t.extra[s.name]
	}
	names := t.strings[s.table][s.name:]
	name := cString(names[:min(len(names), 64<<10)])
	if i := strings.Index(name, "@"); i > 0 {
		name = name[:i]
	}
	return name
}

// dynamicSymbols reads .dynsym through PT_DYNAMIC, for objects without section
// headers. The table's size is not recorded: it ends where the string table
// begins, as every linker lays it out.
func (o *Object) dynamicSymbols(t *symbolTable) {
	var symtab, strtab, strsz uint64
	o.dynamic(func(tag elf.DynTag, value uint64) {
		switch tag {
		case elf.DT_SYMTAB:
			symtab = value
		case elf.DT_STRTAB:
			strtab = value
		case elf.DT_STRSZ:
			strsz = value
		}
	})
	if symtab == 0 || strtab <= symtab || strtab-symtab > maxTable || strsz > maxTable {
		return
	}
	symbols, err := o.ReadAddress(symtab, strtab-symtab)
	if err != nil {
		o.fault(fmt.Errorf("dynamic symbols: %w", err))
		return
	}
	names, err := o.ReadAddress(strtab, strsz)
	if err != nil {
		o.fault(fmt.Errorf("dynamic symbols: %w", err))
		return
	}
	t.add(symbols, names)
}
