package probe

// startSize is how much of a program's entry is looked at: glibc's and musl's
// _start are shorter.
const startSize = 96

// firstCheap returns the first instruction of the straight code at an address
// at which a probe is cheap, or the address itself.
func (p Program) firstCheap(address uint64) uint64 {
	code, err := p.Object.ReadAddress(address, startSize)
	if err != nil {
		return address
	}
	if at, err := p.cheapFrom(code, address); err == nil {
		return at
	}
	return address
}

// findMain finds main by its symbol, or else by what the program's entry, the C
// library's _start, passes first to __libc_start_main.
func (p Program) findMain() (uint64, bool) {
	if address, _, ok := p.Object.LookupFunc("main"); ok {
		return address, true
	}
	return p.mainFromStart()
}
