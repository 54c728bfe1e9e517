package symbolize

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
)

// Bounds on what is read of one object. They are far above what real objects
// hold; a table beyond them is treated as malformed.
const (
	maxTable    = 512 << 20 // bytes of one section or table
	maxSections = 1 << 16
	maxSegments = 1 << 12
)

// ErrNotELF is returned, wrapped, for a file that is not a 64-bit
// little-endian ELF object: a script, an empty file, a 32-bit program.
var ErrNotELF = errors.New("not a 64-bit little-endian ELF object")

// Segment is one PT_LOAD program header.
type Segment struct {
	Offset   uint64 // in the file
	FileSize uint64
	Address  uint64
	MemSize  uint64
	Exec     bool
	Write    bool
}

// Object is an ELF file: an executable, a shared library, a vDSO or a separate
// debug file. Its headers are read by OpenObject, its tables of names when
// they are first needed. Methods are safe for concurrent use if the reader is.
type Object struct {
	Info Info

	r        io.ReaderAt
	file     *elf.File
	segments []Segment
	code     []codeRange

	symbolsOnce sync.Once
	symbols     *symbolTable
	goOnce      sync.Once
	goTab       *goTable
	languageOne sync.Once
	dwarfOnce   sync.Once
	dwarfInfo   *dwarfInfo

	language, languageVersion string

	// A separate debug file; see Collector.debugFile.
	debugOnce   sync.Once
	debug       *Object
	debugCloser io.Closer

	mu     sync.Mutex
	faults []error // malformed tables
	work   workBudget
	mini   bool         // itself the content of a .gnu_debugdata
	held   atomic.Int64 // bytes of tables in memory
}

// Info is what an object's headers and notes tell.
type Info struct {
	Machine     string   // as GOARCH: "amd64", "arm64"; else ELF's own name
	BuildID     string   // hexadecimal; see Location.BuildID
	GoBuildID   string   // as `go tool buildid` prints it
	Linkage     string   // "static" or "dynamic"
	Interpreter string   // PT_INTERP, empty if none
	Needed      []string // DT_NEEDED
	PIE         bool     // position independent: ET_DYN
	Stripped    bool     // without .symtab
	Entry       uint64   // e_entry
}

// OpenObject reads the headers of the ELF object in r. r must stay readable as
// long as the object is used. The error wraps ErrNotELF if r holds something
// else.
func OpenObject(r io.ReaderAt) (o *Object, err error) {
	// debug/elf promises no resistance to hostile files.
	defer func() {
		if p := recover(); p != nil {
			o, err = nil, fmt.Errorf("malformed ELF object: %v", p)
		}
	}()
	if err := checkHeader(r); err != nil {
		return nil, err
	}
	f, err := elf.NewFile(r)
	if err != nil {
		return nil, fmt.Errorf("malformed ELF object: %w", err)
	}
	o = &Object{r: r, file: f}
	o.work.left.Store(maxWork)
	for _, p := range f.Progs {
		if p.Type != elf.PT_LOAD {
			continue
		}
		if len(o.segments) == maxSegments {
			return nil, fmt.Errorf("malformed ELF object: more than %d segments", maxSegments)
		}
		o.segments = append(o.segments, Segment{
			Offset: p.Off, FileSize: p.Filesz, Address: p.Vaddr, MemSize: p.Memsz,
			Exec: p.Flags&elf.PF_X != 0, Write: p.Flags&elf.PF_W != 0,
		})
	}
	o.findCode()
	o.readInfo()
	return o, nil
}

// checkHeader refuses before debug/elf looks at anything: the sizes of the
// header tables are trusted there.
func checkHeader(r io.ReaderAt) error {
	var h [64]byte
	if _, err := r.ReadAt(h[:], 0); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read ELF header: %w", err)
	} else if err != nil || !bytes.HasPrefix(h[:], []byte(elf.ELFMAG)) {
		if bytes.HasPrefix(h[:], []byte("#!")) {
			return fmt.Errorf("%w: it is a script", ErrNotELF)
		}
		return ErrNotELF
	}
	if elf.Class(h[elf.EI_CLASS]) != elf.ELFCLASS64 || elf.Data(h[elf.EI_DATA]) != elf.ELFDATA2LSB {
		return ErrNotELF
	}
	shoff, shnum := le.Uint64(h[40:]), le.Uint16(h[60:])
	if shoff != 0 && shnum == 0 { // the number stands in the first section header
		var s [64]byte
		if _, err := r.ReadAt(s[:], int64(shoff&(1<<63-1))); err == nil && le.Uint64(s[32:]) > maxSections {
			return fmt.Errorf("malformed ELF object: %d sections", le.Uint64(s[32:]))
		}
	}
	return nil
}

func (o *Object) readInfo() {
	i := &o.Info
	switch o.file.Machine {
	case elf.EM_X86_64:
		i.Machine = "amd64"
	case elf.EM_AARCH64:
		i.Machine = "arm64"
	default:
		i.Machine = o.file.Machine.String()
	}
	i.PIE = o.file.Type == elf.ET_DYN
	i.Entry = o.file.Entry
	i.Stripped = o.section(".symtab", elf.SHT_SYMTAB) == nil
	i.Linkage = "static"
	for _, p := range o.file.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			if b, err := o.readFile(p.Off, p.Filesz); err == nil {
				i.Interpreter = cString(b)
			}
		}
	}
	i.Needed = o.needed()
	if i.Interpreter != "" || len(i.Needed) > 0 {
		i.Linkage = "dynamic"
	}
	gnu, goID := o.buildIDs()
	i.GoBuildID = goID
	i.BuildID = gnu
	if gnu == "" && goID != "" {
		i.BuildID = GNUBuildID(goID)
	}
}

// needed reads DT_NEEDED through the program headers, so that an object
// without section headers tells it too.
func (o *Object) needed() []string {
	var names []uint64
	var strtab, strsz uint64
	o.dynamic(func(tag elf.DynTag, value uint64) {
		switch tag {
		case elf.DT_NEEDED:
			if len(names) < 1024 {
				names = append(names, value)
			}
		case elf.DT_STRTAB:
			strtab = value
		case elf.DT_STRSZ:
			strsz = value
		}
	})
	var needed []string
	for _, n := range names {
		if n >= strsz {
			continue
		}
		b, err := o.ReadAddress(strtab+n, min(strsz-n, 4096))
		if err == nil && cString(b) != "" {
			needed = append(needed, cString(b))
		}
	}
	return needed
}

// dynamic calls f for the entries of PT_DYNAMIC.
func (o *Object) dynamic(f func(tag elf.DynTag, value uint64)) {
	for _, p := range o.file.Progs {
		if p.Type != elf.PT_DYNAMIC {
			continue
		}
		b, err := o.readFile(p.Off, min(p.Filesz, 1<<16))
		if err != nil {
			return
		}
		for ; len(b) >= 16; b = b[16:] {
			tag := elf.DynTag(le.Uint64(b))
			if tag == elf.DT_NULL {
				return
			}
			f(tag, le.Uint64(b[8:]))
		}
		return
	}
}

// Segments returns the object's PT_LOAD program headers in their order.
func (o *Object) Segments() []Segment { return o.segments }

// Err returns what was malformed in the tables that have been read so far,
// joined, or nil. Names that were readable are used all the same.
func (o *Object) Err() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	err := errors.Join(o.faults...)
	if o.work.left.Load() < 0 {
		err = errors.Join(err, errTooMuchWork)
	}
	return err
}

var errTooMuchWork = errors.New("its tables are too large to be read to the end: inlined calls and lines are incomplete")

func (o *Object) fault(err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.faults) < 16 {
		o.faults = append(o.faults, err)
	}
}

// FileOffset returns the offset in the file of a virtual address, by PT_LOAD:
// what a uprobe wants. Addresses in no segment's file part are an error.
func (o *Object) FileOffset(address uint64) (uint64, error) {
	for _, s := range o.segments {
		if address >= s.Address && address-s.Address < s.FileSize {
			return address - s.Address + s.Offset, nil
		}
	}
	return 0, fmt.Errorf("address %#x is in no segment of the file", address)
}

// ReadAddress reads n bytes at a virtual address from the file. It returns
// fewer when the segment's file part or the file ends, and an error if there
// are none.
func (o *Object) ReadAddress(address, n uint64) ([]byte, error) {
	for _, s := range o.segments {
		if address >= s.Address && address-s.Address < s.FileSize {
			d := address - s.Address
			return o.readFile(s.Offset+d, min(n, s.FileSize-d))
		}
	}
	return nil, fmt.Errorf("address %#x is in no segment of the file", address)
}

// readFile reads up to n bytes at off. Memory grows with what the file really
// holds and never with what a header claims.
func (o *Object) readFile(off, n uint64) ([]byte, error) {
	if n > maxTable || off > 1<<62 {
		return nil, fmt.Errorf("table of %d bytes at %#x is beyond any bound", n, off)
	}
	const chunk = 4 << 20
	if n <= chunk {
		b := make([]byte, n)
		m, err := o.r.ReadAt(b, int64(off))
		if m == 0 && n > 0 {
			return nil, fmt.Errorf("read %d bytes at %#x: %w", n, off, err)
		}
		return b[:m], nil
	}
	var buf bytes.Buffer
	if _, err := io.Copy(&buf, io.NewSectionReader(o.r, int64(off), int64(n))); err != nil {
		return nil, fmt.Errorf("read %d bytes at %#x: %w", n, off, err)
	}
	if buf.Len() == 0 {
		return nil, fmt.Errorf("read %d bytes at %#x: %w", n, off, io.ErrUnexpectedEOF)
	}
	return buf.Bytes(), nil
}

// section returns the first section of that name, and of that type unless it
// is SHT_NULL. Sections without bytes in the file are not returned.
func (o *Object) section(name string, typ elf.SectionType) *elf.Section {
	for _, s := range o.file.Sections {
		if s.Name == name && (typ == elf.SHT_NULL || s.Type == typ) && s.Type != elf.SHT_NOBITS && s.FileSize > 0 {
			return s
		}
	}
	return nil
}

// sectionBytes reads a section as it lies in the file.
func (o *Object) sectionBytes(s *elf.Section) ([]byte, error) {
	b, err := o.readFile(s.Offset, s.FileSize)
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	o.held.Add(int64(len(b)))
	return b, nil
}

// text identifies the object's code: the address, size and SHA-256 of .text,
// or of the executable segments when there are no section headers. ok is false
// for a file that holds no code, such as a separate debug file.
func (o *Object) text() (address uint64, sum [sha256.Size]byte, ok bool) {
	h := sha256.New()
	if s := o.section(".text", elf.SHT_PROGBITS); s != nil {
		n, err := io.Copy(h, io.NewSectionReader(o.r, int64(s.Offset&(1<<62-1)), int64(min(s.FileSize, maxTable))))
		if err != nil || n == 0 {
			return 0, sum, false
		}
		return s.Addr, [sha256.Size]byte(h.Sum(nil)), true
	}
	if len(o.file.Sections) > 0 {
		return 0, sum, false
	}
	for _, s := range o.segments {
		if !s.Exec || s.FileSize == 0 {
			continue
		}
		n, err := io.Copy(h, io.NewSectionReader(o.r, int64(s.Offset&(1<<62-1)), int64(min(s.FileSize, maxTable))))
		if err == nil && n > 0 && !ok {
			address, ok = s.Address, true
		}
	}
	return address, [sha256.Size]byte(h.Sum(nil)), ok
}

// Note names and types: the gABI's note format, GNU's and Go's own types.
const (
	noteGNUBuildID = 3 // NT_GNU_BUILD_ID, name "GNU"
	noteGoBuildID  = 4 // ELF_NOTE_GOBUILDID_TAG in cmd/link, name "Go"
)

// buildIDs reads the notes through PT_NOTE, and through the sections for
// debug files, whose segments are empty.
func (o *Object) buildIDs() (gnu, goID string) {
	read := func(off, n uint64) {
		if n > 1<<20 {
			return
		}
		b, err := o.readFile(off, n)
		if err != nil {
			return
		}
		g, id := parseNotes(b)
		if gnu == "" {
			gnu = g
		}
		if goID == "" {
			goID = id
		}
	}
	for i, p := range o.file.Progs {
		if p.Type == elf.PT_NOTE && i < maxSegments {
			read(p.Off, p.Filesz)
		}
	}
	for i, s := range o.file.Sections {
		if s.Type == elf.SHT_NOTE && i < maxSegments && (gnu == "" || goID == "") {
			read(s.Offset, s.FileSize)
		}
	}
	return gnu, goID
}

func parseNotes(b []byte) (gnu, goID string) {
	for len(b) >= 12 {
		namesz, descsz, typ := le.Uint32(b), le.Uint32(b[4:]), le.Uint32(b[8:])
		b = b[12:]
		name := align4(uint64(namesz))
		desc := align4(uint64(descsz))
		if name > uint64(len(b)) || uint64(descsz) > uint64(len(b))-name {
			return gnu, goID
		}
		n, d := b[:namesz], b[name:name+uint64(descsz)]
		switch {
		case typ == noteGNUBuildID && string(n) == "GNU\x00" && len(d) > 0 && len(d) <= 64 && gnu == "":
			gnu = hex.EncodeToString(d)
		case typ == noteGoBuildID && string(n) == "Go\x00\x00" && len(d) <= 1024 && goID == "":
			goID = string(bytes.TrimRight(d, "\x00"))
		}
		b = b[name+min(desc, uint64(len(b))-name):]
	}
	return gnu, goID
}

// GNUBuildID derives from a Go build ID one of GNU's form, in hexadecimal: the
// first 20 bytes of its SHA-256. Go programs from before Go 1.24 have no GNU
// build ID; where both exist the GNU one counts.
func GNUBuildID(goBuildID string) string {
	sum := sha256.Sum256([]byte(goBuildID))
	return hex.EncodeToString(sum[:20])
}

// malformed is a panic that reading a hostile table raised.
type malformed struct{ reason any }

func (m malformed) Error() string { return fmt.Sprintf("malformed object: %v", m.reason) }

func align4(n uint64) uint64 { return (n + 3) &^ 3 }

func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
