package unwind

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

var le = binary.LittleEndian

// ErrNotELF is returned, wrapped, for a file that is not a 64-bit
// little-endian ELF object of a known machine.
var ErrNotELF = errors.New("not a 64-bit little-endian ELF object")

// Bounds on what is read of one object, far above what real objects hold.
const (
	maxHeaders = 4096      // program or section headers
	maxSection = 128 << 20 // bytes of .eh_frame_hdr, .eh_frame or .debug_frame
)

// Machines, as e_machine has them.
const (
	machineAMD64 = 62
	machineARM64 = 183
)

// segment is one PT_LOAD program header.
type segment struct{ offset, address, size uint64 }

// section is a piece of a file at a virtual address; address is 0 for sections
// that are not loaded.
type section struct {
	name         string
	flags        uint64
	offset, size uint64
	address      uint64
}

// object is the part of an ELF file that unwinding needs.
type object struct {
	r        io.ReaderAt
	arch     *arch
	segments []segment
	header   section   // .eh_frame_hdr
	notes    []section // PT_NOTE
	sections []section
}

// openObject reads the headers of an ELF file.
func openObject(r io.ReaderAt) (*object, error) {
	var h [64]byte
	if _, err := r.ReadAt(h[:], 0); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, ErrNotELF
		}
		return nil, fmt.Errorf("read ELF header: %w", err)
	}
	if !bytes.HasPrefix(h[:], []byte("\x7fELF\x02\x01")) {
		return nil, ErrNotELF
	}
	o := &object{r: r}
	switch le.Uint16(h[18:]) {
	case machineAMD64:
		o.arch = &amd64
	case machineARM64:
		o.arch = &arm64
	default:
		return nil, fmt.Errorf("%w: machine %d", ErrNotELF, le.Uint16(h[18:]))
	}
	if size, n := le.Uint16(h[54:]), int(le.Uint16(h[56:])); size == 56 && n <= maxHeaders {
		table := make([]byte, n*56)
		if _, err := r.ReadAt(table, int64(le.Uint64(h[32:])&(1<<63-1))); err != nil {
			return nil, fmt.Errorf("read program headers: %w", err)
		}
		o.readSegments(table)
	}
	if size, n := le.Uint16(h[58:]), int(le.Uint16(h[60:])); size == 64 && n <= maxHeaders {
		table := make([]byte, n*64)
		if _, err := r.ReadAt(table, int64(le.Uint64(h[40:])&(1<<63-1))); err == nil { // a stripped file has none
			o.readSections(table, int(le.Uint16(h[62:])))
		}
	}
	return o, nil
}

func (o *object) readSegments(table []byte) {
	const (
		load    = 1
		note    = 4
		ehFrame = 0x6474e550 // PT_GNU_EH_FRAME
	)
	for ; len(table) > 0; table = table[56:] {
		offset, address, size := le.Uint64(table[8:]), le.Uint64(table[16:]), le.Uint64(table[32:])
		switch le.Uint32(table) {
		case load:
			o.segments = append(o.segments, segment{offset: offset, address: address, size: size})
		case note:
			o.notes = append(o.notes, section{offset: offset, size: size})
		case ehFrame:
			o.header = section{offset: offset, address: address, size: min(size, maxSection)}
		}
	}
}

func (o *object) readSections(table []byte, namesIndex int) {
	const nobits = 8
	var names []byte
	if namesIndex*64+64 <= len(table) {
		s := table[namesIndex*64:]
		names = make([]byte, min(le.Uint64(s[32:]), 1<<20))
		n, _ := o.r.ReadAt(names, int64(le.Uint64(s[24:])&(1<<63-1)))
		names = names[:n]
	}
	for ; len(table) > 0; table = table[64:] {
		name := ""
		if at := int(le.Uint32(table)); at < len(names) {
			b, _, _ := bytes.Cut(names[at:], []byte{0})
			name = string(b)
		}
		if le.Uint32(table[4:]) == nobits {
			continue
		}
		o.sections = append(o.sections, section{
			name: name, flags: le.Uint64(table[8:]), address: le.Uint64(table[16:]),
			offset: le.Uint64(table[24:]), size: le.Uint64(table[32:]),
		})
	}
}

// read reads up to n bytes at a file offset, and fewer only at the file's end.
func (o *object) read(offset, n uint64) ([]byte, error) {
	if n > maxSection || offset > 1<<62 {
		return nil, fmt.Errorf("%d bytes at %#x are beyond any bound", n, offset)
	}
	var b bytes.Buffer // grows with what the file holds, not with what it claims
	if _, err := io.Copy(&b, io.NewSectionReader(o.r, int64(offset), int64(n))); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

// fileOffset translates a virtual address.
func (o *object) fileOffset(address uint64) (offset, left uint64, ok bool) {
	for _, s := range o.segments {
		if address >= s.address && address-s.address < s.size {
			return s.offset + address - s.address, s.size - (address - s.address), true
		}
	}
	return 0, 0, false
}

// section returns the content of a section, unpacked.
func (o *object) section(name string) (data []byte, address uint64, ok bool) {
	const compressed = 0x800 // SHF_COMPRESSED
	for _, s := range o.sections {
		if s.name != name || s.size > maxSection {
			continue
		}
		data, err := o.read(s.offset, s.size)
		if err != nil || len(data) == 0 {
			return nil, 0, false
		}
		if s.flags&compressed != 0 {
			if len(data) < 24 || le.Uint32(data) != 1 { // ELFCOMPRESS_ZLIB
				return nil, 0, false
			}
			z, err := zlib.NewReader(bytes.NewReader(data[24:]))
			if err != nil {
				return nil, 0, false
			}
			if data, err = io.ReadAll(io.LimitReader(z, maxSection)); err != nil {
				return nil, 0, false
			}
		}
		return data, s.address, true
	}
	return nil, 0, false
}

// isGo tells whether the object holds Go code, which keeps frame pointers.
func (o *object) isGo() bool {
	for _, s := range o.sections {
		if s.name == ".gopclntab" || s.name == ".data.rel.ro.gopclntab" || s.name == ".go.buildinfo" {
			return true
		}
	}
	for _, n := range o.notes {
		if b, err := o.read(n.offset, min(n.size, 1<<16)); err == nil && bytes.Contains(b, []byte("Go\x00\x00")) {
			return true
		}
	}
	return false
}
