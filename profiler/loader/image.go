package loader

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"slices"

	"github.com/initprof/initprof/profiler/symbolize"
)

var le = binary.LittleEndian

// Bounds on an ld.so: the largest known has 0.3 MB, musl's, which is the whole
// C library, 0.9 MB.
const (
	maxImage     = 16 << 20 // bytes of code and constants that are searched
	maxFunctions = 1 << 18
)

// image is what of a loader is searched: code, constants, and the starts of its
// functions by .eh_frame_hdr, which stripping leaves.
type image struct {
	o      *symbolize.Object
	text   []piece
	consts []piece
	data   []byte   // of all consts, for whole searches
	starts []uint64 // of functions and of their cold parts, ascending
}

// piece is a contiguous part of the file's image.
type piece struct {
	address uint64
	bytes   []byte
}

func newImage(o *symbolize.Object) *image {
	m := &image{o: o}
	left := uint64(maxImage)
	read := func(choose func(symbolize.Segment) bool) []piece {
		var pieces []piece
		for _, s := range segmentsOf(o, choose) {
			b, err := o.ReadAddress(s.Address, min(s.FileSize, left))
			if err != nil {
				continue
			}
			left -= uint64(len(b))
			pieces = append(pieces, piece{s.Address, b})
		}
		return pieces
	}
	m.text = read(func(s symbolize.Segment) bool { return s.Exec })
	// Where constants share a segment with code they are searched there.
	m.consts = append(read(func(s symbolize.Segment) bool { return !s.Exec && !s.Write }), m.text...)
	for _, p := range m.consts {
		m.data = append(m.data, p.bytes...)
	}
	m.readStarts()
	return m
}

// FunctionStarts returns the addresses of an object's functions, and of their
// cold parts, by .eh_frame_hdr, ascending; none if it has no such table.
func FunctionStarts(o *symbolize.Object) []uint64 {
	m := &image{o: o}
	m.readStarts()
	return m.starts
}

// readStarts reads the sorted table of .eh_frame_hdr (LSB, "Exception Frames"):
// version 1, three encodings, the address of .eh_frame, the number of entries,
// and pairs of 32-bit offsets from the header: function and its FDE.
func (m *image) readStarts() {
	address, size, ok := m.o.Program(elf.PT_GNU_EH_FRAME)
	if !ok {
		return
	}
	b, err := m.o.ReadAddress(address, min(size, 12+8*maxFunctions))
	if err != nil || len(b) < 12 || b[0] != 1 || b[2] != 0x03 || b[3] != 0x3b {
		return // of other encodings no linker makes a table
	}
	count := int(min(uint64(le.Uint32(b[8:])), uint64(len(b)-12)/8))
	for i := range count {
		m.starts = append(m.starts, address+uint64(int64(int32(le.Uint32(b[12+8*i:])))))
	}
	slices.Sort(m.starts)
	m.starts = slices.Compact(m.starts)
	if m.text != nil {
		m.starts = slices.DeleteFunc(m.starts, func(a uint64) bool { return !m.executable(a) })
	}
}

// function returns the start and the end of the function, or of the cold part
// of one, that holds an address: its FDE's, up to the next one.
func (m *image) function(address uint64) (start, end uint64, ok bool) {
	i, exact := slices.BinarySearch(m.starts, address)
	if !exact {
		i--
	}
	if i < 0 {
		return 0, 0, false
	}
	end = address + 1
	if i+1 < len(m.starts) {
		end = m.starts[i+1]
	}
	return m.starts[i], end, true
}

func (m *image) isStart(address uint64) bool {
	_, exact := slices.BinarySearch(m.starts, address)
	return exact
}

func (m *image) executable(address uint64) bool {
	return slices.ContainsFunc(m.text, func(p piece) bool {
		return address >= p.address && address-p.address < uint64(len(p.bytes))
	})
}

// code returns up to n bytes of code.
func (m *image) code(address uint64, n int) []byte {
	for _, p := range m.text {
		if address >= p.address && address-p.address < uint64(len(p.bytes)) {
			b := p.bytes[address-p.address:]
			return b[:min(n, len(b))]
		}
	}
	return nil
}

// findCString returns the address of a C string of which all is given, or 0.
func (m *image) findCString(s string) uint64 {
	at := m.findString(append(append([]byte{0}, s...), 0))
	if at == 0 {
		return 0
	}
	return at + 1
}

// findString returns the address of bytes among the constants, or 0.
func (m *image) findString(s []byte) uint64 {
	for _, p := range m.consts {
		if i := bytes.Index(p.bytes, s); i >= 0 {
			return p.address + uint64(i)
		}
	}
	return 0
}

// reference is an instruction that forms an address.
type reference struct{ from, to uint64 }

// references returns the code that forms any of the addresses.
func (m *image) references(arch string, to ...uint64) []reference {
	var refs []reference
	for _, p := range m.text {
		if arch == "amd64" {
			refs = append(refs, referencesAMD64(p, to)...)
		} else {
			refs = append(refs, m.referencesARM64(p, to)...)
		}
	}
	slices.SortFunc(refs, func(a, b reference) int { return cmp.Compare(a.from, b.from) })
	return refs
}

// referencesAMD64 finds lea disp32(%rip),reg: REX.W 8d, ModRM 00 reg 101.
func referencesAMD64(p piece, to []uint64) []reference {
	var refs []reference
	b := p.bytes
	for i := 0; i+7 <= len(b); i++ {
		if b[i+1] != 0x8d || b[i]&0xfb != 0x48 || b[i+2]&0xc7 != 0x05 {
			continue
		}
		from := p.address + uint64(i)
		if target := from + 7 + uint64(int64(int32(le.Uint32(b[i+3:])))); slices.Contains(to, target) {
			refs = append(refs, reference{from, target})
		}
	}
	return refs
}

// referencesARM64 finds adrp Xn, page and add Xd, Xn, #offset behind it in the
// same function.
func (m *image) referencesARM64(p piece, to []uint64) []reference {
	var refs []reference
	var page [32]uint64 // what adrp put into each register, 0 if nothing
	for i := 0; i+4 <= len(p.bytes); i += 4 {
		pc := p.address + uint64(i)
		if m.isStart(pc) {
			page = [32]uint64{}
		}
		w := le.Uint32(p.bytes[i:])
		switch {
		case w&0x9f000000 == 0x90000000: // adrp
			offset := int64(int32(w<<8)>>13)<<2 | int64(w>>29&3)
			page[w&31] = pc&^0xfff + uint64(offset<<12)
		case w&0xffc00000 == 0x91000000: // add, 64 bits, immediate, not shifted
			base := page[w>>5&31]
			if target := base + uint64(w>>10&0xfff); base != 0 && slices.Contains(to, target) {
				refs = append(refs, reference{pc, target})
			}
		}
	}
	return refs
}

// transfer is a direct call or jump.
type transfer struct {
	from, to    uint64
	call        bool
	conditional bool
}

// transfers calls f for every direct call and jump of the code. On amd64, where
// instructions have no fixed length, it also sees some that are none.
func (m *image) transfers(arch string, f func(transfer)) {
	for _, p := range m.text {
		b := p.bytes
		if arch == "arm64" {
			for i := 0; i+4 <= len(b); i += 4 {
				if t, ok := transferARM64(le.Uint32(b[i:]), p.address+uint64(i)); ok {
					f(t)
				}
			}
			continue
		}
		for i := 0; i+5 <= len(b); i++ {
			from := p.address + uint64(i)
			switch {
			case b[i] == 0xe8, b[i] == 0xe9:
				f(transfer{from: from, to: from + 5 + uint64(int64(int32(le.Uint32(b[i+1:])))), call: b[i] == 0xe8})
			case b[i] == 0x0f && b[i+1]&0xf0 == 0x80 && i+6 <= len(b):
				f(transfer{from: from, to: from + 6 + uint64(int64(int32(le.Uint32(b[i+2:])))), conditional: true})
			}
		}
	}
}

func transferARM64(w uint32, pc uint64) (transfer, bool) {
	signed := func(field uint32, bits int) uint64 {
		return pc + uint64(int64(int32(field<<(32-bits))>>(32-bits))*4)
	}
	switch {
	case w&0x7c000000 == 0x14000000: // b, bl
		return transfer{from: pc, to: signed(w&0x3ffffff, 26), call: w>>31 == 1}, true
	case w&0xff000010 == 0x54000000, w&0x7e000000 == 0x34000000: // b.cond, cbz, cbnz
		return transfer{from: pc, to: signed(w>>5&0x7ffff, 19), conditional: true}, true
	case w&0x7e000000 == 0x36000000: // tbz, tbnz
		return transfer{from: pc, to: signed(w>>5&0x3fff, 14), conditional: true}, true
	}
	return transfer{}, false
}
