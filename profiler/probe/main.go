package probe

import (
	"encoding/binary"

	"golang.org/x/arch/x86/x86asm"
)

// startSize is how much of a program's entry is looked at: glibc's and musl's
// _start are shorter.
const startSize = 96

// firstCheap returns the first instruction of the straight code at an address
// at which a probe is cheap, or the address itself.
func (p Program) firstCheap(address uint64) uint64 {
	code, err := p.Object.ReadAddress(address, startSize)
	if err != nil {
		return address
	}
	if at, err := p.cheapFrom(code, address); err == nil {
		return at
	}
	return address
}

// findMain finds main by its symbol, or else by what the program's entry, the C
// library's _start, passes first to __libc_start_main.
func (p Program) findMain() (uint64, bool) {
	if address, _, ok := p.Object.LookupFunc("main"); ok {
		return address, true
	}
	code, err := p.Object.ReadAddress(p.Entry, startSize)
	if err != nil {
		return 0, false
	}
	address := uint64(0)
	switch p.Arch {
	case "amd64":
		address = mainAMD64(code, p.Entry)
	case "arm64":
		address = p.mainARM64(code)
	}
	if address == 0 {
		return 0, false
	}
	_, err = p.Object.ReadAddress(address, 4)
	return address, err == nil
}

// mainAMD64 reads "mov $main, %rdi" or "lea main(%rip), %rdi" before a call.
func mainAMD64(code []byte, address uint64) (found uint64) {
	for len(code) > 0 {
		inst, err := x86asm.Decode(code, 64)
		if err != nil || inst.Op == x86asm.CALL || inst.Op == x86asm.JMP {
			return found
		}
		code, address = code[inst.Len:], address+uint64(inst.Len)
		if r, ok := inst.Args[0].(x86asm.Reg); !ok || r != x86asm.RDI && r != x86asm.EDI {
			continue
		}
		found = 0
		switch source := inst.Args[1].(type) {
		case x86asm.Imm:
			if inst.Op == x86asm.MOV {
				found = uint64(source)
			}
		case x86asm.Mem:
			if inst.Op == x86asm.LEA && source.Base == x86asm.RIP {
				found = address + uint64(source.Disp)
			}
		}
	}
	return 0
}

// mainARM64 reads "adrp x0; add x0" or "adrp x0; ldr x0" before a call. Of the
// latter the word in the file must hold the address, which it does not where it
// is relocated.
func (p Program) mainARM64(code []byte) (found uint64) {
	for at := 0; at+4 <= len(code); at += 4 {
		w := binary.LittleEndian.Uint32(code[at:])
		switch {
		case w>>26 == 0x25: // bl
			return found
		case w&0x9f00001f == 0x90000000: // adrp x0
			pages := int64(int32(w<<8)>>13)<<2 | int64(w>>29&3)
			found = (p.Entry+uint64(at))&^0xfff + uint64(pages<<12)
		case w&0xffc003ff == 0x91000000: // add x0, x0, #imm
			found += uint64(w >> 10 & 0xfff)
		case w&0xffc003ff == 0xf9400000: // ldr x0, [x0, #imm]
			word, err := p.Object.ReadAddress(found+uint64(w>>10&0xfff)*8, 8)
			if found == 0 || err != nil {
				return 0
			}
			found = binary.LittleEndian.Uint64(word)
		}
	}
	return 0
}
