package traceagent

import (
	"errors"
	"fmt"
	"math"
)

// maxDepth bounds how deep values that are passed over may nest.
const maxDepth = 32

var errShort = errors.New("msgpack: unexpected end")

// reader reads MessagePack. It allocates nothing by a length that is only
// claimed: every element takes at least one byte of what is there.
type reader struct {
	data  []byte
	stats bool // spans are marked for the intake to compute statistics of them
	more  More // may be nil
}

func (r *reader) take(n int) ([]byte, error) {
	if n < 0 || n > len(r.data) {
		return nil, errShort
	}
	b := r.data[:n]
	r.data = r.data[n:]
	return b, nil
}

func (r *reader) uint(n int) (uint64, error) {
	b, err := r.take(n)
	if err != nil {
		return 0, err
	}
	var v uint64
	for _, c := range b {
		v = v<<8 | uint64(c)
	}
	return v, nil
}

func (r *reader) code() (byte, error) {
	b, err := r.take(1)
	if err != nil {
		return 0, err
	}
	return b[0], nil
}

func (r *reader) nil() bool {
	if len(r.data) > 0 && r.data[0] == 0xc0 {
		r.data = r.data[1:]
		return true
	}
	return false
}

func (r *reader) length(what string, fix, mask byte, codes ...byte) (int, error) {
	if r.nil() {
		return 0, nil
	}
	c, err := r.code()
	if err != nil {
		return 0, err
	}
	if c&^mask == fix {
		return int(c & mask), nil
	}
	for i, code := range codes {
		if code == 0 || c != code {
			continue
		}
		n, err := r.uint(1 << i)
		if err != nil {
			return 0, err
		}
		if n > uint64(len(r.data)) {
			return 0, errShort
		}
		return int(n), nil
	}
	return 0, fmt.Errorf("msgpack: 0x%02x is no %s", c, what)
}

func (r *reader) array() (int, error) { return r.length("array", 0x90, 0x0f, 0, 0xdc, 0xdd) }
func (r *reader) mapping() (int, error) {
	return r.length("map", 0x80, 0x0f, 0, 0xde, 0xdf)
}

// text reads a string or bytes.
func (r *reader) text() (string, error) {
	if len(r.data) > 0 && r.data[0] >= 0xc4 && r.data[0] <= 0xc6 {
		b, err := r.bytes()
		return string(b), err
	}
	n, err := r.length("string", 0xa0, 0x1f, 0xd9, 0xda, 0xdb)
	if err != nil {
		return "", err
	}
	b, err := r.take(n)
	return string(b), err
}

func (r *reader) bytes() ([]byte, error) {
	n, err := r.length("bytes", 0xc4, 0, 0xc4, 0xc5, 0xc6)
	if err != nil {
		return nil, err
	}
	return r.take(n)
}

// number reads any number; integers that do not fit wrap as tracers expect of
// 64-bit identifiers.
func (r *reader) number() (integer uint64, float float64, err error) {
	if r.nil() {
		return 0, 0, nil
	}
	c, err := r.code()
	if err != nil {
		return 0, 0, err
	}
	switch {
	case c < 0x80:
		return uint64(c), float64(c), nil
	case c >= 0xe0:
		return uint64(int64(int8(c))), float64(int8(c)), nil
	case c >= 0xcc && c <= 0xcf:
		v, err := r.uint(1 << (c - 0xcc))
		return v, float64(v), err
	case c >= 0xd0 && c <= 0xd3:
		n := 1 << (c - 0xd0)
		v, err := r.uint(n)
		shift := 64 - 8*n
		s := int64(v<<shift) >> shift
		return uint64(s), float64(s), err
	case c == 0xca:
		v, err := r.uint(4)
		f := float64(math.Float32frombits(uint32(v)))
		return truncate(f), f, err
	case c == 0xcb:
		v, err := r.uint(8)
		f := math.Float64frombits(v)
		return truncate(f), f, err
	}
	return 0, 0, fmt.Errorf("msgpack: 0x%02x is no number", c)
}

func truncate(f float64) uint64 {
	if f >= 0 && f < 1<<63 {
		return uint64(f)
	}
	return 0
}

// skip passes over a value of any type.
func (r *reader) skip(depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("msgpack: nested deeper than %d", maxDepth)
	}
	if len(r.data) == 0 {
		return errShort
	}
	c := r.data[0]
	var err error
	switch {
	case c < 0x80, c >= 0xe0, c == 0xc0, c == 0xc2, c == 0xc3:
		_, err = r.take(1)
	case c < 0x90, c == 0xde, c == 0xdf:
		var n int
		if n, err = r.mapping(); err == nil {
			for range 2 * n {
				if err := r.skip(depth + 1); err != nil {
					return err
				}
			}
		}
	case c < 0xa0, c == 0xdc, c == 0xdd:
		var n int
		if n, err = r.array(); err == nil {
			for range n {
				if err := r.skip(depth + 1); err != nil {
					return err
				}
			}
		}
	case c < 0xc0, c >= 0xd9 && c <= 0xdb, c >= 0xc4 && c <= 0xc6:
		_, err = r.text()
	case c >= 0xca && c <= 0xd3:
		_, _, err = r.number()
	case c >= 0xd4 && c <= 0xd8: // fixext
		_, err = r.take(2 + 1<<(c-0xd4))
	case c >= 0xc7 && c <= 0xc9: // ext
		r.data = r.data[1:]
		var n uint64
		if n, err = r.uint(1 << (c - 0xc7)); err == nil {
			if n > uint64(len(r.data)) {
				return errShort
			}
			_, err = r.take(int(n) + 1)
		}
	default:
		return fmt.Errorf("msgpack: 0x%02x is no value", c)
	}
	return err
}
