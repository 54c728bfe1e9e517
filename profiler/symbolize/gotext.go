package symbolize

// GoText returns where Go's own functions lie, in the object's virtual
// addresses: the linker puts them next to each other, apart from C's.
func (o *Object) GoText() (address, size uint64, ok bool) {
	t := o.goTable()
	if t == nil || t.funcs == 0 {
		return 0, 0, false
	}
	first, ok1 := t.function(0)
	last, ok2 := t.function(t.funcs - 1)
	if !ok1 || !ok2 || last.end <= first.entry {
		return 0, 0, false
	}
	return first.entry, last.end - first.entry, true
}

// Frameless tells whether a Go function has not moved the stack pointer at an
// address: so it is at its first instructions, and nowhere in those without a frame.
// There the caller's address is the word at the stack's top (amd64) or in the
// link register (arm64), and frame pointers miss it.
func (o *Object) Frameless(address uint64) bool {
	t := o.goTable()
	if t == nil {
		return false
	}
	f, ok := t.function(t.findFunc(address))
	if !ok || address < f.entry || address >= f.end {
		return false
	}
	return valueAt(t.runs(nil, f.stack, &f), uint32(address-f.entry)) == 0
}

// HeadersAddress returns the virtual address of the program headers, as AT_PHDR
// tells it less the load address.
func (o *Object) HeadersAddress() (uint64, bool) {
	var h [64]byte
	if _, err := o.r.ReadAt(h[:], 0); err != nil {
		return 0, false
	}
	offset := le.Uint64(h[32:])
	for _, s := range o.segments {
		if offset >= s.Offset && offset-s.Offset < s.FileSize {
			return offset - s.Offset + s.Address, true
		}
	}
	return 0, false
}
