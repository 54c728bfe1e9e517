package unwind

import "errors"

// errMalformed is what a reader that ran over its end reports.
var errMalformed = errors.New("malformed call frame information")

// reader reads little-endian values. Beyond its end it gives zeros and is bad.
type reader struct {
	data []byte
	at   int
	bad  bool
}

func (r *reader) left() int { return len(r.data) - r.at }

func (r *reader) bytes(n uint64) []byte {
	if r.bad || n > uint64(r.left()) {
		r.bad = true
		return nil
	}
	b := r.data[r.at : r.at+int(n)]
	r.at += int(n)
	return b
}

// unsigned reads an integer of n bytes.
func (r *reader) unsigned(n int) (v uint64) {
	b := r.bytes(uint64(n))
	for i := len(b) - 1; i >= 0; i-- {
		v = v<<8 | uint64(b[i])
	}
	return v
}

// signed reads an integer of n bytes and extends its sign.
func (r *reader) signed(n int) int64 {
	shift := 64 - 8*n
	return int64(r.unsigned(n)<<shift) >> shift
}

func (r *reader) u8() uint8 { return uint8(r.unsigned(1)) }

func (r *reader) uleb() (v uint64) {
	for shift := 0; ; shift += 7 {
		b := r.u8()
		if shift < 64 {
			v |= uint64(b&0x7f) << shift
		}
		if b&0x80 == 0 {
			return v
		}
	}
}

func (r *reader) sleb() (v int64) {
	for shift := 0; ; shift += 7 {
		b := r.u8()
		if shift < 64 {
			v |= int64(b&0x7f) << shift
		}
		if b&0x80 == 0 {
			if shift+7 < 64 && b&0x40 != 0 {
				v |= -1 << (shift + 7)
			}
			return v
		}
	}
}

func (r *reader) cString() string {
	for i := r.at; i < len(r.data); i++ {
		if r.data[i] == 0 {
			s := string(r.data[r.at:i])
			r.at = i + 1
			return s
		}
	}
	r.bad = true
	return ""
}

// Pointer encodings (LSB 5.0, 10.5.1): a format and what it is relative to.
const (
	encodingOmit     = 0xff
	encodingIndirect = 0x80
	encodingPCRel    = 0x10
	encodingDataRel  = 0x30
)

// pointer reads an encoded pointer; address is that of r.data[0], dataBase what
// DW_EH_PE_datarel refers to.
func (r *reader) pointer(encoding uint8, address, dataBase uint64) uint64 {
	if encoding == encodingOmit || encoding&encodingIndirect != 0 {
		r.bad = true
		return 0
	}
	place := address + uint64(r.at)
	var v uint64
	switch encoding & 0x0f {
	case 0x00, 0x04, 0x0c:
		v = r.unsigned(8)
	case 0x01:
		v = r.uleb()
	case 0x02:
		v = r.unsigned(2)
	case 0x03:
		v = r.unsigned(4)
	case 0x09:
		v = uint64(r.sleb())
	case 0x0a:
		v = uint64(r.signed(2))
	case 0x0b:
		v = uint64(r.signed(4))
	default:
		r.bad = true
	}
	switch encoding & 0x70 {
	case 0:
	case encodingPCRel:
		v += place
	case encodingDataRel:
		v += dataBase
	default:
		r.bad = true
	}
	return v
}
