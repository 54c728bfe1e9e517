package unwind

import (
	"bytes"
	"encoding/binary"
	"os"
	"testing"

	"github.com/initprof/initprof/profiler/trace"
)

// object64 lays out an ELF file with one segment at address 0 that holds an
// .eh_frame_hdr, an .eh_frame and, as a section, the same as .debug_frame.
func object64(machine uint16, header, frames []byte) []byte {
	const headers, sections = 64, 2
	hdrAt := uint64(headers + 2*56)
	framesAt := hdrAt + uint64(len(header))
	namesAt := framesAt + uint64(len(frames))
	names := []byte("\x00.debug_frame\x00")
	tableAt := namesAt + uint64(len(names))
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			_ = binary.Write(&b, le, v) // a buffer takes all
		}
	}
	put([]byte("\x7fELF\x02\x01\x01"), make([]byte, 9), uint16(3), machine, uint32(1), uint64(0), uint64(headers), tableAt,
		uint32(0), uint16(64), uint16(56), uint16(2), uint16(64), uint16(sections), uint16(1))
	put(uint32(1), uint32(5), uint64(0), uint64(0), uint64(0), tableAt, tableAt, uint64(4096))
	put(uint32(0x6474e550), uint32(4), hdrAt, hdrAt, hdrAt, uint64(len(header)), uint64(len(header)), uint64(4))
	put(header, frames, names)
	put(uint32(1), uint32(1), uint64(0), uint64(0), framesAt, uint64(len(frames)), uint32(0), uint32(0), uint64(1), uint64(0))
	put(uint32(0), uint32(3), uint64(0), uint64(0), namesAt, uint64(len(names)), uint32(0), uint32(0), uint64(1), uint64(0))
	return b.Bytes()
}

// FuzzOpenTable opens whatever file there is, and unwinds from some of its addresses.
func FuzzOpenTable(f *testing.F) {
	cie := []byte{0x14, 0, 0, 0, 0, 0, 0, 0, 1, 'z', 'R', 0, 1, 0x78, 16, 1, 0x1b, 0x0c, 7, 8, 0x90, 1, 0, 0}
	fde := []byte{0x14, 0, 0, 0, 0x1c, 0, 0, 0, 0, 0, 0, 0, 0xff, 0, 0, 0, 0, 0x41, 0x0e, 16, 0x0a, 0x0b, 0, 0}
	header := []byte{1, 0x1b, 3, 0x3b, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 44, 0, 0, 0}
	for _, machine := range []uint16{machineAMD64, machineARM64} {
		seed, err := OpenTable(bytes.NewReader(object64(machine, header, append(append(bytes.Clone(cie), fde...), 0, 0, 0, 0))))
		if err != nil {
			f.Fatal(err)
		}
		if function, err := seed.find(230); function == nil || err != nil {
			f.Fatalf("the seed has no function at 230: %v", err)
		}
		f.Add(object64(machine, header, append(append(bytes.Clone(cie), fde...), 0, 0, 0, 0)), uint64(230), uint64(0x1000))
	}
	if b, err := os.ReadFile("/lib64/ld-linux-x86-64.so.2"); err == nil && len(b) > 1<<14 {
		f.Add(b[:1<<14], uint64(0x5000), uint64(0x1000))
	}
	f.Fuzz(func(t *testing.T, file []byte, address, sp uint64) {
		table, err := OpenTable(bytes.NewReader(file))
		if err != nil {
			return
		}
		goarch := "amd64"
		if table.arch == &arm64 {
			goarch = "arm64"
		}
		u := NewUnwinder()
		memory := bytes.Repeat([]byte{byte(address), byte(address >> 8), 0, 0, 0, 0, 0, 0}, 64)
		for i := range uint64(8) {
			s := Stack{PC: address + i, Memory: Region{Start: sp, Bytes: memory}}
			for r := range s.Registers {
				s.Registers[r] = sp + uint64(r)*8
			}
			frames, why, _ := u.Unwind(goarch, &s, func(a uint64) (Code, bool) {
				return Code{Table: table, Address: table.Address(0, a)}, true
			}, nil)
			if len(frames) == 0 || len(frames) > MaxFrames || int(why) >= len(trace.Truncations) {
				t.Fatalf("%d frames, reason %d", len(frames), why)
			}
		}
	})
}

// FuzzProgram executes programs of a CIE and an FDE, and the expressions in them.
func FuzzProgram(f *testing.F) {
	f.Add([]byte{0x0c, 7, 8, 0x90, 1}, []byte{0x41, 0x0e, 16, 0x86, 2, 0x0a, 0x43, 0x0d, 6, 0x0b}, uint64(5), uint64(1), int64(-8), uint8(16))
	f.Add([]byte{0x0c, 7, 8, 0x90, 1}, []byte{0x0f, 11, 0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}, uint64(0), uint64(1), int64(-8), uint8(16))
	f.Add([]byte{0x0c, 31, 0}, []byte{0x41, 0x0e, 32, 0x9d, 4, 0x9e, 3, 0x2d, 0x41, 0xde, 0xdd, 0x0e, 0}, uint64(4), uint64(4), int64(-8), uint8(30))
	f.Fuzz(func(t *testing.T, initial, program []byte, at, code uint64, data int64, column uint8) {
		for _, a := range []*arch{&amd64, &arm64} {
			table := &Table{arch: a}
			table.work.Store(maxWork)
			function := &fde{
				begin: 0x1000, limit: 0x2000, program: program,
				cie: &cie{codeAlign: code, dataAlign: data, returnColumn: uint64(column), program: initial},
			}
			r, err := table.row(function, 0x1000+at%0x1000)
			if err != nil {
				continue
			}
			steps := 0
			w := walk{arch: a, at: 0x1000 + at%0x1000, steps: &steps}
			w.stack = &Stack{Memory: Region{Start: 0x7000, Bytes: bytes.Repeat([]byte{0x10, 0x70, 0, 0, 0, 0, 0, 0}, 64), Missing: at}}
			for i := range w.regs {
				w.regs[i] = 0x7000 + uint64(i)*8
			}
			before := w.regs[a.sp]
			if end, _ := w.byRow(r, true); !end && w.regs[a.sp] < before && !r.signal {
				for _, s := range r.saved {
					if int(s.reg) == a.sp {
						return // the table says so itself
					}
				}
				t.Fatalf("the stack pointer went from %#x to %#x", before, w.regs[a.sp])
			}
		}
	})
}
