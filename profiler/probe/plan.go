// Package probe plans, from a subject's file, which of its instructions are to
// be probed: nothing is attached here.
//
// It is the left end of the data flow: capture attaches what it plans.
package probe

import (
	"bytes"
	"fmt"
)

// Object is what a plan needs to know of a subject's ELF file.
type Object interface {
	// LookupFunc returns address and size of a function in virtual addresses.
	LookupFunc(name string) (address, size uint64, ok bool)
	// FileOffset translates a virtual address.
	FileOffset(address uint64) (uint64, error)
	// ReadAddress returns n bytes of the file's part of the image.
	ReadAddress(address, n uint64) ([]byte, error)
	// GoText returns where Go's functions lie in virtual addresses.
	GoText() (address, size uint64, ok bool)
	// HeadersAddress returns where the program headers lie.
	HeadersAddress() (uint64, bool)
	// Frameless tells whether Go code at an address has no frame.
	Frameless(address uint64) bool
}

// Kind is what reaching a point means.
type Kind uint8

// The kinds of points.
const (
	Checkpoint Kind = iota // extension/checkpoint's marker, whose arguments name it
	Entry                  // the program's entry: the loader is done
	Main                   // main.main of Go, or main
)

// Point is an instruction to probe.
type Point struct {
	Offset uint64 // in the file
	Kind   Kind
	Name   string
}

// Program is a subject's file and what its headers tell.
type Program struct {
	Object  Object
	Entry   uint64
	Dynamic bool   // it has an interpreter
	Arch    string // as GOARCH
	Go      bool
}

// Plan is what can be probed, and what cannot, with the reason.
type Plan struct {
	Points  []Point
	Missing []string
	Framed  Framed
}

// Framed is code that is known to keep frame pointers, so that its stacks can
// be walked by them: Go's. The zero value is none.
type Framed struct {
	Program       uint64 // which program it is: its entry less the address of its headers
	Begin         int64  // of the code, from the program's entry on
	Size          uint64
	CallbackBegin uint64 // of crosscall2, through which C calls Go, from Begin on
	CallbackSize  uint64
	// Frameless tells whether code has no frame, so that its caller's address is
	// at the stack's top or in the link register; from the entry on.
	Frameless func(fromEntry int64) bool
}

const checkpointMarker = "github.com/initprof/initprof/extension/checkpoint.mark"

// For plans the probes of a subject.
func For(p Program) Plan {
	var plan Plan
	add := func(kind Kind, name string, address uint64) {
		offset, err := p.Object.FileOffset(address)
		if err != nil {
			plan.Missing = append(plan.Missing, fmt.Sprintf("%s: %v", name, err))
			return
		}
		plan.Points = append(plan.Points, Point{Offset: offset, Kind: kind, Name: name})
	}
	if p.Dynamic {
		add(Entry, "entry", p.Entry)
	}
	if p.Go {
		plan.Framed = p.framed()
		if address, size, ok := p.Object.LookupFunc("main.main"); ok {
			add(Main, "main.main", p.afterStackCheck(address, size))
		}
		if address, _, ok := p.Object.LookupFunc(checkpointMarker); ok {
			add(Checkpoint, "checkpoint.mark", address)
		}
	} else if address, _, ok := p.Object.LookupFunc("main"); ok {
		add(Main, "main", p.afterLandingPad(address))
	} else {
		plan.Missing = append(plan.Missing, "main: the program is stripped and its symbols do not name it")
	}
	return plan
}

func (p Program) framed() Framed {
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
		f.CallbackBegin, f.CallbackSize = address-text, size
	}
	return f
}

// afterStackCheck returns the address of the push that follows a Go function's
// stack check on amd64: the kernel emulates it in 0.6 µs, whereas the compare
// at the function's start would be single-stepped, in 11 to 16 µs.
func (p Program) afterStackCheck(address, size uint64) uint64 {
	if p.Arch != "amd64" {
		return address
	}
	code, err := p.Object.ReadAddress(address, min(size, 32))
	if err != nil {
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

// afterLandingPad skips the endbr64 of CET, which would be single-stepped.
func (p Program) afterLandingPad(address uint64) uint64 {
	code, err := p.Object.ReadAddress(address, 4)
	if p.Arch == "amd64" && err == nil && bytes.Equal(code, []byte{0xf3, 0x0f, 0x1e, 0xfa}) {
		return address + 4
	}
	return address
}
