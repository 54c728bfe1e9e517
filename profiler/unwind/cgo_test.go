package unwind

import (
	"bytes"
	"slices"
	"testing"

	"github.com/initprof/initprof/profiler/trace"
)

// mixed is a stack of Go → C → Go → C on its two stacks: C's functions at
// 0x1000, Go's at 0x8000, each called from where the next frame says.
type mixed struct {
	unwinder *Unwinder
	stack    Stack
	code     [0x10000]byte
	table    *Table // of Go's and C's code, as in a program
}

const (
	leafPC     = 0x1010
	crosscall2 = 0x8500
)

func (m *mixed) space(address uint64) (Code, bool) {
	switch {
	case address >= 0x1000 && address < 0x2000:
		return Code{Table: m.table, Address: address}, true
	case address >= 0x8000 && address < 0x9000:
		return Code{Table: m.table, Address: address, Callback: address == crosscall2-1}, true
	}
	return Code{}, false
}

// called puts a call before a return address, and how to leave its function.
func (m *mixed) called(a *arch, returnAddress uint64, r *row) {
	if a == &arm64 {
		le.PutUint32(m.code[returnAddress-4:], 0x94000000) // bl
	} else {
		m.code[returnAddress-5] = 0xe8 // call rel32
	}
	m.unwinder.rows[place{m.table, returnAddress - 1}] = r
}

func newMixed(a *arch) *mixed {
	m := &mixed{unwinder: NewUnwinder()}
	m.table = &Table{arch: a, goABI: true, object: &object{
		r: bytes.NewReader(m.code[:]), segments: []segment{{size: uint64(len(m.code))}},
	}}

	const thread, goroutine, end, g = 0x70000000, 0xc0000000, 0xc0001000, 0xc0008000
	memory := map[uint64]*[0x1000]byte{thread: {}, goroutine: {}}
	put := func(at uint64, words ...uint64) {
		for i, w := range words {
			le.PutUint64(memory[at&^0xfff][at&0xfff+uint64(i)*8:], w)
		}
	}
	// frame is a row: the CFA is size above a register, the return address below it.
	frame := func(register int, size int64) *row {
		return &row{cfa: rule{kind: ruleRegister, reg: uint8(register), offset: size}, ra: rule{kind: ruleOffset, offset: -8}}
	}
	calling := func(sp, record uint64) {
		put(sp+a.cgo.g, g)
		put(sp+a.cgo.depth, end-record-a.cgo.record)
	}
	// The inner C: the leaf, a caller, asmcgocall.
	m.unwinder.rows[place{m.table, leafPC}] = frame(a.sp, 32)
	put(thread+24, 0x1100)
	m.called(a, 0x1100, frame(a.sp, 16))
	put(thread+40, 0x8100)
	m.called(a, 0x8100, nil)
	calling(thread+48, goroutine+0x400)
	// The inner Go, up to cgocallback, whose frame record is on the thread's stack.
	put(goroutine+0x400, goroutine+0x480, 0x8200)
	put(goroutine+0x480, goroutine+0x500, 0x8300)
	put(goroutine+0x500, thread+0x100, 0x8400)
	put(thread+0x100, 0, crosscall2)
	for _, ra := range []uint64{0x8200, 0x8300, 0x8400, crosscall2} {
		m.called(a, ra, nil)
	}
	// The outer C, whose frame only a register that crosscall2 keeps leads to.
	first := a.cgo.saved[0]
	outer := thread + 0x100 + a.cgo.size + 48
	put(thread+0x100+first.at, outer)
	put(thread+0x100+a.cgo.returns, 0x1200)
	m.called(a, 0x1200, frame(first.register, 0))
	put(outer-8, 0x8100)
	calling(outer, goroutine+0x600)
	// The outer Go.
	put(goroutine+0x600, goroutine+0x680, 0x8600)
	put(goroutine+0x680, goroutine+0x700, 0x8700)
	put(goroutine+0x700, 0, 0x8800)
	for _, ra := range []uint64{0x8600, 0x8700, 0x8800} {
		m.called(a, ra, nil)
	}

	m.stack = Stack{
		PC: leafPC, Memory: Region{Start: thread, Bytes: memory[thread][:]},
		Goroutine: &Goroutine{G: g, End: end, Memory: Region{Start: goroutine + 0x400, Bytes: memory[goroutine][0x400:]}},
	}
	m.stack.Registers[a.sp] = thread
	if a == &amd64 { // whose asmcgocall keeps it
		m.stack.Registers[a.fp] = goroutine + 0x400
	}
	return m
}

// A walk goes from the thread's stack to the goroutine's and back wherever Go
// and C call each other, and says why where it cannot.
func TestWalkThroughGoAndC(t *testing.T) {
	whole := []uint64{leafPC, 0x1100, 0x8100, 0x8200, 0x8300, 0x8400, crosscall2, 0x1200, 0x8100, 0x8600, 0x8700, 0x8800}
	for _, c := range []struct {
		name   string
		change func(s *Stack)
		depth  int
		why    trace.Truncation
	}{
		{"whole", func(*Stack) {}, len(whole), trace.Complete},
		{"the goroutine's stack was not found", func(s *Stack) { s.Goroutine = nil }, 3, trace.TruncatedFrame},
		{"it could not be read", func(s *Stack) { s.Goroutine.Memory.Bytes = nil }, 3, trace.TruncatedPage},
		{"it goes on beyond its copy", func(s *Stack) { s.Goroutine.Memory.Bytes = s.Goroutine.Memory.Bytes[:0x100] }, 5, trace.TruncatedCopy},
		{"the thread's does", func(s *Stack) { s.Memory.Bytes = s.Memory.Bytes[:0x120] }, 7, trace.TruncatedCopy},
	} {
		for name, a := range map[string]*arch{"amd64": &amd64, "arm64": &arm64} {
			t.Run(c.name+"/"+name, func(t *testing.T) {
				m := newMixed(a)
				c.change(&m.stack)
				frames, why, byCFI := m.unwinder.Unwind(name, &m.stack, m.space, nil)
				if !slices.Equal(frames, whole[:c.depth]) || why != c.why || !byCFI {
					t.Errorf("%#x, %q; want %#x, %q", frames, trace.Truncations[why], whole[:c.depth], trace.Truncations[c.why])
				}
			})
		}
	}
}

// Whatever lies on the two stacks, a walk ends.
func FuzzMixedStack(f *testing.F) {
	m := newMixed(&amd64)
	f.Add(m.stack.Memory.Bytes[:0x200], m.stack.Goroutine.Memory.Bytes[:0x400], uint64(0xc0001000), uint64(0xc0008000))
	f.Fuzz(func(t *testing.T, thread, goroutine []byte, end, g uint64) {
		for name, a := range map[string]*arch{"amd64": &amd64, "arm64": &arm64} {
			m := newMixed(a)
			m.stack.Memory.Bytes, m.stack.Goroutine.Memory.Bytes = thread, goroutine
			m.stack.Goroutine.End, m.stack.Goroutine.G = end, g
			frames, why, _ := m.unwinder.Unwind(name, &m.stack, m.space, nil)
			if len(frames) == 0 || len(frames) > MaxFrames || int(why) >= len(trace.Truncations) {
				t.Fatalf("%d frames, reason %d", len(frames), why)
			}
		}
	})
}
