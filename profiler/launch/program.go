package launch

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The image has two segments: the interpreter, read-only, and the program,
// writable. 64 KiB apart in the file, so that the image also loads where pages
// have 64 KiB (arm64).
const (
	codeBase    = 0x400000
	dataBase    = 0x800000 // known to the interpreter
	codeOffset  = 256
	dataOffset  = 0x10000
	maxCodeSize = 256
	pageSize    = 4096
)

// codeEnd marks the end of the interpreter in this process's text.
var codeEnd = []byte("inip" + "trof")

func interpreterStart() uintptr

// step is one system call and where to go on after it. The interpreter knows
// the layout: twelve words.
type step struct {
	number uint64
	args   [6]uint64
	// Addresses of the next step for a negative result, for 0, for a positive one.
	negative, zero, positive uint64
	tag                      uint64 // with result it forms the message that a step can send
	result                   uint64
}

const (
	stepSize  = 12 * 8
	tagOffset = 10 * 8
)

// A label is the index of a step in its program.
type label int

// next is the label of whatever step follows.
const next label = -1

// program is a list of system calls under construction, with the memory that
// they refer to. All memory is at known addresses.
type program struct {
	blob   []byte
	steps  []step
	goOn   [][3]label // per step: negative, zero, positive
	refers []reference
	fails  []failure
}

// reference is a word that needs the address of a step's word once that is known.
type reference struct {
	step, arg int
	to        label
	offset    uint64
}

func newProgram() *program {
	return &program{blob: make([]byte, 8, 1024)} // word 0: the address of the first step
}

// bytes puts b into the image's memory, aligned to 8, and returns its address.
func (p *program) bytes(b []byte) uint64 {
	for len(p.blob)%8 != 0 {
		p.blob = append(p.blob, 0)
	}
	at := uint64(dataBase + len(p.blob))
	p.blob = append(p.blob, b...)
	return at
}

// string puts s, terminated, into the image's memory.
func (p *program) string(s string) uint64 {
	at := uint64(dataBase + len(p.blob))
	p.blob = append(append(p.blob, s...), 0)
	return at
}

// strings makes the vector of pointers that execve expects.
func (p *program) strings(list []string) uint64 {
	vector := make([]byte, 0, 8*len(list)+8)
	for _, s := range list {
		vector = binary.LittleEndian.AppendUint64(vector, p.string(s))
	}
	return p.bytes(binary.LittleEndian.AppendUint64(vector, 0))
}

// words puts 64-bit values into the image's memory.
func (p *program) words(values ...uint64) uint64 {
	b := make([]byte, 0, 8*len(values))
	for _, v := range values {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return p.bytes(b)
}

// call appends a system call after which the next step follows, whatever its
// result.
func (p *program) call(number uintptr, args ...uint64) label {
	s := step{number: uint64(number)}
	copy(s.args[:], args)
	p.steps = append(p.steps, s)
	p.goOn = append(p.goOn, [3]label{next, next, next})
	return label(len(p.steps) - 1)
}

// here is the label of the step that is appended next.
func (p *program) here() label { return label(len(p.steps)) }

func (p *program) onNegative(l, to label) { p.goOn[l][0] = to }
func (p *program) onZero(l, to label)     { p.goOn[l][1] = to }
func (p *program) onPositive(l, to label) { p.goOn[l][2] = to }

// send appends a write of the message {tag, result} of the step `of` to fd.
func (p *program) send(fd int, of label, tag uint64) label {
	p.steps[of].tag = tag
	l := p.call(unix.SYS_WRITE, uint64(fd), 0, 16)
	p.refers = append(p.refers, reference{int(l), 1, of, tagOffset})
	return l
}

// image renders the program as a static executable of this machine.
func (p *program) image() ([]byte, error) {
	code, err := interpreter()
	if err != nil {
		return nil, err
	}
	blob := bytes.Clone(p.blob)
	for len(blob)%16 != 0 {
		blob = append(blob, 0)
	}
	base := uint64(dataBase + len(blob))
	address := func(l label) uint64 { return base + uint64(l)*stepSize }
	binary.LittleEndian.PutUint64(blob, address(0))
	steps := append([]step(nil), p.steps...)
	for _, r := range p.refers {
		steps[r.step].args[r.arg] = address(r.to) + r.offset
	}
	for i := range steps {
		to := p.goOn[i]
		for k := range to {
			if to[k] == next {
				to[k] = label(i + 1)
			}
			if int(to[k]) >= len(steps) {
				return nil, fmt.Errorf("step %d runs past the end of its program", i)
			}
		}
		steps[i].negative, steps[i].zero, steps[i].positive = address(to[0]), address(to[1]), address(to[2])
	}

	var machine elf.Machine
	switch runtime.GOARCH {
	case "amd64":
		machine = elf.EM_X86_64
	case "arm64":
		machine = elf.EM_AARCH64
	default:
		return nil, errors.New("no holder for " + runtime.GOARCH)
	}
	dataSize := uint64(len(blob) + len(steps)*stepSize)
	header := elf.Header64{
		Ident: [elf.EI_NIDENT]byte{
			0x7f, 'E', 'L', 'F',
			byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), byte(elf.EV_CURRENT),
		},
		Type: uint16(elf.ET_EXEC), Machine: uint16(machine), Version: uint32(elf.EV_CURRENT),
		Entry: codeBase + codeOffset, Phoff: 64, Ehsize: 64, Phentsize: 56, Phnum: 3,
	}
	segments := []elf.Prog64{
		{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_X), Vaddr: codeBase,
			Filesz: codeOffset + uint64(len(code)), Memsz: codeOffset + uint64(len(code)), Align: dataOffset,
		},
		{
			Type: uint32(elf.PT_LOAD), Flags: uint32(elf.PF_R | elf.PF_W), Off: dataOffset, Vaddr: dataBase,
			Filesz: dataSize, Memsz: dataSize, Align: dataOffset,
		},
		{Type: uint32(elf.PT_GNU_STACK), Flags: uint32(elf.PF_R | elf.PF_W), Align: 16},
	}
	var out bytes.Buffer
	out.Grow(dataOffset + int(dataSize))
	for _, part := range []any{header, segments} {
		if err := binary.Write(&out, binary.LittleEndian, part); err != nil {
			return nil, fmt.Errorf("holder image: %w", err)
		}
	}
	out.Write(make([]byte, codeOffset-out.Len()))
	out.Write(code)
	out.Write(make([]byte, dataOffset-out.Len()))
	out.Write(blob)
	for i := range steps {
		out.Write(unsafe.Slice((*byte)(unsafe.Pointer(&steps[i])), stepSize))
	}
	return out.Bytes(), nil
}

// interpreter returns the machine code that runs a program. It is
// position-independent and ends before codeEnd.
func interpreter() ([]byte, error) {
	start := interpreterStart()
	text := unsafe.Slice((*byte)(*(*unsafe.Pointer)(unsafe.Pointer(&start))), maxCodeSize)
	end := bytes.Index(text, codeEnd)
	if end <= 0 {
		return nil, errors.New("the holder's code has no end mark: this build is broken")
	}
	return text[:end:end], nil
}
