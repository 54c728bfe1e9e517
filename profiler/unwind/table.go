package unwind

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"sort"
	"sync"
	"sync/atomic"
)

// Table is the unwinding table of one ELF object. It is safe for concurrent
// use if its reader is.
type Table struct {
	object *object
	arch   *arch
	goABI  bool // frame pointers are kept where there is no CFI

	// The search table of .eh_frame_hdr: pairs of signed 32-bit offsets from
	// hdrAddress, of a function and of its FDE.
	search     []byte
	hdrAddress uint64
	frames     *source

	index []indexed // of objects without a search table

	work atomic.Int64 // bytes of programs that may still be executed

	mu   sync.Mutex
	fdes map[uint64]*fde // by their place
	cies map[uint64]*cie
	held int // bytes of their programs
}

// indexed is a function of an object that has no search table.
type indexed struct {
	begin, limit uint64
	source       *source
	offset       uint64
}

// source is where CIEs and FDEs are read from.
type source struct {
	read    func(offset, n uint64) ([]byte, error)
	size    uint64
	address uint64 // of offset 0
	debug   bool   // .debug_frame, not .eh_frame
}

// cie is a common information entry: what FDEs share.
type cie struct {
	codeAlign    uint64
	dataAlign    int64
	returnColumn uint64
	encoding     uint8 // of addresses in FDEs
	augmented    bool  // FDEs have augmentation data
	signal       bool  // the frame was made by a signal
	program      []byte
}

// fde is the description of one function.
type fde struct {
	begin, limit uint64
	cie          *cie
	program      []byte
}

// Bounds on one object's tables.
const (
	maxEntry   = 1 << 16   // bytes of one CIE or FDE
	maxIndexed = 1 << 20   // FDEs of an object without a search table
	maxHeld    = 32 << 20  // bytes of programs kept in memory
	maxWork    = 256 << 20 // bytes of programs executed
)

// OpenTable reads where the CFI of an ELF object lies. The object may have
// none: then nothing is found in it. r must stay readable as long as the table
// is used.
func OpenTable(r io.ReaderAt) (*Table, error) {
	o, err := openObject(r)
	if err != nil {
		return nil, err
	}
	t := &Table{object: o, arch: o.arch, goABI: o.isGo(), fdes: map[uint64]*fde{}, cies: map[uint64]*cie{}}
	t.work.Store(maxWork)
	t.openSearch(o)
	if t.search == nil {
		t.addIndex(o, ".eh_frame", false)
	}
	// Go's own .debug_frame does not tell where frame pointers are saved.
	if !t.goABI && t.search == nil && len(t.index) == 0 {
		t.addIndex(o, ".debug_frame", true)
	}
	slices.SortFunc(t.index, func(a, b indexed) int { return cmp.Compare(a.begin, b.begin) })
	return t, nil
}

// openSearch reads .eh_frame_hdr, if it has the table that all linkers write.
func (t *Table) openSearch(o *object) {
	const tableEncoding = encodingDataRel | 0x0b
	if o.header.size < 12 {
		return
	}
	header, err := o.read(o.header.offset, o.header.size)
	if err != nil || len(header) < 12 || header[0] != 1 || header[3] != tableEncoding {
		return
	}
	r := reader{data: header, at: 4}
	begin := r.pointer(header[1], o.header.address, o.header.address)
	count := r.pointer(header[2], o.header.address, o.header.address)
	offset, left, ok := o.fileOffset(begin)
	if r.bad || !ok {
		return
	}
	t.search = r.data[r.at:]
	t.search = t.search[:min(count, uint64(len(t.search)/8))*8]
	t.hdrAddress = o.header.address
	t.frames = &source{
		read: func(at, n uint64) ([]byte, error) { return o.read(offset+at, n) },
		size: left, address: begin,
	}
}

// addIndex reads all entries of a section.
func (t *Table) addIndex(o *object, name string, debug bool) {
	data, address, ok := o.section(name)
	if !ok {
		return
	}
	s := &source{
		read: func(at, n uint64) ([]byte, error) {
			at = min(at, uint64(len(data)))
			return data[at:][:min(n, uint64(len(data))-at)], nil
		},
		size: uint64(len(data)), address: address, debug: debug,
	}
	for at := uint64(0); at < s.size && len(t.index) < maxIndexed; {
		e, err := s.entry(at)
		if err != nil || e.next <= at {
			return // what came before can be used
		}
		if !e.isCIE && len(e.body) > 0 {
			if f, err := t.parse(s, e); err == nil && f.begin < f.limit {
				t.index = append(t.index, indexed{begin: f.begin, limit: f.limit, source: s, offset: at})
			}
		}
		at = e.next
	}
}

// entry is a CIE or FDE as it lies in its section.
type entry struct {
	isCIE  bool
	cie    uint64 // of an FDE: the offset of its CIE
	body   []byte // behind the CIE pointer
	offset uint64 // of body
	next   uint64
}

// entry reads the entry at an offset.
func (s *source) entry(at uint64) (entry, error) {
	head, err := s.read(at, 20)
	if err != nil {
		return entry{}, err
	}
	r := reader{data: head}
	idSize := 4
	length := r.unsigned(4)
	if length == 0xffffffff {
		length = r.unsigned(8)
		if s.debug {
			idSize = 8
		}
	}
	start := at + uint64(r.at)
	if r.bad || length > s.size || start > s.size-length {
		return entry{}, fmt.Errorf("%w: entry of %d bytes at %#x", errMalformed, length, at)
	}
	e := entry{next: start + length}
	if length == 0 { // the end of a file's part of .eh_frame
		return e, nil
	}
	if length < uint64(idSize) || length > maxEntry {
		return e, fmt.Errorf("%w: entry of %d bytes at %#x", errMalformed, length, at)
	}
	body, err := s.read(start, length)
	if err != nil || uint64(len(body)) != length {
		return e, fmt.Errorf("%w: entry at %#x is cut short", errMalformed, at)
	}
	r = reader{data: body}
	id := r.unsigned(idSize)
	switch {
	case !s.debug && id == 0, s.debug && id == 1<<(8*idSize)-1:
		e.isCIE = true
	case s.debug:
		e.cie = id
	default:
		if id > start {
			return e, fmt.Errorf("%w: FDE at %#x has its CIE before the section", errMalformed, at)
		}
		e.cie = start - id
	}
	e.body, e.offset = body[idSize:], start+uint64(idSize)
	return e, nil
}

// parse reads an FDE and its CIE.
func (t *Table) parse(s *source, e entry) (*fde, error) {
	c, err := t.cie(s, e.cie)
	if err != nil {
		return nil, err
	}
	r := reader{data: e.body}
	f := &fde{cie: c}
	f.begin = r.pointer(c.encoding, s.address+e.offset, t.hdrAddress)
	f.limit = f.begin + r.pointer(c.encoding&0x0f, 0, 0)
	if c.augmented {
		r.bytes(r.uleb())
	}
	if r.bad {
		return nil, fmt.Errorf("%w: FDE at %#x", errMalformed, e.offset)
	}
	f.program = e.body[r.at:]
	return f, nil
}

func (t *Table) cie(s *source, at uint64) (*cie, error) {
	if c := t.cies[at]; c != nil {
		return c, nil
	}
	e, err := s.entry(at)
	if err != nil {
		return nil, err
	}
	if !e.isCIE {
		return nil, fmt.Errorf("%w: no CIE at %#x", errMalformed, at)
	}
	r := reader{data: e.body}
	c := &cie{}
	version := r.u8()
	augmentation := r.cString()
	if version == 4 {
		r.bytes(2) // sizes of an address and a segment selector
	}
	c.codeAlign, c.dataAlign = r.uleb(), r.sleb()
	if version == 1 {
		c.returnColumn = uint64(r.u8())
	} else {
		c.returnColumn = r.uleb()
	}
	if len(augmentation) > 0 && augmentation[0] == 'z' {
		c.augmented = true
		size := r.uleb()
		end := r.at + int(min(size, uint64(r.left())))
		for _, letter := range augmentation[1:] {
			switch letter {
			case 'R':
				c.encoding = r.u8()
			case 'P':
				if encoding := r.u8(); encoding != encodingOmit {
					r.pointer(encoding&0x0f, 0, 0)
				}
			case 'L':
				r.u8()
			case 'S':
				c.signal = true
			case 'B', 'G': // keys and tags of arm64's return addresses, which are stripped
			}
		}
		r.at = max(r.at, end)
	} else if augmentation != "" && augmentation != "S" {
		return nil, fmt.Errorf("%w: augmentation %q", errMalformed, augmentation)
	}
	if r.bad || r.at > len(r.data) || version == 0 || version == 2 || version > 4 {
		return nil, fmt.Errorf("%w: CIE at %#x", errMalformed, at)
	}
	c.program = r.data[r.at:]
	t.keep(len(e.body))
	t.cies[at] = c
	return c, nil
}

// keep makes room for n bytes more.
func (t *Table) keep(n int) {
	if t.held += n; t.held > maxHeld {
		clear(t.fdes)
		clear(t.cies)
		t.held = n
	}
}

// code returns n bytes of the object's code, fewer where the file has no more.
func (t *Table) code(address, n uint64) []byte {
	offset, left, ok := t.object.fileOffset(address)
	if !ok {
		return nil
	}
	b := make([]byte, min(n, left))
	got, _ := t.object.r.ReadAt(b, int64(offset&(1<<62-1)))
	return b[:got]
}

// Address returns where a byte of the file, mapped from offset mapped on, lies
// in the object's virtual addresses.
func (t *Table) Address(mapped, offset uint64) uint64 {
	for _, s := range t.object.segments {
		if offset >= s.offset && offset-s.offset < s.size && (s.offset&^4095 == mapped || mapped == wholeFile) {
			return offset - s.offset + s.address
		}
	}
	if mapped != wholeFile {
		return t.Address(wholeFile, offset)
	}
	return offset
}

const wholeFile = ^uint64(0)

// find returns the FDE of an address in the object's virtual addresses, nil if
// there is none.
func (t *Table) find(address uint64) (*fde, error) {
	s, offset, ok := t.frames, uint64(0), false
	if t.search != nil {
		offset, ok = t.lookup(address)
	} else if i, found := slices.BinarySearchFunc(t.index, address, func(f indexed, a uint64) int {
		return cmp.Compare(f.begin, a)
	}); found || i > 0 {
		if !found {
			i--
		}
		s, offset, ok = t.index[i].source, t.index[i].offset, address < t.index[i].limit
	}
	if !ok {
		return nil, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	f := t.fdes[offset]
	if f == nil {
		e, err := s.entry(offset)
		if err != nil {
			return nil, err
		}
		if e.isCIE || len(e.body) == 0 {
			return nil, fmt.Errorf("%w: no FDE at %#x", errMalformed, offset)
		}
		if f, err = t.parse(s, e); err != nil {
			return nil, err
		}
		t.keep(len(e.body))
		t.fdes[offset] = f
	}
	if address < f.begin || address >= f.limit {
		return nil, nil
	}
	return f, nil
}

// lookup finds in the search table the offset of the last FDE that begins at or
// before an address.
func (t *Table) lookup(address uint64) (uint64, bool) {
	at := func(i int) uint64 { return t.hdrAddress + uint64(int64(int32(le.Uint32(t.search[i*4:])))) }
	n := len(t.search) / 8
	i := sort.Search(n, func(i int) bool { return at(2*i) > address })
	if i == 0 {
		return 0, false
	}
	place := at(2*i - 1)
	if place < t.frames.address || place-t.frames.address >= t.frames.size {
		return 0, false
	}
	return place - t.frames.address, true
}
