package symbolize

import (
	"bytes"
	"cmp"
	"compress/zlib"
	"debug/dwarf"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// dwarfSections are the sections that lines and inlined calls need: about half
// of the whole, the rest being for variables and their places.
var dwarfSections = []string{
	"abbrev", "info", "line", "line_str", "ranges", "rnglists", "str", "str_offsets", "addr",
}

// readDWARF reads debug information within bounds of memory; nil without an
// error if there is none.
func (o *Object) readDWARF() (*dwarfInfo, error) {
	content := map[string][]byte{}
	left := uint64(maxDWARF)
	for _, name := range dwarfSections {
		s := o.debugSection(name)
		if s == nil {
			continue
		}
		var b []byte
		err := error(nil)
		if s.Size <= left {
			b, err = o.debugBytes(s)
		}
		if s.Size > left || uint64(len(b)) > left {
			return nil, fmt.Errorf("more than %d MB are not read", maxDWARF>>20)
		}
		if err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
		if most := maxOne[name]; most != 0 && len(b) > most {
			return nil, fmt.Errorf("section %s: %d MB are not read", s.Name, len(b)>>20)
		}
		left -= uint64(len(b))
		content[name] = b
	}
	if len(content["info"]) == 0 {
		return nil, nil
	}
	o.held.Add(int64(maxDWARF - left))
	return newDWARF(o, content)
}

// maxOne bounds the sections of which one list may be all, and that takes more
// memory than the section: 16 bytes for each 16 and 3 bytes of a list of ranges,
// 40 for each 2 bytes of an abbreviation.
var maxOne = map[string]int{"ranges": 128 << 20, "rnglists": 32 << 20, "abbrev": 16 << 20}

// newDWARF indexes sections, by their names without ".debug_".
func newDWARF(o *Object, content map[string][]byte) (*dwarfInfo, error) {
	if err := checkUnits(content["info"], content["abbrev"]); err != nil {
		return nil, err
	}
	data, err := dwarf.New(content["abbrev"], nil, nil, content["info"], content["line"], nil, content["ranges"], content["str"])
	if err != nil {
		return nil, err
	}
	for _, name := range []string{"line_str", "rnglists", "str_offsets", "addr"} {
		if b := content[name]; len(b) > 0 {
			if err := data.AddSection(".debug_"+name, b); err != nil {
				return nil, err
			}
		}
	}
	d := &dwarfInfo{o: o, data: data, line: content["line"], units: map[dwarf.Offset]*dwarfUnit{}}
	if err := d.index(content["info"]); err != nil && len(d.ranges) == 0 {
		return nil, err
	}
	slices.SortFunc(d.ranges, func(a, b unitRange) int { return cmp.Compare(a.start, b.start) })
	return d, nil
}

// debugSection finds .debug_NAME, or .zdebug_NAME of before SHF_COMPRESSED.
func (o *Object) debugSection(name string) *elf.Section {
	if s := o.section(".debug_"+name, elf.SHT_NULL); s != nil {
		return s
	}
	return o.section(".zdebug_"+name, elf.SHT_NULL)
}

// maxRatio is far more than debug information can be compressed by.
const maxRatio = 1024

// debugBytes reads a section that may be compressed: as SHF_COMPRESSED says,
// or in the manner of .zdebug_, "ZLIB" and the size before a zlib stream.
func (o *Object) debugBytes(s *elf.Section) ([]byte, error) {
	size, content := s.Size, io.Reader(nil)
	switch {
	case s.Flags&elf.SHF_COMPRESSED != 0:
		content = s.Open()
	case strings.HasPrefix(s.Name, ".z"):
		var head [12]byte
		if _, err := s.ReadAt(head[:], 0); err != nil || !bytes.HasPrefix(head[:], []byte("ZLIB")) {
			return nil, errors.New("it is not compressed as its name says")
		}
		size = binary.BigEndian.Uint64(head[4:])
		unpacked, err := zlib.NewReader(io.NewSectionReader(s, 12, int64(min(s.FileSize, maxDWARF))))
		if err != nil {
			return nil, err
		}
		content = unpacked
	default:
		return o.readFile(s.Offset, s.FileSize)
	}
	if size > maxDWARF || size/maxRatio > s.FileSize {
		return nil, fmt.Errorf("its %d bytes say they hold %d", s.FileSize, size)
	}
	b := make([]byte, size)
	n, err := io.ReadFull(content, b)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return b[:n], nil
}
