package unwind

import "github.com/initprof/initprof/profiler/trace"

// Goroutine is what was taken of a goroutine's stack where Go and C call each
// other: C runs on the thread's own stack, Go on the goroutine's, and a walk
// goes from the one to the other at every call between them.
type Goroutine struct {
	G      uint64 // address of its runtime.g
	End    uint64 // of its stack, where it begins
	Memory Region
}

// cgoFrames is where the frames lie in which Go and C call each other:
// runtime/asm_GOARCH.s and runtime/cgo/asm_GOARCH.s, the same in Go 1.22 to 1.26.
type cgoFrames struct {
	// runtime.asmcgocall has two words at its stack pointer on the thread's stack:
	// its goroutine, and how far below the end of the goroutine's stack it was.
	g, depth uint64 // of those words, from the stack pointer
	record   uint64 // of its frame record on the goroutine's stack, from there down

	// crosscall2 keeps C's registers above the frame record of runtime.cgocallback.
	saved   []savedRegister
	returns uint64 // of the address that it returns to, from that record
	size    uint64 // from that record to C's stack pointer
}

// savedRegister is a register of C that crosscall2 keeps at an offset from
// runtime.cgocallback's frame record.
type savedRegister struct {
	register int
	at       uint64
}

var cgoAMD64 = cgoFrames{
	g: 8, depth: 0,
	saved:   []savedRegister{{3, 40}, {12, 48}, {13, 56}, {14, 64}, {15, 72}, {6, 88}}, // rbx, r12 … r15, rbp
	returns: 96, size: 104,
}

var cgoARM64 = cgoFrames{
	g: 0, depth: 8, record: 8,
	saved: []savedRegister{
		{19, 88}, {20, 96}, {21, 104}, {22, 112}, {23, 120}, {24, 128}, {25, 136}, {26, 144}, {27, 152}, {28, 160}, {29, 232},
	},
	returns: 240, size: 248,
}

// calledByGo tells whether the walk came from C to runtime.asmcgocall, where the
// goroutine's stack is left. Where that was not copied, arm64 would lead astray:
// there asmcgocall has the frame pointer of the thread's stack.
func (w *walk) calledByGo() bool {
	g, ok := w.load(w.regs[w.arch.sp] + w.arch.cgo.g)
	if w.stack.Goroutine == nil {
		return w.arch.link != 0 && ok && g != 0
	}
	return ok && g == w.stack.Goroutine.G
}

// toGo goes from runtime.asmcgocall to the Go code that called it.
func (w *walk) toGo() (end bool, why trace.Truncation) {
	f, g := w.arch.cgo, w.stack.Goroutine
	if g == nil {
		return true, trace.TruncatedFrame
	}
	depth, ok := w.load(w.regs[w.arch.sp] + f.depth)
	if !ok {
		return true, w.why
	}
	record := g.End - depth - f.record
	if record < g.Memory.Start || record >= g.End {
		return true, trace.TruncatedFrame
	}
	next, ok1 := w.load(record)
	ra, ok2 := w.load(record + 8)
	if !ok1 || !ok2 {
		return true, w.why
	}
	w.regs[w.arch.fp], w.regs[w.arch.sp], w.at = next, record+16, ra&w.arch.addressMask
	return false, trace.Complete
}

// toC goes from crosscall2, which frame pointers led to, to the C code that
// called it, with the registers that CFI needs.
func (w *walk) toC(space Space) (end bool, why trace.Truncation) {
	f := w.arch.cgo
	record := w.regs[w.arch.sp] - 16 // the last step was one by frame pointer
	ra, ok := w.load(record + f.returns)
	if !ok {
		return true, w.why
	}
	ra &= w.arch.addressMask
	if !isBehindCall(w.arch, ra, space) {
		return true, trace.TruncatedFrame
	}
	for _, s := range f.saved {
		v, ok := w.load(record + s.at)
		if !ok {
			return true, w.why
		}
		w.regs[s.register] = v
	}
	w.regs[w.arch.sp], w.at = record+f.size, ra
	return false, trace.Complete
}
