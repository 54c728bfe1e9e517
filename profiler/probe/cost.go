package probe

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// Cost is what the kernel must do with the instruction that a uprobe replaced.
// It decides a probe's price: an emulated one takes 0.6 to 0.8 µs, a
// single-stepped one 11 to 16 µs (measured on x86-64).
type Cost uint8

// The costs. What only newer kernels emulate is told apart, because plans are
// made for the kernel at hand.
const (
	UnknownCost   Cost = iota // another architecture, or too few bytes
	Emulated                  // by every kernel since 5.10
	EmulatedNewer             // NOPs: on x86-64 by kernels newer than 6.14, on arm64 than 6.12; stepped before
	Stepped                   // executed out of line, with a trap behind it
	Refused                   // the kernel refuses the probe, or would not execute the instruction rightly
)

func (c Cost) String() string {
	switch c {
	case Emulated:
		return "emulated"
	case EmulatedNewer:
		return "emulated by newer kernels"
	case Stepped:
		return "stepped"
	case Refused:
		return "refused"
	}
	return "unknown"
}

// Cheap reports whether a probe there costs no single step on any kernel.
func (c Cost) Cheap() bool { return c == Emulated }

// CostOf classifies the instruction at the beginning of code. arch is GOARCH's.
// 16 bytes suffice; with fewer than the instruction has the cost is unknown.
func CostOf(arch string, code []byte) Cost {
	switch arch {
	case "amd64":
		return costAMD64(code)
	case "arm64":
		if len(code) < 4 {
			return UnknownCost
		}
		return costARM64(binary.LittleEndian.Uint32(code))
	}
	return UnknownCost
}

// costAMD64 follows branch_setup_xol_ops and push_setup_xol_ops of
// arch/x86/kernel/uprobes.c: push of a register, NOP, relative call, jmp and
// jcc are emulated. uprobe_init_insn there refuses segment overrides, LOCK and
// what no program may execute (good_insns_64).
func costAMD64(code []byte) Cost {
	b := code
	rex, operand := byte(0), false
prefixes:
	for len(b) > 0 {
		switch b[0] {
		case 0x26, 0x2e, 0x36, 0x3e, 0xf0:
			return Refused
		case 0x66:
			operand = true
		case 0x64, 0x65, 0x67, 0xf2, 0xf3:
		default:
			break prefixes
		}
		b = b[1:]
	}
	if len(b) > 0 && b[0]&0xf0 == 0x40 {
		rex, b = b[0], b[1:]
	}
	if len(b) == 0 || len(b) == 1 && b[0] == 0x0f {
		return UnknownCost
	}
	branch := func() Cost {
		if operand { // callw, jmpw: -ENOTSUPP
			return Refused
		}
		return Emulated
	}
	switch op := b[0]; {
	case op == 0x90 && rex&1 == 0:
		return Emulated
	case op >= 0x50 && op <= 0x57:
		if n := len(code) - len(b) + 1; n == 1 || n == 2 && rex == 0x41 {
			return Emulated
		}
		return Stepped
	case op == 0xe8, op == 0xe9, op == 0xeb, op&0xf0 == 0x70:
		return branch()
	case op == 0x0f && b[1]&0xf0 == 0x80:
		return branch()
	case op == 0x0f && b[1] == 0x1f:
		return EmulatedNewer
	case op == 0x0f && (b[1] == 0x0b || b[1] == 0x05 || b[1] == 0x34): // ud2, syscall, sysenter
		return Refused
	case op == 0xcc, op == 0xcd, op == 0xce, op == 0xcf, op == 0xf1, op == 0xf4, op == 0xfa, op == 0xfb,
		op >= 0xe4 && op <= 0xe7, op >= 0xec && op <= 0xef, op >= 0x6c && op <= 0x6f:
		return Refused
	}
	return Stepped
}

// costARM64 follows arm_probe_decode_insn and aarch64_insn_is_steppable of
// arch/arm64/kernel/probes/decode-insn.c, with the masks of
// arch/arm64/include/asm/insn.h: branches and adr are simulated. Loads of
// literals were simulated wrongly until Linux 6.12 and are refused since.
func costARM64(w uint32) Cost {
	is := func(mask, value uint32) bool { return w&mask == value }
	switch {
	case is(0x7c000000, 0x14000000), // b, bl
		is(0xff000010, 0x54000000), // b.cond
		is(0x7e000000, 0x34000000), // cbz, cbnz
		is(0x7e000000, 0x36000000), // tbz, tbnz
		is(0xfffffc1f, 0xd61f0000), // br
		is(0xfffffc1f, 0xd63f0000), // blr
		is(0xfffffc1f, 0xd65f0000), // ret
		is(0x1f000000, 0x10000000): // adr, adrp
		return Emulated
	case w == 0xd503201f: // nop
		return EmulatedNewer
	case is(0xfffff01f, 0xd503201f): // the other hints
		switch w & 0xfe0 {
		case 0x0e0, 0x100, 0x140, 0x300, 0x320, 0x340, 0x360, 0x400, 0x440, 0x480, 0x4c0: // xpaclri, pac*, bti
			return Stepped
		}
		return Refused
	case is(0xfe000000, 0xd6000000), // branches with authentication, eret
		is(0xff000000, 0xd4000000),                             // svc, brk and their like
		is(0xfff8f01f, 0xd500401f), is(0xfff00000, 0xd5100000), // msr
		is(0xffffffe0, 0xd53b4220), // mrs of DAIF
		is(0x3b000000, 0x18000000), // ldr, ldrsw, prfm of a literal
		is(0x3f000000, 0x08000000): // exclusives, and ldar and cas, which older kernels take for some
		return Refused
	}
	return Stepped
}

// CheapPoint returns the offset in a function's code at which a probe sees the
// function's arguments and return address as at its entry and costs least: the
// entry itself, or an instruction behind some that touch neither (a landing
// pad, a compare, on arm64 a load into a scratch register). args is how many
// registers carry arguments. The walk is straight, and nothing seen of the code
// jumps back into it, so that the point is reached by every call, and by each
// once.
func CheapPoint(arch string, code []byte, args int) (offset int, cost Cost) {
	entry := CostOf(arch, code)
	if entry == Emulated {
		return 0, entry
	}
	var passed []int // the beginnings of instructions behind the entry
	for at := 0; at < min(len(code), 32); {
		n := harmless(arch, code[at:], args)
		if n == 0 {
			break
		}
		at += n
		passed = append(passed, at)
		if at < len(code) && CostOf(arch, code[at:]) == Emulated {
			push := arch == "amd64" && (code[at]&0xf8 == 0x50 || code[at] == 0x41) // begins no loop
			if !push && jumpsTo(arch, code, passed) {
				break
			}
			return at, Emulated
		}
	}
	return 0, entry
}

// jumpsTo reports whether a branch in the code goes to one of these offsets. On
// amd64, where instructions are not told apart, what merely looks like one
// counts: that costs a probe, and the other mistake a wrong count.
func jumpsTo(arch string, code []byte, offsets []int) bool {
	for p := range code {
		b, target := code[p:], -1
		switch arch {
		case "amd64":
			switch {
			case len(b) >= 2 && (b[0]&0xf0 == 0x70 || b[0] == 0xeb || b[0]&0xfc == 0xe0): // jcc, jmp, loop
				target = p + 2 + int(int8(b[1]))
			case len(b) >= 5 && b[0] == 0xe9:
				target = p + 5 + int(int32(binary.LittleEndian.Uint32(b[1:])))
			case len(b) >= 6 && b[0] == 0x0f && b[1]&0xf0 == 0x80:
				target = p + 6 + int(int32(binary.LittleEndian.Uint32(b[2:])))
			}
		case "arm64":
			if p%4 != 0 || len(b) < 4 {
				continue
			}
			w := binary.LittleEndian.Uint32(b)
			signed := func(low, bits uint32) int { return p + int(int32(w>>low<<(32-bits))>>(32-bits))*4 }
			switch {
			case w&0xfc000000 == 0x14000000: // b
				target = signed(0, 26)
			case w&0xff000000 == 0x54000000, w&0x7e000000 == 0x34000000: // b.cond, cbz, cbnz
				target = signed(5, 19)
			case w&0x7e000000 == 0x36000000: // tbz, tbnz
				target = signed(5, 14)
			}
		}
		if slices.Contains(offsets, target) {
			return true
		}
	}
	return false
}

// harmless returns the length of the instruction at the beginning of code if it
// changes neither arguments nor stack pointer nor return address, and falls
// through; else 0.
func harmless(arch string, code []byte, args int) int {
	switch arch {
	case "amd64":
		return harmlessAMD64(code, args)
	case "arm64":
		if len(code) >= 4 && harmlessARM64(binary.LittleEndian.Uint32(code), uint32(args)) {
			return 4
		}
	}
	return 0
}

var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// harmlessAMD64 knows endbr64, the compares and tests, which write flags alone,
// and moves and arithmetic into a register that holds nothing at an entry.
func harmlessAMD64(code []byte, args int) int {
	if bytes.HasPrefix(code, endbr64) {
		return len(endbr64)
	}
	n, rex := 0, byte(0)
	if len(code) > 0 && code[0]&0xf0 == 0x40 {
		n, rex = 1, code[0]
	}
	if len(code) < n+2 {
		return 0
	}
	op, reg := code[n], code[n+1]>>3&7
	immediate := 0
	switch op {
	case 0x38, 0x39, 0x3a, 0x3b, 0x84, 0x85: // cmp, test
	case 0x80, 0x83: // cmp with an 8-bit immediate
		if reg != 7 {
			return 0
		}
		immediate = 1
	case 0x81: // cmp with a 32-bit immediate
		if reg != 7 {
			return 0
		}
		immediate = 4
	case 0xf6: // test with an 8-bit immediate
		if reg > 1 {
			return 0
		}
		immediate = 1
	case 0x03, 0x0b, 0x23, 0x2b, 0x33, 0x8b, 0x8d: // add, or, and, sub, xor, mov, lea: reg is written
		if !freeAMD64(reg|rex<<1&8, args) {
			return 0
		}
	case 0x01, 0x09, 0x21, 0x29, 0x31, 0x89: // the same the other way: r/m is written
		if code[n+1]>>6 != 3 || !freeAMD64(code[n+1]&7|rex<<3&8, args) {
			return 0
		}
	default:
		return 0
	}
	size := n + 1 + operandSize(code[n+1:]) + immediate
	if size > len(code) {
		return 0
	}
	return size
}

// freeAMD64 tells the registers that hold nothing at the entry of a function that
// is not variadic: rax, r10, r11, and those of arguments beyond the ones in use.
func freeAMD64(register byte, args int) bool {
	switch register {
	case 0, 10, 11:
		return true
	}
	order := []byte{7, 6, 2, 1, 8, 9} // rdi, rsi, rdx, rcx, r8, r9
	n := bytes.IndexByte(order, register)
	return n >= max(args, 1)
}

// operandSize returns the length of ModRM, SIB and displacement.
func operandSize(b []byte) int {
	mod, rm := b[0]>>6, b[0]&7
	n := 1
	if mod != 3 && rm == 4 {
		n = 2
		if mod == 0 && len(b) > 1 && b[1]&7 == 5 {
			return n + 4
		}
	}
	switch {
	case mod == 1:
		return n + 1
	case mod == 2, mod == 0 && rm == 5:
		return n + 4
	}
	return n
}

// harmlessARM64 knows landing pads, NOP, compares with an immediate, and loads
// into x9 to x17 and into argument registers beyond those in use. It does not
// pass paciasp: behind it the return address is signed, and a uretprobe that
// replaced it would fail the authentication.
func harmlessARM64(w, args uint32) bool {
	switch {
	case w == 0xd503201f, w&0xffffff3f == 0xd503241f: // nop, bti
		return true
	case w&0x7f80001f == 0x7100001f: // cmp Rn, #imm
		return true
	case w&0x3fc00000 == 0x39400000: // ldrb, ldrh, ldr Rt, [Rn, #imm]
		rt := w & 31
		return rt >= max(args, 1) && rt <= 17 && rt != 8
	}
	return false
}
