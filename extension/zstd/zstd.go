// Package zstd compresses the bodies that intake sends, into Zstandard frames
// (RFC 8878). It compresses at one level, about that of gzip's fastest, and does
// not decompress.
//
// The module that is usual for it fills tables when the program starts, in every
// cold start; this package builds its own at the first call.
package zstd

import (
	"encoding/binary"
	"math/bits"
)

const (
	magic    = 0xfd2fb528
	maxBlock = 128 << 10 // RFC 8878, 3.1.1.2.4
	minMatch = 4
)

// Kinds of blocks.
const (
	rawBlock        = 0
	compressedBlock = 2
)

// Append appends a frame that holds src to dst. The frame says its size, and
// decoders need that much memory.
func Append(dst, src []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, magic)
	dst = append(dst, 2<<6|1<<5) // a size of 4 bytes, one segment, no checksum
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(src)))
	e := encoder{src: src, repeat: 1, tables: predefined()}
	e.shift = 64 - min(max(bits.Len(uint(len(src))), 8), 15)
	e.table = make([]uint32, 1<<(64-e.shift))
	for start := 0; ; start = e.end {
		e.end = min(start+maxBlock, len(src))
		last := uint32(0)
		if e.end == len(src) {
			last = 1
		}
		header := len(dst)
		dst = append(dst, 0, 0, 0)
		kind, repeat := uint32(compressedBlock), e.repeat
		dst = e.block(dst, start)
		if size := len(dst) - header - 3; size >= e.end-start {
			// Nothing is won, and the decoder sees no offset to repeat.
			kind, e.repeat = rawBlock, repeat
			dst = append(dst[:header+3], src[start:e.end]...)
		}
		size := uint32(len(dst) - header - 3)
		h := last | kind<<1 | size<<3
		dst[header], dst[header+1], dst[header+2] = byte(h), byte(h>>8), byte(h>>16)
		if last == 1 {
			return dst
		}
	}
}

// sequence copies literals, then a match from offset bytes back.
type sequence struct {
	literals, match, offset uint32 // offset as the format encodes it: 1 repeats the last, else 3 more
}

// encoder is the state of a frame.
type encoder struct {
	src    []byte
	end    int      // of the block
	table  []uint32 // by hash: 1 + where such bytes were seen last
	shift  int
	repeat int // the last offset
	tables *tables

	sequences []sequence
	literals  []byte
}

func (e *encoder) hash(at int) uint64 {
	// Six bytes, as the table's slots are few.
	return binary.LittleEndian.Uint64(e.src[at:]) << 16 * 0x9e3779b185ebca87 >> e.shift
}

func (e *encoder) same4(a, b int) bool {
	return binary.LittleEndian.Uint32(e.src[a:]) == binary.LittleEndian.Uint32(e.src[b:])
}

// block appends what a compressed block holds.
func (e *encoder) block(dst []byte, start int) []byte {
	e.sequences, e.literals = e.sequences[:0], e.literals[:0]
	done := start // where the literals begin that no sequence has yet
	for at := start; at < e.end-8; {
		h := e.hash(at)
		from := int(e.table[h]) - 1
		e.table[h] = uint32(at) + 1
		switch next := at + 1; {
		case next > e.repeat && e.same4(next, next-e.repeat):
			at, from = next, next-e.repeat
		case from >= 0 && e.same4(at, from):
			for at > done && from > 0 && e.src[at-1] == e.src[from-1] {
				at--
				from--
			}
		default:
			at += 1 + (at-done)>>6 // faster through what does not repeat
			continue
		}
		n := minMatch
		for at+n < e.end && e.src[at+n] == e.src[from+n] {
			n++
		}
		s := sequence{uint32(at - done), uint32(n), uint32(at - from + 3)}
		if at-from == e.repeat && at > done {
			s.offset = 1
		}
		e.repeat = at - from
		e.sequences = append(e.sequences, s)
		e.literals = append(e.literals, e.src[done:at]...)
		at += n
		done = at
		if at < e.end-8 {
			e.table[e.hash(at-2)] = uint32(at-2) + 1
		}
	}
	e.literals = append(e.literals, e.src[done:e.end]...)
	return e.appendSequences(appendLiterals(dst, e.literals))
}

// appendSequences appends the section of that name (RFC 8878, 3.1.1.3.2). All
// codes use the tables that every decoder has.
func (e *encoder) appendSequences(dst []byte) []byte {
	switch n := len(e.sequences); {
	case n == 0:
		return append(dst, 0)
	case n < 128:
		dst = append(dst, byte(n))
	case n < 0x7f00:
		dst = append(dst, byte(n>>8)+128, byte(n))
	default:
		dst = append(dst, 255, byte(n-0x7f00), byte((n-0x7f00)>>8))
	}
	dst = append(dst, 0) // predefined tables
	w := bitWriter{dst: dst}
	var literals, match, offset state
	// The decoder reads backwards: the last sequence is written first.
	for i := len(e.sequences) - 1; i >= 0; i-- {
		s := &e.sequences[i]
		l, m := codeOf(literalBases[:], s.literals), codeOf(matchBases[:], s.match)
		o := uint32(bits.Len32(s.offset) - 1)
		if i == len(e.sequences)-1 {
			match.start(&e.tables.match, m)
			offset.start(&e.tables.offset, o)
			literals.start(&e.tables.literals, l)
		} else {
			offset.next(&w, &e.tables.offset, o)
			match.next(&w, &e.tables.match, m)
			literals.next(&w, &e.tables.literals, l)
		}
		w.add(s.literals-literalBases[l], int(literalBits[l]))
		w.add(s.match-matchBases[m], int(matchBits[m]))
		w.add(s.offset-1<<o, int(o))
	}
	match.end(&w, &e.tables.match)
	offset.end(&w, &e.tables.offset)
	literals.end(&w, &e.tables.literals)
	return w.close()
}

// bitWriter writes a stream that is read from its end.
type bitWriter struct {
	dst  []byte
	bits uint64
	n    int
}

// add appends the n lowest bits of v, which has no others; n is at most 32.
func (w *bitWriter) add(v uint32, n int) {
	w.bits |= uint64(v) << w.n
	for w.n += n; w.n >= 32; w.n -= 32 {
		w.dst = binary.LittleEndian.AppendUint32(w.dst, uint32(w.bits))
		w.bits >>= 32
	}
}

// flush fills the last byte with zeros.
func (w *bitWriter) flush() []byte {
	for ; w.n > 0; w.n -= 8 {
		w.dst = append(w.dst, byte(w.bits))
		w.bits >>= 8
	}
	return w.dst
}

// close ends the stream with a bit that marks its end.
func (w *bitWriter) close() []byte {
	w.add(1, 1)
	return w.flush()
}
