package unwind

import (
	"bytes"

	"github.com/initprof/initprof/profiler/trace"
)

// Region is a piece of the subject's memory as it was when the stack was taken.
type Region struct {
	Start   uint64
	Bytes   []byte
	Missing uint64 // bit i: the i-th piece of PieceBytes could not be read
}

// PieceBytes is the size of a piece of a Region that can be missing.
const PieceBytes = 1024

// Stack is what was taken of a thread.
type Stack struct {
	PC        uint64
	Registers [32]uint64 // by their DWARF numbers; x86-64 has 16
	Memory    Region     // from the stack pointer on
	Top       uint64     // where the thread's stack begins; 0: unknown
	Goroutine *Goroutine // whose stack it goes on to; nil: there is none
}

// Caller is where the leaf's caller lies at a function's first instruction, and
// in a function without a frame.
func (s *Stack) Caller(goarch string) uint64 {
	if goarch == "arm64" {
		return s.Registers[arm64.link] & arm64.addressMask
	}
	w := walk{arch: &amd64, stack: s}
	v, _ := w.load(s.Registers[amd64.sp])
	return v
}

// Code is the object that an address lies in.
type Code struct {
	Table   *Table // nil: it could not be read
	Address uint64 // in the object's virtual addresses
	// Callback says that it is crosscall2, through which C called Go.
	Callback bool
}

// Space tells what lies at an address of the process; ok is false where no
// code is mapped.
type Space func(address uint64) (c Code, ok bool)

// MaxFrames bounds a stack.
const MaxFrames = 255

// Unwinder walks stacks, and remembers how to leave each instruction it met.
// It serves one goroutine.
type Unwinder struct {
	rows  map[place]*row // nil: known to have no CFI
	walk  walk
	steps int // of expressions, so far
}

type place struct {
	table   *Table
	address uint64
}

// Bounds on an Unwinder's memory and time, which real objects stay far below.
const (
	maxRows  = 1 << 18
	maxSteps = 1 << 28
)

// walk is the frame that the unwinding has come to.
type walk struct {
	arch  *arch
	regs  [32]uint64
	at    uint64 // program counter
	stack *Stack
	why   trace.Truncation // why the last load was not possible
	steps *int             // of expressions
}

// NewUnwinder returns an unwinder that remembers nothing yet.
func NewUnwinder() *Unwinder { return &Unwinder{rows: map[place]*row{}} }

// Unwind appends the return addresses of s to frames, leaf first. The first is
// s.PC itself; an instruction that a signal interrupted counts one byte more
// than it is, so that all others can be looked up as return addresses. byCFI
// tells that the leaf's caller is sure.
func (u *Unwinder) Unwind(goarch string, s *Stack, space Space, frames []uint64) (_ []uint64, why trace.Truncation, byCFI bool) {
	w := &u.walk
	*w = walk{arch: &amd64, regs: s.Registers, at: s.PC, stack: s, steps: &u.steps}
	if goarch == "arm64" {
		w.arch = &arm64
	}
	exact, fromC, byRow := true, false, false
	for n := 0; ; n++ {
		at := w.at & w.arch.addressMask
		if n == 0 || !exact {
			frames = append(frames, at)
		} else {
			frames = append(frames, at+1)
		}
		if n == MaxFrames-1 {
			return frames, trace.TruncatedDepth, byCFI
		}
		look := at
		if !exact {
			look--
		}
		code, ok := space(look)
		var row *row
		if ok && code.Table != nil && code.Table.arch == w.arch {
			var err error
			if row, err = u.row(code.Table, code.Address, exact); err != nil {
				return frames, trace.TruncatedCFI, byCFI
			}
		}
		var end bool
		exact = false
		inGo := code.Table != nil && code.Table.goABI
		cameFromC := fromC
		fromC = row != nil || !inGo // a program of Go has C in the same object
		sure := inGo || byRow       // this frame's stack pointer is
		byRow = row != nil
		switch {
		case row == &trampoline:
			end, why = w.bySignal()
			exact = true
		case row != nil:
			end, why = w.byRow(row, n == 0)
			byCFI = byCFI || n == 0
			exact = row.signal
		case w.atTop() && (sure || !w.hasCaller(space)):
			return frames, trace.Complete, byCFI
		case inGo && cameFromC && w.calledByGo():
			end, why = w.toGo()
		case inGo && code.Callback && n > 0:
			end, why = w.toC(space)
		case code.Table != nil && !inGo && w.byCall(n == 0, space):
		default:
			end, why = w.byFramePointer(inGo, space)
		}
		if end {
			return frames, why, byCFI
		}
	}
}

// trampoline is the row of code that ends a signal handler.
var trampoline row

// row returns how to leave an instruction, nil where no CFI tells. Where the
// address is not exact it is the byte before a return address.
func (u *Unwinder) row(t *Table, address uint64, exact bool) (*row, error) {
	key := place{t, address}
	if r, ok := u.rows[key]; ok {
		return r, nil
	}
	var r *row
	if begin := t.code(address+1, uint64(len(t.arch.trampoline))); !exact && bytes.Equal(begin, t.arch.trampoline) {
		r = &trampoline
	} else {
		f, err := t.find(address)
		if err != nil {
			return nil, err
		}
		if f != nil {
			if r, err = t.row(f, address); err != nil {
				return nil, err
			}
		}
	}
	if len(u.rows) >= maxRows {
		clear(u.rows)
	}
	u.rows[key] = r
	return r, nil
}

// register is a register's value as expressions see it.
func (w *walk) register(n uint64) uint64 {
	switch {
	case n < uint64(w.arch.registers):
		return w.regs[n]
	case n == w.arch.pc:
		return w.at
	}
	return 0
}

// load reads a word of the copied memory; w.why says why it cannot.
func (w *walk) load(address uint64) (uint64, bool) {
	m := &w.stack.Memory
	if g := w.stack.Goroutine; g != nil && address >= g.Memory.Start && address < g.End {
		if m = &g.Memory; len(m.Bytes) == 0 {
			w.why = trace.TruncatedPage
			return 0, false
		}
	}
	offset := address - m.Start
	switch {
	case address < m.Start:
		w.why = trace.TruncatedCFI
	case offset >= uint64(len(m.Bytes)) || uint64(len(m.Bytes))-offset < 8:
		w.why = trace.TruncatedCopy
		if w.stack.Top != 0 && address >= w.stack.Top {
			w.why = trace.TruncatedCFI
		}
	case m.Missing != 0 && (m.Missing>>(offset/PieceBytes)&1 != 0 || m.Missing>>((offset+7)/PieceBytes)&1 != 0):
		w.why = trace.TruncatedPage
	default:
		return le.Uint64(m.Bytes[offset:]), true
	}
	return 0, false
}

// value finds the caller's value by a rule.
func (w *walk) value(r *rule, cfa uint64) (uint64, bool) {
	switch r.kind {
	case ruleOffset:
		return w.load(cfa + uint64(r.offset))
	case ruleValOffset:
		return cfa + uint64(r.offset), true
	case ruleRegister:
		return w.register(uint64(r.reg)), true
	case ruleExpr:
		at, ok := w.evaluate(r.expr, cfa, true)
		if !ok {
			return 0, false
		}
		return w.load(at)
	case ruleValExpr:
		return w.evaluate(r.expr, cfa, true)
	}
	return 0, false
}

// noAddress stands for a value that is undefined or out of reach.
const noAddress = 1

// byRow goes to the caller by CFI, or says that and why the walk ends.
func (w *walk) byRow(r *row, leaf bool) (end bool, why trace.Truncation) {
	if r.ra.kind == ruleUndefined {
		return true, trace.Complete
	}
	w.why = trace.TruncatedCFI
	var cfa uint64
	if r.cfa.kind == ruleRegister {
		cfa = w.regs[r.cfa.reg] + uint64(r.cfa.offset)
	} else {
		var ok bool
		if cfa, ok = w.evaluate(r.cfa.expr, 0, false); !ok {
			return true, w.why
		}
	}
	ra, ok := w.value(&r.ra, cfa)
	if !ok {
		return true, w.why
	}
	sp := w.regs[w.arch.sp]
	// A frame that is no frame leads nowhere; a signal can come from any stack.
	if cfa < sp || cfa == sp && !leaf && !r.signal {
		return true, trace.TruncatedCFI
	}
	regs := w.regs
	regs[w.arch.sp] = cfa
	for i := range r.saved {
		s := &r.saved[i]
		v, ok := w.value(&s.rule, cfa)
		if !ok {
			v = noAddress // it matters only if it is used
		}
		regs[s.reg] = v
	}
	w.regs = regs
	w.at = ra
	return ra&w.arch.addressMask == 0, trace.Complete
}

// bySignal goes to what a signal interrupted.
func (w *walk) bySignal() (end bool, why trace.Truncation) {
	w.why = trace.TruncatedCFI
	if !w.arch.signalLayout(w, w.regs[w.arch.sp]+w.arch.signalFrame) {
		return true, w.why
	}
	return w.at == 0, trace.Complete
}

// entrySlack is how far below the stack's top the code of an entry point, which
// has no caller, may have moved the stack pointer.
const entrySlack = 256

// atTop tells whether the walk came to where the thread's stack begins.
func (w *walk) atTop() bool {
	sp := w.regs[w.arch.sp]
	return w.stack.Top != 0 && sp <= w.stack.Top && w.stack.Top-sp <= entrySlack
}

// hasCaller tells whether there is a return address between the stack pointer
// and the stack's top, near which it is: then the walk is not there yet.
func (w *walk) hasCaller(space Space) bool {
	for at := w.regs[w.arch.sp] &^ 7; at < w.stack.Top; at += 8 {
		if ra, ok := w.load(at); ok && isBehindCall(w.arch, ra&w.arch.addressMask, space) {
			return true
		}
	}
	return false
}

// byCall goes to the caller from a function of an object that says nothing of
// it, such as _init: to the return address at the stack's top, or one word
// further where the stack was aligned for a call, or in the link register. It
// says whether there is one: an address behind a call.
func (w *walk) byCall(leaf bool, space Space) bool {
	if w.arch.link != 0 {
		ra := w.regs[w.arch.link] & w.arch.addressMask
		if !leaf || !isBehindCall(w.arch, ra, space) {
			return false
		}
		w.at = ra
		return true
	}
	for slot := range uint64(2) {
		sp := w.regs[w.arch.sp] + 8*slot
		if ra, ok := w.load(sp); ok && isBehindCall(w.arch, ra, space) {
			w.at, w.regs[w.arch.sp] = ra, sp+8
			return true
		}
	}
	return false
}

// byFramePointer goes to the caller by the frame pointer. Code that is not
// known to keep it must lead to code again.
func (w *walk) byFramePointer(kept bool, space Space) (end bool, why trace.Truncation) {
	failed := trace.TruncatedNoCFI
	if kept {
		failed = trace.TruncatedFrame
	}
	fp := w.regs[w.arch.fp]
	if kept && fp == 0 {
		return true, trace.Complete
	}
	// Go's frame pointers may lead to another stack, which lies elsewhere.
	low := w.regs[w.arch.sp]
	if kept {
		low -= w.arch.cgo.record
	}
	if fp&7 != 0 || fp < low && (!kept || w.stack.Goroutine == nil) {
		return true, failed
	}
	next, ok := w.load(fp)
	ra, ok2 := w.load(fp + 8)
	if !ok || !ok2 {
		if kept && w.stack.Goroutine != nil && (w.why == trace.TruncatedCopy || w.why == trace.TruncatedPage) {
			failed = w.why
		}
		return true, failed
	}
	if ra &= w.arch.addressMask; ra == 0 && kept {
		return true, trace.Complete
	}
	if _, code := space(ra - 1); !code {
		return true, failed
	}
	w.regs[w.arch.fp], w.regs[w.arch.sp], w.at = next, fp+16, ra
	return false, trace.Complete
}
