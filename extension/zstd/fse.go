package zstd

import (
	"math/bits"
	"sort"
	"sync"
)

// Codes of literal and match lengths: the lowest length of each, and how many
// bits say how much longer it is. (RFC 8878, 3.1.1.3.2.1.1)
var (
	literalBases = [36]uint32{
		0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 18, 20, 22, 24, 28, 32, 40, 48, 64,
		128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536,
	}
	literalBits = [36]uint8{
		16: 1, 1, 1, 1, 2, 2, 3, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
	}
	matchBases = [53]uint32{
		3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28,
		29, 30, 31, 32, 33, 34, 35, 37, 39, 41, 43, 47, 51, 59, 67, 83, 99, 131, 259, 515, 1027, 2051,
		4099, 8195, 16387, 32771, 65539,
	}
	matchBits = [53]uint8{
		32: 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16,
	}
)

// codeOf finds the code of a length.
func codeOf(bases []uint32, v uint32) uint32 {
	if i := v - bases[0]; i < 16 { // as most are
		return i
	}
	return uint32(sort.Search(len(bases), func(i int) bool { return bases[i] > v }) - 1)
}

// The distributions that every decoder has. (RFC 8878, 3.1.1.3.2.2)
var (
	literalCounts = [36]int8{
		4, 3, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 3, 2, 1, 1, 1, 1, 1, -1, -1, -1, -1,
	}
	matchCounts = [53]int8{
		1, 4, 3, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1,
		1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1,
	}
	offsetCounts = [29]int8{1, 1, 1, 1, 1, 1, 2, 2, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1}
)

type tables struct{ literals, match, offset table }

var (
	once   sync.Once
	shared tables
)

// predefined builds the tables at the first call.
func predefined() *tables {
	once.Do(func() {
		shared = tables{newTable(literalCounts[:], 6), newTable(matchCounts[:], 6), newTable(offsetCounts[:], 5)}
	})
	return &shared
}

// table encodes symbols by finite state entropy (RFC 8878, 4.1). A state is the
// decoder's state plus the table's size.
type table struct {
	log     int
	states  []uint16
	symbols []symbol
}

// symbol says how to get from a state to the one before it that decodes to this
// symbol: which bits to write, and where in states the new one is.
type symbol struct {
	bits  uint32 // (state + bits) >> 16 is the number of bits
	state int32  // index of the first state of the symbol, less its count
}

func newTable(counts []int8, log int) table {
	size := 1 << log
	t := table{log, make([]uint16, size), make([]symbol, len(counts))}
	// Symbols are spread over the states as the decoder spreads them; those of
	// less than one state's probability stand at the end.
	spread := make([]uint8, size)
	high := size - 1
	for s, n := range counts {
		if n == -1 {
			spread[high] = uint8(s)
			high--
		}
	}
	at := 0
	for s, n := range counts {
		for range n {
			spread[at] = uint8(s)
			for at = (at + size>>1 + size>>3 + 3) & (size - 1); at > high; {
				at = (at + size>>1 + size>>3 + 3) & (size - 1)
			}
		}
	}
	first := make([]int, len(counts))
	total := 0
	for s, n := range counts {
		n := max(int(n), -int(n))
		first[s] = total
		if n > 0 {
			most := log - (bits.Len(uint(n-1)) - 1) // bits that the lowest state of the symbol takes
			if n == 1 {
				most = log
			}
			t.symbols[s] = symbol{uint32(most)<<16 - uint32(n)<<most, int32(total - n)}
		}
		total += n
	}
	for at, s := range spread {
		t.states[first[s]] = uint16(size + at)
		first[s]++
	}
	return t
}

// appendShares appends the description of a table (RFC 8878, 4.1.1). The more
// states have been given away, the fewer bits a share takes.
func appendShares(dst []byte, shares []int8, log int) []byte {
	w := bitWriter{dst: dst}
	w.add(uint32(log-5), 4)
	left, threshold, width := 1<<log+1, 1<<log, log+1
	for s := 0; left > 1; {
		share := int(shares[s])
		spare := 2*threshold - 1 - left // values of one bit less
		left -= share
		v := share + 1
		if v >= threshold {
			v += spare
		}
		n := width
		if v < spare {
			n--
		}
		w.add(uint32(v), n)
		for left < threshold {
			width--
			threshold >>= 1
		}
		if s++; share > 0 {
			continue
		}
		zeros := 0 // that follow, in twos of bits, of which 3 says that there are more
		for s < len(shares) && shares[s] == 0 {
			s++
			zeros++
		}
		for ; zeros >= 3; zeros -= 3 {
			w.add(3, 2)
		}
		w.add(uint32(zeros), 2)
	}
	return w.flush()
}

// state is where an encoder stands.
type state uint32

// start begins with a symbol, which takes no bits.
func (s *state) start(t *table, code uint32) {
	sym := t.symbols[code]
	n := (sym.bits + 1<<15) >> 16
	*s = state(t.states[int32((n<<16-sym.bits)>>n)+sym.state])
}

// next goes to a state of the symbol, and writes how to come back.
func (s *state) next(w *bitWriter, t *table, code uint32) {
	sym := t.symbols[code]
	n := (uint32(*s) + sym.bits) >> 16
	w.add(uint32(*s)&(1<<n-1), int(n))
	*s = state(t.states[int32(uint32(*s)>>n)+sym.state])
}

// end writes the state that the decoder begins with.
func (s *state) end(w *bitWriter, t *table) {
	w.add(uint32(*s)&(1<<t.log-1), t.log)
}
