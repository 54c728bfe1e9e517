package probe

import "bytes"

// startCode bounds what is read of _start.
const startCode = 96

// mainFromStart finds main where no symbol names it: the C library's _start
// loads its address as the first argument of __libc_start_main.
func (p Program) mainFromStart() (address uint64, ok bool) {
	code, err := p.Object.ReadAddress(p.Entry, startCode)
	if err != nil {
		return 0, false
	}
	switch p.Arch {
	case "amd64":
		address, ok = mainOnAMD64(code, p.Entry)
	case "arm64":
		address, ok = p.mainOnARM64(code)
	}
	if !ok {
		return 0, false
	}
	if _, err := p.Object.FileOffset(address); err != nil {
		return 0, false
	}
	return address, true
}

// mainOnAMD64 wants glibc's _start: pop %rsi; mov %rsp,%rdx; …; lea main(%rip),%rdi
// or mov $main,%rdi; call.
func mainOnAMD64(code []byte, at uint64) (uint64, bool) {
	i := bytes.Index(code, []byte{0x5e, 0x48, 0x89, 0xe2})
	if i < 0 {
		return 0, false
	}
	for ; i+9 <= len(code); i++ {
		rest := code[i:]
		if !bytes.HasPrefix(rest[7:], []byte{0xff, 0x15}) && rest[7] != 0xe8 && !bytes.HasPrefix(rest[7:], []byte{0x67, 0xe8}) {
			continue
		}
		operand := uint64(int64(int32(le.Uint32(rest[3:]))))
		switch {
		case bytes.HasPrefix(rest, []byte{0x48, 0x8d, 0x3d}):
			return at + uint64(i) + 7 + operand, true
		case bytes.HasPrefix(rest, []byte{0x48, 0xc7, 0xc7}):
			return operand, true
		}
	}
	return 0, false
}

// mainOnARM64 wants what glibc's _start loads into x0 before its first bl: by
// adrp and add the address of main or of a stub that branches there, by adrp
// and ldr what a slot holds, where the linker has written it into the slot.
func (p Program) mainOnARM64(code []byte) (uint64, bool) {
	for i := 0; i+8 <= len(code); i += 4 {
		adrp, second := le.Uint32(code[i:]), le.Uint32(code[i+4:])
		if adrp>>26 == 0x25 { // bl
			return 0, false
		}
		if adrp&0x9f00001f != 0x90000000 {
			continue
		}
		pages := int64(int32(adrp>>5&0x7ffff<<13))>>11 | int64(adrp>>29&3)
		page, low := (p.Entry+uint64(i))&^4095+uint64(pages<<12), uint64(second>>10&0xfff)
		switch second & 0xffc003ff {
		case 0x91000000: // add x0, x0, #low
			return p.behindStub(page + low), true
		case 0xf9400000: // ldr x0, [x0, #low]
			slot, err := p.Object.ReadAddress(page+8*low, 8)
			if err != nil || len(slot) < 8 {
				return 0, false
			}
			return le.Uint64(slot), true
		}
	}
	return 0, false
}

// behindStub follows nop (or bti c); b main, which is all that arm64's
// __wrap_main does.
func (p Program) behindStub(address uint64) uint64 {
	code, err := p.Object.ReadAddress(address, 8)
	if err != nil || len(code) < 8 || le.Uint32(code[4:])>>26 != 0x05 {
		return address
	}
	if first := le.Uint32(code); first != 0xd503201f && first != 0xd503245f {
		return address
	}
	return address + 4 + uint64(int64(int32(le.Uint32(code[4:])<<6))>>4)
}
