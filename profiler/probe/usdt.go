package probe

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// USDT is a static probe of a program: an instruction, usually a nop, and a
// note of .note.stapsdt that describes it, as systemtap's sys/sdt.h writes it.
type USDT struct {
	Provider, Name string
	Address        uint64 // virtual, as the program headers have it
	Semaphore      uint64 // a counter that whoever listens increments; 0 if there is none
	Arguments      []Argument
}

// Argument says where the value of an argument is when the probe is reached.
type Argument struct {
	Size     int    // in bytes: 1, 2, 4 or 8
	Signed   bool   // to be extended by its sign
	Register string // as the architecture names it, "rdi" or "x0"; empty for a constant
	Memory   bool   // the value lies in memory, at Register + Offset
	Offset   int64  // the displacement, or the constant itself
}

// CheckpointUSDT is the probe that a program of any language passes its
// checkpoints through: the arguments are the name's address and its length.
const (
	CheckpointProvider = "initprof"
	CheckpointName     = "checkpoint"
)

// The format has had one version, 3.
const (
	noteSTAPSDT = 3
	maxUSDT     = 4096
	maxOperand  = 256
)

// ErrUSDT is wrapped by errors about notes that cannot be read.
var ErrUSDT = errors.New("malformed .note.stapsdt")

// ParseUSDT reads the notes of .note.stapsdt. base is the address of
// .stapsdt.base, 0 if the program has none: by how far it is not where a note
// says it is, the probe is not either. Probes that were read before a mistake
// come with the error.
func ParseUSDT(notes []byte, base uint64) ([]USDT, error) {
	var probes []USDT
	for len(notes) > 0 {
		if len(notes) < 12 {
			return probes, fmt.Errorf("%w: %d bytes at its end", ErrUSDT, len(notes))
		}
		nameSize, size := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:]))
		kind, at := le.Uint32(notes[8:]), 12+(nameSize+3)&^3
		if at+size > uint64(len(notes)) {
			return probes, fmt.Errorf("%w: a note reaches beyond its end", ErrUSDT)
		}
		name, content := notes[12:12+nameSize], notes[at:at+size]
		notes = notes[min(at+(size+3)&^3, uint64(len(notes))):]
		if kind != noteSTAPSDT || string(name) != "stapsdt\x00" {
			continue
		}
		if len(probes) == maxUSDT {
			return probes, fmt.Errorf("%w: more than %d probes", ErrUSDT, maxUSDT)
		}
		p, err := parseUSDT(content, base)
		if err != nil {
			return probes, err
		}
		probes = append(probes, p)
	}
	return probes, nil
}

var le = binary.LittleEndian

func parseUSDT(b []byte, base uint64) (USDT, error) {
	if len(b) < 24 {
		return USDT{}, fmt.Errorf("%w: a description of %d bytes", ErrUSDT, len(b))
	}
	p := USDT{Address: le.Uint64(b), Semaphore: le.Uint64(b[16:])}
	if noted := le.Uint64(b[8:]); base != 0 && noted != 0 {
		p.Address += base - noted
		if p.Semaphore != 0 {
			p.Semaphore += base - noted
		}
	}
	texts := bytes.SplitN(b[24:], []byte{0}, 4)
	if len(texts) < 4 {
		return USDT{}, fmt.Errorf("%w: a text has no end", ErrUSDT)
	}
	p.Provider, p.Name = string(texts[0]), string(texts[1])
	for _, operand := range splitOperands(string(texts[2])) {
		a, err := parseArgument(operand)
		if err != nil {
			return USDT{}, fmt.Errorf("probe %s:%s: %w", p.Provider, p.Name, err)
		}
		p.Arguments = append(p.Arguments, a)
	}
	return p, nil
}

// splitOperands splits at spaces, but for those in arm64's brackets: "8@[sp, 16]".
func splitOperands(text string) []string {
	depth := 0
	return strings.FieldsFunc(text[:min(len(text), 12*maxOperand)], func(c rune) bool {
		switch c {
		case '[':
			depth++
		case ']':
			depth--
		}
		return c == ' ' && depth == 0
	})
}

// parseArgument reads SIZE@OPERAND, the operand in the syntax of the assembler:
// of x86-64 $5, %rdi, -8(%rbp), of arm64 5, x0, [sp, 16].
func parseArgument(text string) (Argument, error) {
	unreadable := func() (Argument, error) {
		return Argument{}, fmt.Errorf("%w: argument %.*q", ErrUSDT, maxOperand, text)
	}
	size, operand, ok := strings.Cut(text, "@")
	n, err := strconv.Atoi(size)
	if !ok || err != nil || !slices.Contains([]int{1, 2, 4, 8}, max(n, -n)) {
		return unreadable()
	}
	a := Argument{Size: max(n, -n), Signed: n < 0}
	inner, bracketed := strings.CutPrefix(operand, "[")
	displacement, register, based := strings.Cut(operand, "(")
	switch {
	case bracketed:
		inner, ok = strings.CutSuffix(inner, "]")
		var offset string
		a.Register, offset, _ = strings.Cut(inner, ",")
		if a.Memory = true; offset != "" {
			a.Offset, err = strconv.ParseInt(strings.TrimPrefix(strings.TrimSpace(offset), "#"), 0, 64)
		}
	case based:
		register, ok = strings.CutSuffix(register, ")")
		a.Register, a.Memory = strings.TrimPrefix(register, "%"), true
		if displacement != "" {
			a.Offset, err = strconv.ParseInt(displacement, 0, 64)
		}
	default:
		if a.Offset, err = strconv.ParseInt(strings.TrimLeft(operand, "$#"), 0, 64); err != nil {
			a.Register, err = strings.TrimPrefix(operand, "%"), nil
		}
	}
	constant := a.Register == "" && !a.Memory && operand != ""
	if !ok || err != nil || !constant && !isRegister(a.Register) {
		return unreadable()
	}
	return a, nil
}

// isRegister tells a register's name from an address of several parts and from
// a symbol's name with an offset.
func isRegister(name string) bool {
	if name == "" || len(name) > 5 {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return false
		}
	}
	return name[0] >= 'a' && !strings.Contains("rip eip", name)
}
