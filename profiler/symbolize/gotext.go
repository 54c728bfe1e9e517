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
