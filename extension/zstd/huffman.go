package zstd

import (
	"encoding/binary"
	"slices"
)

// Kinds of literals.
const (
	rawLiterals        = 0
	compressedLiterals = 2
)

const (
	maxCode     = 11 // bits of a code (RFC 8878, 4.2.1)
	minLiterals = 64 // fewer are not worth a tree
)

// appendLiterals appends the section of that name (RFC 8878, 3.1.1.3.1): by a
// Huffman code where the literals become smaller by it.
func appendLiterals(dst, literals []byte) []byte {
	if packed := huffman(literals); packed != nil {
		// Sizes before and after, with 10, 14 or 18 bits each, in four streams.
		format, width := 1, 10
		for ; len(literals)>>width > 0 || len(packed)>>width > 0; width += 4 {
			format++
		}
		header := uint64(compressedLiterals) | uint64(format)<<2 | uint64(len(literals))<<4 | uint64(len(packed))<<(4+width)
		dst = appendLow(dst, header, (4+2*width)/8)
		return append(dst, packed...)
	}
	n := uint64(len(literals))
	switch {
	case n < 1<<5:
		dst = appendLow(dst, rawLiterals|n<<3, 1)
	case n < 1<<12:
		dst = appendLow(dst, rawLiterals|1<<2|n<<4, 2)
	default:
		dst = appendLow(dst, rawLiterals|3<<2|n<<4, 3)
	}
	return append(dst, literals...)
}

func appendLow(dst []byte, v uint64, bytes int) []byte {
	return append(dst, binary.LittleEndian.AppendUint64(nil, v)[:bytes]...)
}

// huffman returns a tree and four streams, or nil where that is no gain.
func huffman(literals []byte) []byte {
	if len(literals) < minLiterals {
		return nil
	}
	var counts [256]int
	last := 0
	for _, b := range literals {
		counts[b]++
		last = max(last, int(b))
	}
	lengths := codeLengths(counts[:last+1])
	if lengths == nil {
		return nil
	}
	longest := slices.Max(lengths)

	// Weights: 0 is absent, else 1 more for each bit that a code is shorter than
	// the longest. That of the last symbol follows from the others.
	weights := make([]byte, last+1)
	size := 0
	for s, n := range lengths {
		if n > 0 {
			weights[s] = byte(longest + 1 - n)
		}
		size += n * counts[s]
	}
	out := appendWeights(make([]byte, 0, size/8+last/2+16), weights[:last])
	if out == nil {
		return nil
	}
	codes := make([]uint32, last+1)
	next := uint32(0)
	for w := byte(1); w <= byte(longest); w++ {
		for s := range weights {
			if weights[s] == w {
				codes[s] = next
				next++
			}
		}
		next >>= 1
	}

	jump := len(out)
	out = append(out, make([]byte, 6)...)
	quarter := (len(literals) + 3) / 4
	for i := range 4 {
		begin := len(out)
		part := literals[min(i*quarter, len(literals)):min((i+1)*quarter, len(literals))]
		w := bitWriter{dst: out}
		for j := len(part) - 1; j >= 0; j-- {
			w.add(codes[part[j]], lengths[part[j]])
		}
		out = w.close()
		if i < 3 {
			binary.LittleEndian.PutUint16(out[jump+2*i:], uint16(len(out)-begin))
		}
	}
	if len(out) >= len(literals) {
		return nil
	}
	return out
}

// appendWeights appends the description of a tree (RFC 8878, 4.2.1): plain, with 4
// bits a weight, or by finite state entropy, whichever is smaller. It returns nil
// where neither is possible.
func appendWeights(dst, weights []byte) []byte {
	coded := codeWeights(weights)
	if plain := (len(weights) + 1) / 2; len(weights) <= 128 && (coded == nil || plain <= len(coded)) {
		dst = append(dst, byte(127+len(weights)))
		for i := 0; i < len(weights); i += 2 {
			w := weights[i] << 4
			if i+1 < len(weights) {
				w |= weights[i+1]
			}
			dst = append(dst, w)
		}
		return dst
	}
	if coded == nil || len(coded) > 127 {
		return nil
	}
	return append(append(dst, byte(len(coded))), coded...)
}

// codeWeights returns weights after their table, in two interleaved states, or nil
// if there are not two different ones.
func codeWeights(weights []byte) []byte {
	const log = 6 // as exact as the format allows
	var counts [maxCode + 1]int
	for _, w := range weights {
		counts[w]++
	}
	var shares [maxCode + 1]int8 // of 1<<log
	total, most := 0, 0
	for w, n := range counts {
		if n > 0 {
			shares[w] = int8(max(n<<log/len(weights), 1))
		}
		total += int(shares[w])
		if n > counts[most] {
			most = w
		}
	}
	if counts[most] == len(weights) {
		return nil
	}
	shares[most] += int8(1<<log - total) // what rounding left over, or took too much
	if shares[most] < 1 {
		return nil
	}
	w := bitWriter{dst: appendShares(nil, shares[:], log)}
	t := newTable(shares[:], log)
	var states [2]state
	for i := len(weights) - 1; i >= 0; i-- {
		s := &states[i%2]
		if i >= len(weights)-2 {
			s.start(&t, uint32(weights[i]))
		} else {
			s.next(&w, &t, uint32(weights[i]))
		}
	}
	states[1].end(&w, &t)
	states[0].end(&w, &t)
	return w.close()
}

// codeLengths finds the lengths of an optimal prefix code whose codes have at most
// maxCode bits, by merging packages (Larmore and Hirschberg, 1990). It is nil for
// fewer than two symbols.
func codeLengths(counts []int) []int {
	type item struct {
		count int
		of    []byte // the symbols in it
	}
	var symbols []item
	for s, n := range counts {
		if n > 0 {
			symbols = append(symbols, item{n, []byte{byte(s)}})
		}
	}
	if len(symbols) < 2 {
		return nil
	}
	byCount := func(a, b item) int { return a.count - b.count }
	slices.SortStableFunc(symbols, byCount)
	items := slices.Clone(symbols)
	for range maxCode - 1 {
		var merged []item
		for i := 0; i+1 < len(items); i += 2 {
			merged = append(merged, item{items[i].count + items[i+1].count, slices.Concat(items[i].of, items[i+1].of)})
		}
		items = append(merged, symbols...)
		slices.SortStableFunc(items, byCount)
	}
	lengths := make([]int, len(counts))
	for _, it := range items[:2*len(symbols)-2] {
		for _, s := range it.of {
			lengths[s]++
		}
	}
	return lengths
}
