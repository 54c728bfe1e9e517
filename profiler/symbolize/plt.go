package symbolize

import (
	"debug/elf"
	"strings"
)

// maxPLT bounds the entries of one procedure linkage table.
const maxPLT = 1 << 20

// addPLT names the stubs of the procedure linkage tables, "malloc@plt". No
// table lists them: each stub jumps through a slot, and a relocation says which
// symbol fills that slot. The instructions are decoded, since the layout
// differs between linkers and with branch protection.
func (o *Object) addPLT(t *symbolTable) {
	var stubs []*elf.Section
	for _, s := range o.file.Sections {
		if strings.HasPrefix(s.Name, ".plt") && s.Type == elf.SHT_PROGBITS && s.Flags&elf.SHF_EXECINSTR != 0 && len(stubs) < 8 {
			stubs = append(stubs, s)
		}
	}
	if len(stubs) == 0 {
		return
	}
	slots := o.slots()
	for _, s := range stubs {
		b, err := o.readFile(s.Offset, min(s.FileSize, 16*maxPLT))
		if err != nil {
			continue
		}
		switch o.file.Machine {
		case elf.EM_X86_64:
			addX86Stubs(t, s, b, slots)
		case elf.EM_AARCH64:
			addARM64Stubs(t, s, b, slots)
		}
	}
}

// slots returns the symbols that relocations put into slots, by address.
func (o *Object) slots() map[uint64]string {
	slots := map[uint64]string{}
	for _, s := range o.file.Sections {
		if s.Type != elf.SHT_RELA || int(s.Link) >= len(o.file.Sections) || s.Link == 0 {
			continue
		}
		symtab := o.file.Sections[s.Link]
		if symtab.Type != elf.SHT_DYNSYM || symtab.Link == 0 || int(symtab.Link) >= len(o.file.Sections) {
			continue
		}
		relocations, err1 := o.readFile(s.Offset, s.FileSize)
		symbols, err2 := o.readFile(symtab.Offset, symtab.FileSize)
		names, err3 := o.readFile(o.file.Sections[symtab.Link].Offset, o.file.Sections[symtab.Link].FileSize)
		if err1 != nil || err2 != nil || err3 != nil {
			continue
		}
		for ; len(relocations) >= 24 && len(slots) < maxPLT; relocations = relocations[24:] {
			info := le.Uint64(relocations[8:])
			at := (info >> 32) * elf.Sym64Size
			if at == 0 || at+elf.Sym64Size > uint64(len(symbols)) || !isSlot(o.file.Machine, uint32(info)) {
				continue
			}
			if n := le.Uint32(symbols[at:]); uint64(n) < uint64(len(names)) {
				rest := names[n:]
				if name := cString(rest[:min(len(rest), 4096)]); name != "" {
					slots[le.Uint64(relocations)] = name
				}
			}
		}
	}
	return slots
}

func isSlot(machine elf.Machine, relocation uint32) bool {
	switch machine {
	case elf.EM_X86_64:
		r := elf.R_X86_64(relocation)
		return r == elf.R_X86_64_JMP_SLOT || r == elf.R_X86_64_GLOB_DAT
	case elf.EM_AARCH64:
		r := elf.R_AARCH64(relocation)
		return r == elf.R_AARCH64_JUMP_SLOT || r == elf.R_AARCH64_GLOB_DAT
	}
	return false
}

// addX86Stubs finds jmp *disp32(%rip), ff 25, in stubs of 8 or 16 bytes.
func addX86Stubs(t *symbolTable, s *elf.Section, b []byte, slots map[uint64]string) {
	size := 16
	if s.Entsize == 8 || s.Name == ".plt.got" && s.Size%16 != 0 {
		size = 8
	}
	for at := 0; at+8 <= len(b); at += size {
		for i := at; i+6 <= min(at+size, len(b)); i++ {
			if b[i] != 0xff || b[i+1] != 0x25 {
				continue
			}
			slot := s.Addr + uint64(i) + 6 + uint64(int64(int32(le.Uint32(b[i+2:]))))
			if name := slots[slot]; name != "" {
				t.addName(s.Addr+uint64(at), uint64(size), name+pltSuffix)
			}
			break
		}
	}
}

// addARM64Stubs finds adrp x16, page; ldr x17, [x16, #offset]. A stub begins
// there, or at a bti c before it, and has 16 bytes, or 24 with protection.
func addARM64Stubs(t *symbolTable, s *elf.Section, b []byte, slots map[uint64]string) {
	type stub struct {
		start uint64
		name  string
	}
	var stubs []stub
	for at := 0; at+8 <= len(b); at += 4 {
		adrp, ldr := le.Uint32(b[at:]), le.Uint32(b[at+4:])
		if adrp&0x9f00001f != 0x90000010 || ldr&0xffc003ff != 0xf9400211 {
			continue
		}
		pages := int64(int32(adrp>>5&0x7ffff<<13))>>11 | int64(adrp>>29&3)
		pc := s.Addr + uint64(at)
		slot := pc&^4095 + uint64(pages<<12) + uint64(ldr>>10&0xfff)*8
		name := slots[slot]
		if name == "" {
			continue
		}
		if at >= 4 && le.Uint32(b[at-4:]) == 0xd503245f {
			pc -= 4
		}
		stubs = append(stubs, stub{pc, name})
	}
	for i, st := range stubs {
		end := s.Addr + uint64(len(b))
		if i+1 < len(stubs) {
			end = stubs[i+1].start
		}
		t.addName(st.start, min(end-st.start, 24), st.name+pltSuffix)
	}
}
