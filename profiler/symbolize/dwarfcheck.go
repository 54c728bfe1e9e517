package symbolize

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// debug/dwarf trusts what it reads: it makes tables as large as a header says,
// and reads the abbreviations of every unit anew, wherever they are. What is
// checked here bounds its memory and time by the size of the sections.

// failedTable is the work that a table costs which turns out malformed: how far
// it was read is not known.
const failedTable = 1 << 20

var errUnits = errors.New("malformed unit header")

// checkUnits refuses headers that claim more units, or more abbreviations in
// all, than the sections can hold without reading the same ones again and again.
func checkUnits(info, abbrev []byte) error {
	known := map[uint64]bool{}
	units, work := 0, 0
	for len(info) > 0 {
		length, header, wide := uint64(0), 4, 4
		if len(info) < 4 {
			return errUnits
		}
		if length = uint64(le.Uint32(info)); length == 0xffffffff {
			if header, wide = 12, 8; len(info) < 12 {
				return errUnits
			}
			length = le.Uint64(info[4:])
		}
		if length > uint64(len(info)-header) {
			return errUnits
		}
		body := info[header : uint64(header)+length]
		info = info[uint64(header)+length:]
		if len(body) == 0 {
			continue // padding
		}
		if units++; units > maxUnits {
			return fmt.Errorf("more than %d units", maxUnits)
		}
		at := 2 // behind the version
		if len(body) >= 2 && le.Uint16(body) >= 5 {
			at = 4 // and type and address size
		}
		if len(body) < at+wide {
			return errUnits
		}
		offset := uint64(le.Uint32(body[at:]))
		if wide == 8 {
			offset = le.Uint64(body[at:])
		}
		if known[offset] || offset >= uint64(len(abbrev)) {
			continue
		}
		known[offset] = true
		if work += abbreviations(abbrev[offset:]); work > 2*len(abbrev) {
			return errors.New("its abbreviations overlap")
		}
	}
	return nil
}

// abbreviations returns how many bytes a table of abbreviations takes.
func abbreviations(b []byte) int {
	c := cursorOf(b)
	for !c.bad && c.uvarint() != 0 {
		c.uvarint() // tag
		c.skip(1)   // has it children
		for !c.bad {
			attribute, form := c.uvarint(), c.uvarint()
			if attribute == 0 && form == 0 {
				break
			}
			if form == 0x21 { // DW_FORM_implicit_const
				c.uvarint()
			}
		}
	}
	return len(b) - len(c.b)
}

// checkLines refuses the header of a line table of DWARF 5 that claims more
// directories or files than fit into the section.
func checkLines(line []byte, offset int64) error {
	if offset < 0 || offset > int64(len(line)) {
		return nil // debug/dwarf says so
	}
	c := cursorOf(line[offset:])
	wide := 4
	if n := c.uint32(); n == 0xffffffff {
		c.skip(8)
		wide = 8
	}
	if c.uint16() != 5 {
		return nil // older tables end with an empty entry
	}
	c.skip(2 + wide + 5) // sizes of addresses and selectors, header length, five parameters
	opcodes := int(c.byte())
	c.skip(max(opcodes-1, 0))
	for range 2 { // directories, files
		var forms []uint64
		for range c.byte() {
			c.uvarint()
			forms = append(forms, c.uvarint())
		}
		count := c.uvarint()
		if count > uint64(len(c.b)) {
			return fmt.Errorf("a line table of %d entries", count)
		}
		for range count {
			for _, form := range forms {
				c.skipForm(form, wide)
			}
			if c.bad {
				return nil // debug/dwarf stops there too
			}
		}
	}
	return nil
}

// byteCursor reads a table. After the end it returns zeros, and bad is set.
type byteCursor struct {
	b   []byte
	bad bool
}

func cursorOf(b []byte) *byteCursor { return &byteCursor{b: b} }

func (c *byteCursor) skip(n int) []byte {
	if n < 0 || n > len(c.b) {
		c.b, c.bad = nil, true
		return make([]byte, 8)
	}
	skipped := c.b[:n]
	c.b = c.b[n:]
	return skipped
}

func (c *byteCursor) byte() byte     { return c.skip(1)[0] }
func (c *byteCursor) uint16() uint16 { return le.Uint16(c.skip(2)) }
func (c *byteCursor) uint32() uint32 { return le.Uint32(c.skip(4)) }

func (c *byteCursor) uvarint() uint64 {
	v, n := binary.Uvarint(c.b)
	if n <= 0 {
		c.b, c.bad = nil, true
		return 0
	}
	c.b = c.b[n:]
	return v
}

// skipForm steps over a value of an entry in a line table's header.
func (c *byteCursor) skipForm(form uint64, wide int) {
	switch form {
	case 0x08: // string
		for !c.bad && c.byte() != 0 {
			continue
		}
	case 0x0e, 0x1f, 0x17: // strp, line_strp, sec_offset
		c.skip(wide)
	case 0x0f, 0x1a: // udata, strx
		c.uvarint()
	case 0x1e: // data16
		c.skip(16)
	case 0x0b, 0x25: // data1, strx1
		c.skip(1)
	case 0x05, 0x26: // data2, strx2
		c.skip(2)
	case 0x27: // strx3
		c.skip(3)
	case 0x06, 0x28: // data4, strx4
		c.skip(4)
	case 0x07: // data8
		c.skip(8)
	case 0x09: // block
		c.skip(int(min(c.uvarint(), uint64(len(c.b)+1))))
	default:
		c.b, c.bad = nil, true
	}
}
