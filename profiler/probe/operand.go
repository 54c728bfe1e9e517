package probe

import (
	"fmt"
	"math/bits"
	"strconv"
	"strings"
)

// forNotes adds the static probes initprof:checkpoint of a program.
func (p Program) forNotes(plan *Plan) {
	notes, base := p.Object.SDTNotes()
	probes, err := ParseUSDT(notes, base)
	if err != nil {
		plan.Missing = append(plan.Missing, err.Error())
	}
	for _, u := range probes {
		if u.Provider != CheckpointProvider || u.Name != CheckpointName {
			continue
		}
		cookie, err := u.operands(p.Arch)
		if err != nil {
			plan.Missing = append(plan.Missing, fmt.Sprintf("static probe %s:%s at %#x: %v", u.Provider, u.Name, u.Address, err))
			continue
		}
		before := len(plan.Points)
		plan.add(p.Object, p.Arch, RecordUSDT, Checkpoint, CheckpointProvider+":"+CheckpointName, u.Address)
		if len(plan.Points) > before {
			plan.Points[before].Cookie = cookie
		}
	}
}

// operands packs where a checkpoint's name and its length are, as the program
// mark_usdt of bpf/src/marks.bpf.h reads it.
func (u USDT) operands(arch string) (cookie uint64, err error) {
	if len(u.Arguments) != 2 {
		return 0, fmt.Errorf("%d arguments, want the name's address and its length", len(u.Arguments))
	}
	for i, a := range u.Arguments {
		operand, err := a.pack(arch)
		if err != nil {
			return 0, err
		}
		cookie |= uint64(operand) << (32 * i)
	}
	return cookie, nil
}

// Kinds of operands, as in bpf/src/marks.bpf.h.
const (
	operandRegister = iota
	operandMemory
	operandConstant
)

func (a Argument) pack(arch string) (uint32, error) {
	if a.Offset != int64(int16(a.Offset)) {
		return 0, fmt.Errorf("an argument's offset or value of %d does not fit 16 bits", a.Offset)
	}
	packed := uint32(a.Offset)<<16 | uint32(bits.TrailingZeros8(uint8(a.Size)))<<7
	if a.Signed {
		packed |= 1 << 9
	}
	if a.Register == "" {
		return packed | operandConstant<<5, nil
	}
	word, ok := registerWord(arch, a.Register)
	if !ok {
		return 0, fmt.Errorf("an argument in a register %q that is not known", a.Register)
	}
	if a.Memory {
		packed |= operandMemory << 5
	}
	return packed | word, nil
}

// wordsAMD64 are the general registers in the order of struct pt_regs; the one
// in the middle is orig_ax and those behind ip, cs and flags.
var wordsAMD64 = []string{
	"r15", "r14", "r13", "r12", "bp", "bx", "r11", "r10", "r9", "r8", "ax", "cx", "dx", "si", "di", "", "", "", "", "sp",
}

// registerWord returns which word of struct pt_regs holds a register, whatever
// part of it the assembler named.
func registerWord(arch, name string) (uint32, bool) {
	if arch == "arm64" {
		switch name {
		case "sp":
			return 31, true
		case "fp":
			return 29, true
		case "lr":
			return 30, true
		}
		n, err := strconv.Atoi(strings.TrimLeft(name, "xw"))
		return uint32(n), err == nil && n >= 0 && n <= 30 && (name[0] == 'x' || name[0] == 'w')
	}
	base := name
	switch {
	case len(name) > 1 && name[0] == 'r' && name[1] >= '0' && name[1] <= '9':
		base = strings.TrimRight(name, "dwb")
	case len(name) == 3 && (name[0] == 'r' || name[0] == 'e'):
		base = name[1:]
	case len(name) == 2 && name[1] == 'l' && name[0] >= 'a' && name[0] <= 'd':
		base = name[:1] + "x"
	case len(name) == 3 && name[2] == 'l':
		base = name[:2]
	}
	for i, w := range wordsAMD64 {
		if w != "" && w == base {
			return uint32(i), true
		}
	}
	return 0, false
}
