package loader

// maxBranches bounds the calls and returns of one function: more places to
// probe would cost more to attach than they save.
const maxBranches = 16

const retARM64 = 0xd65f03c0

// branches returns the direct calls of an arm64 function, and its returns. It
// returns no calls where the function's address is also stored or formed, so
// that it may be called by pointer, and no returns where it leaves by a tail
// call.
func (f *finder) branches(start uint64) (calls, returns []uint64) {
	function, end, ok := f.image.function(start)
	if !ok || function != start {
		return nil, nil
	}
	tail := false
	f.image.transfers(f.Arch, func(t transfer) {
		inside := t.from >= start && t.from < end
		switch {
		case t.to == start && !inside:
			calls = append(calls, t.from)
		case inside && !t.call && (t.to < start || t.to >= end):
			tail = true
		}
	})
	if len(calls) > maxBranches || f.addressTaken(start) {
		calls = nil
	}
	code := f.image.code(start, int(end-start))
	for i := 0; i+4 <= len(code) && !tail; i += 4 {
		switch w := le.Uint32(code[i:]); {
		case w == retARM64:
			returns = append(returns, start+uint64(i))
		case w&0xfffffc1f == 0xd61f0000: // br: a jump table, or a tail call
			tail = true
		}
	}
	if tail || len(returns) > maxBranches {
		returns = nil
	}
	return calls, returns
}

// addressTaken reports whether data holds the address of a function, or code
// forms it.
func (f *finder) addressTaken(start uint64) bool {
	if f.stored == nil {
		f.stored = map[uint64]bool{}
		for _, target := range pointers(f.o) {
			f.stored[target] = true
		}
	}
	return f.stored[start] || len(f.image.references(f.Arch, start)) > 0
}
