package loader

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
)

// USDT is a statically defined probe: an entry of .note.stapsdt.
type USDT struct {
	Provider, Name string
	Point
	Semaphore uint64 // virtual address, 0 if none
	Args      []Arg
}

// Arg is where a probe's argument is, as SystemTap's note writes it: "-8@%rdi",
// "8@24(%rbx)", "-4@$0", "8@[x19, 24]".
type Arg struct {
	Size   int    // in bytes, negative if the value is signed
	Text   string // of the operand
	Kind   ArgKind
	Reg    string // of Register, and the base of Memory, without %
	Offset int64  // of Memory; the value of Constant
}

// ArgKind tells operands apart.
type ArgKind uint8

// The kinds of operands. What is none of these, such as an index register, is
// Other and has only its text.
const (
	Other ArgKind = iota
	Register
	Memory
	Constant
)

const (
	noteStapsdt = 3 // NT_STAPSDT
	maxNotes    = 4096
)

// readUSDT reads the probes of a provider. Their notes are in no segment, so
// they need section headers. A note has three words, location, base and
// semaphore, and three strings, provider, name and arguments; where .stapsdt.base
// is not at base, the file was moved by the difference (prelink).
func readUSDT(o *symbolize.Object, provider string) []USDT {
	var probes []USDT
	base, hasBase := o.Section(".stapsdt.base")
	for _, s := range o.Sections() {
		if s.Name != ".note.stapsdt" {
			continue
		}
		b, err := o.ReadSection(s, 1<<20)
		if err != nil {
			continue
		}
		for n := 0; len(b) >= 12 && n < maxNotes; n++ {
			nameSize, size, typ := uint64(le.Uint32(b)), uint64(le.Uint32(b[4:])), le.Uint32(b[8:])
			at := 12 + (nameSize+3)&^3
			if at > uint64(len(b)) || size > uint64(len(b))-at {
				break
			}
			name, desc := string(b[12:12+nameSize]), b[at:at+size]
			b = b[min(at+(size+3)&^3, uint64(len(b))):]
			if typ != noteStapsdt || name != "stapsdt\x00" || len(desc) < 24 {
				continue
			}
			parts := strings.SplitN(string(desc[24:]), "\x00", 4)
			if len(parts) < 3 || parts[0] != provider {
				continue
			}
			u := USDT{Provider: parts[0], Name: parts[1], Semaphore: le.Uint64(desc[16:]), Args: ParseArgs(parts[2])}
			u.Address = le.Uint64(desc)
			if hasBase {
				moved := base.Address - le.Uint64(desc[8:])
				u.Address += moved
				if u.Semaphore != 0 {
					u.Semaphore += moved
				}
			}
			if u.Offset, err = o.FileOffset(u.Address); err != nil {
				continue
			}
			code, _ := o.ReadAddress(u.Address, 16)
			u.Cost = probe.CostOf(o.Info.Machine, code)
			probes = append(probes, u)
		}
	}
	return probes
}

var (
	memoryAMD64 = regexp.MustCompile(`^(-?(?:0x)?[0-9a-fA-F]*)\(%([a-z0-9]+)\)$`)
	memoryARM64 = regexp.MustCompile(`^\[([a-z0-9]+)(?:, ?#?(-?(?:0x)?[0-9a-fA-F]+))?\]$`)
	register    = regexp.MustCompile(`^%?([a-z][a-z0-9]+)$`)
	constant    = regexp.MustCompile(`^[$#]?(-?(?:0x)?[0-9a-fA-F]+)$`)
)

// ParseArgs parses the arguments of a note: operands with their sizes,
// separated by spaces, which arm64 also has inside of brackets.
func ParseArgs(text string) []Arg {
	var args []Arg
	depth, from := 0, 0
	flush := func(to int) {
		if word := strings.TrimSpace(text[from:to]); word != "" && len(args) < 12 {
			args = append(args, parseArg(word))
		}
		from = to
	}
	for i := range len(text) {
		switch text[i] {
		case '[', '(':
			depth++
		case ']', ')':
			depth--
		case ' ':
			if depth <= 0 {
				flush(i)
			}
		}
	}
	flush(len(text))
	return args
}

func parseArg(word string) Arg {
	size, operand, ok := strings.Cut(word, "@")
	if !ok {
		size, operand = "", word
	}
	a := Arg{Text: operand}
	a.Size, _ = strconv.Atoi(size)
	number := func(s string) int64 {
		n, _ := strconv.ParseInt(s, 0, 64)
		return n
	}
	if m := memoryAMD64.FindStringSubmatch(operand); m != nil {
		a.Kind, a.Reg, a.Offset = Memory, m[2], number(m[1])
	} else if m := memoryARM64.FindStringSubmatch(operand); m != nil {
		a.Kind, a.Reg, a.Offset = Memory, m[1], number(m[2])
	} else if m := constant.FindStringSubmatch(operand); m != nil {
		a.Kind, a.Offset = Constant, number(m[1])
	} else if m := register.FindStringSubmatch(operand); m != nil {
		a.Kind, a.Reg = Register, m[1]
	}
	return a
}
