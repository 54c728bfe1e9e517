package unwind

// arch is what unwinding must know of an architecture. Registers have the
// numbers that DWARF gives them.
type arch struct {
	registers    int
	sp, fp       int
	link         int    // where a caller's address lies at a function's first instruction; 0: at the stack's top
	pc           uint64 // the column that reads as the program counter in expressions
	addressMask  uint64 // what is not in it is a signature of a return address
	trampoline   []byte // the instructions that a signal handler returns to
	signalFrame  uint64 // from sp in the trampoline to the saved registers
	signalLayout func(w *walk, base uint64) bool
	cgo          *cgoFrames
}

var amd64 = arch{
	registers: 16, sp: 7, fp: 6, pc: 16, addressMask: ^uint64(0),
	trampoline:   []byte{0x48, 0xc7, 0xc0, 15, 0, 0, 0, 0x0f, 0x05}, // mov $__NR_rt_sigreturn,%rax; syscall
	signalFrame:  40,                                                // ucontext.uc_mcontext
	signalLayout: amd64Signal,
	cgo:          &cgoAMD64,
}

var arm64 = arch{
	registers: 32, sp: 31, fp: 29, link: 30, pc: 32, addressMask: 1<<48 - 1,
	trampoline:   []byte{0x68, 0x11, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4}, // mov x8,#__NR_rt_sigreturn; svc #0
	signalFrame:  128 + 176,                                              // siginfo, then ucontext.uc_mcontext
	signalLayout: arm64Signal,
	cgo:          &cgoARM64,
}

// isBehindCall tells whether the instruction before an address is a call.
func isBehindCall(a *arch, address uint64, space Space) bool {
	c, ok := space(address - 1)
	if !ok || c.Table == nil || c.Table.arch != a {
		return false
	}
	const longest = 6
	b := c.Table.code(c.Address+1-longest, longest)
	if len(b) < longest {
		return false
	}
	if a == &arm64 {
		v := le.Uint32(b[2:])
		return v>>26 == 0x25 || v&0xfffffc1f == 0xd63f0000 || v&0xfffff800 == 0xd73f0800 // bl, blr, blraa
	}
	indirect := func(opcode, modrm byte) bool { return opcode == 0xff && modrm&0x38 == 0x10 }
	return b[1] == 0xe8 || indirect(b[0], b[1]) || indirect(b[3], b[4]) || indirect(b[4], b[5])
}

// amd64Signal reads struct sigcontext of x86-64.
func amd64Signal(w *walk, base uint64) bool {
	order := [...]int{8, 9, 10, 11, 12, 13, 14, 15, 5, 4, 6, 3, 1, 0, 2, 7} // r8…r15 di si bp bx dx ax cx sp
	for i, reg := range order {
		v, ok := w.load(base + uint64(i)*8)
		if !ok {
			return false
		}
		w.regs[reg] = v
	}
	pc, ok := w.load(base + uint64(len(order))*8)
	w.at = pc
	return ok
}

// arm64Signal reads struct sigcontext of arm64: fault address, x0…x30, sp, pc.
func arm64Signal(w *walk, base uint64) bool {
	for i := range 32 {
		v, ok := w.load(base + 8 + uint64(i)*8)
		if !ok {
			return false
		}
		w.regs[i] = v
	}
	pc, ok := w.load(base + 8 + 32*8)
	w.at = pc
	return ok
}
