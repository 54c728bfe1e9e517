package probe

import "encoding/binary"

// gInThread returns where a Go program with C code keeps g, from the thread
// pointer, as its own code has it; 0 if that does not tell. Other variables of
// threads beside g move it.
func (p Program) gInThread() int32 {
	names := []string{"runtime.asmcgocall", "runtime.asmcgocall.abi0", "runtime.cgocallback", "runtime.cgocallback.abi0"}
	find := gInAMD64
	if p.Arch == "arm64" {
		names = []string{"runtime.load_g", "runtime.load_g.abi0"}
		find = gInARM64
	}
	for _, name := range names {
		if address, size, ok := p.Object.LookupFunc(name); ok {
			if code, err := p.Object.ReadAddress(address, min(size, 64)); err == nil {
				if at := find(code); at != 0 {
					return at
				}
			}
		}
	}
	return 0
}

// gInAMD64 finds the displacement of a load of g from the thread's storage: in
// the instruction, or in the one before it, where the linker relaxed what can
// be loaded at any address.
func gInAMD64(code []byte) int32 {
	for i := 0; i+9 <= len(code); i++ {
		switch c := code[i:]; {
		case c[0] == 0x64 && c[1] == 0x48 && c[2] == 0x8b && c[3]&0xc7 == 0x04 && c[4] == 0x25: // mov %fs:disp32,%reg
			return int32(binary.LittleEndian.Uint32(c[5:]))
		case len(c) >= 11 && c[0] == 0x48 && c[1] == 0xc7 && c[2] == 0xc1: // mov $imm32,%rcx …
			// … and mov %fs:(%rcx),%reg soon behind it
			for j := 7; j+4 <= min(len(c), 24); j++ {
				if c[j] == 0x64 && c[j+1] == 0x48 && c[j+2] == 0x8b && c[j+3]&0xc7 == 0x01 {
					return int32(binary.LittleEndian.Uint32(c[3:]))
				}
			}
		}
	}
	return 0
}

// gInARM64 finds the constant that the thread pointer is added to for a load of g.
func gInARM64(code []byte) int32 {
	const (
		threadPointer = 0xd53bd040 // mrs x0, tpidr_el0
		load          = 0xf87b681c // ldr x28, [x0, x27]
	)
	at, after := uint32(0), false
	for ; len(code) >= 4; code = code[4:] {
		w := binary.LittleEndian.Uint32(code)
		immediate, shift := w>>5&0xffff, 16*(w>>21&1)
		switch {
		case w == threadPointer:
			after = true
		case !after:
		case w == load:
			return int32(at)
		case w&0xffc0001f == 0xd280001b: // movz x27
			at = immediate << shift
		case w&0xffc0001f == 0xf280001b: // movk x27
			at = at&^(0xffff<<shift) | immediate<<shift
		default:
			return 0
		}
	}
	return 0
}
