// Package probe plans, from a subject's file, which of its instructions are to
// be probed: nothing is attached here.
//
// It is the left end of the data flow: capture attaches what it plans.
package probe

import (
	"encoding/binary"
	"fmt"
)

// Object is what a plan needs to know of a subject's ELF file.
type Object interface {
	// LookupFunc returns address and size of a function in virtual addresses.
	LookupFunc(name string) (address, size uint64, ok bool)
	// FuncName returns the name of the function that holds an address, empty if
	// it is not known.
	FuncName(address uint64) string
	// FileOffset translates a virtual address.
	FileOffset(address uint64) (uint64, error)
	// ReadAddress returns n bytes of the file's part of the image.
	ReadAddress(address, n uint64) ([]byte, error)
	// GoText returns where Go's functions lie in virtual addresses.
	GoText() (address, size uint64, ok bool)
	// SDTNotes returns .note.stapsdt and the address of .stapsdt.base.
	SDTNotes() (notes []byte, base uint64)
	// HeadersAddress returns where the program headers lie.
	HeadersAddress() (uint64, bool)
	// Frameless tells whether Go code at an address has no frame.
	Frameless(address uint64) bool
}

// Program is a subject's file and what its headers tell.
type Program struct {
	Object  Object
	Entry   uint64
	Dynamic bool   // it has an interpreter
	Arch    string // as GOARCH
	Go      bool
	// AllowStepping plans probes, too, of which each hit costs a single step.
	// Those of entry and main, hit once, are always planned.
	AllowStepping bool
}

// Plan is what can be probed, and what cannot, with the reason.
type Plan struct {
	Points  []Point
	Missing []string
}

// Framed is code that is known to keep frame pointers, so that its stacks can
// be walked by them: Go's. The zero value is none.
type Framed struct {
	Program       uint64 // which program it is: its entry less the address of its headers
	Begin         int64  // of the code, from the program's entry on
	Size          uint64
	CallbackBegin uint64 // of crosscall2, through which C calls Go, from Begin on
	CallbackSize  uint64
	GInThread     int32 // of g from the thread pointer in a program with C code; 0: not known
	// Frameless tells whether code has no frame, so that its caller's address is
	// at the stack's top or in the link register; from the entry on.
	Frameless func(fromEntry int64) bool
}

const checkpointMarker = "github.com/initprof/initprof/extension/checkpoint.mark"

// For plans the probes of a subject.
func For(p Program) Plan {
	var plan Plan
	add := func(action Action, kind Kind, name string, address uint64) {
		plan.add(p.Object, p.Arch, action, kind, name, address)
	}
	if p.Dynamic {
		add(RecordMark, Entry, "entry", p.firstCheap(p.Entry))
	}
	if p.Go {
		if address, size, ok := p.Object.LookupFunc("main.main"); ok {
			add(RecordMark, Main, "main.main", p.afterStackCheck(address, size))
		}
		if address, _, ok := p.Object.LookupFunc(checkpointMarker); ok {
			add(RecordCheckpoint, Checkpoint, "checkpoint.mark", address)
		}
		p.forGo(&plan)
	} else if address, ok := p.findMain(); ok {
		add(RecordMark, Main, "main", p.firstCheap(address))
	} else {
		plan.Missing = append(plan.Missing, "main: the program is stripped, its symbols do not name it, and its entry is not that of a known C library")
	}
	p.forNotes(&plan)
	if !p.Go {
		p.forFunctions(&plan)
	}
	return plan
}

// Framed returns the code of a Go program; of others nothing is known to keep
// frame pointers.
func (p Program) Framed() Framed {
	if !p.Go {
		return Framed{}
	}
	text, size, ok := p.Object.GoText()
	headers, known := p.Object.HeadersAddress()
	if !ok || !known || p.Entry == headers {
		return Framed{}
	}
	f := Framed{
		Program: p.Entry - headers, Begin: int64(text - p.Entry), Size: size,
		Frameless: func(fromEntry int64) bool { return p.Object.Frameless(p.Entry + uint64(fromEntry)) },
	}
	if address, size, ok := p.Object.LookupFunc("crosscall2"); ok && address >= text {
		f.CallbackBegin, f.CallbackSize, f.GInThread = address-text, size, p.gInThread()
	}
	return f
}

func (plan *Plan) add(o Object, arch string, action Action, kind Kind, name string, address uint64) {
	offset, err := o.FileOffset(address)
	if err != nil {
		plan.Missing = append(plan.Missing, fmt.Sprintf("%s: %v", name, err))
		return
	}
	point := Point{Offset: offset, Action: action, Kind: kind, Name: name}
	if code, err := o.ReadAddress(address, 16); err == nil {
		cost := CostOf(arch, code)
		point.Steps = cost != Emulated && cost != EmulatedNewer
	}
	plan.Points = append(plan.Points, point)
}

// afterStackCheck returns the address of a cheap instruction at the end of a Go
// function's stack check, where the arguments are still in their registers: on
// amd64 the push behind it, which is reached once a call; on arm64, where what
// follows would be single-stepped, the branch itself, which is reached again
// when the stack had to grow.
func (p Program) afterStackCheck(address, size uint64) uint64 {
	code, err := p.Object.ReadAddress(address, min(size, 32))
	if err != nil {
		return address
	}
	if p.Arch == "arm64" {
		for at := 0; at+4 <= len(code); at += 4 {
			if binary.LittleEndian.Uint32(code[at:])&0xff000010 == 0x54000000 { // b.cond
				return address + uint64(at)
			}
		}
		return address
	}
	for i := range code {
		switch {
		case i+3 <= len(code) && code[i] == 0x76 && code[i+2] == 0x55: // JBE short; PUSH RBP
			return address + uint64(i) + 2
		case i+7 <= len(code) && code[i] == 0x0f && code[i+1] == 0x86 && code[i+6] == 0x55: // JBE near
			return address + uint64(i) + 6
		}
	}
	return address
}

// cheapEntry returns an address at or near a function's entry, of which the
// probe's cost is known.
func (p Program) cheapEntry(address uint64, args int) uint64 {
	code, err := p.Object.ReadAddress(address, 48)
	if err != nil {
		return address
	}
	skip, _ := CheapPoint(p.Arch, code, args)
	return address + uint64(skip)
}
