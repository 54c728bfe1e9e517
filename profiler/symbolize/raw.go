package symbolize

import (
	"debug/elf"
	"fmt"
)

// Section is a section as it lies in the file.
type Section struct {
	Name    string
	Type    elf.SectionType
	Flags   elf.SectionFlag
	Address uint64
	Size    uint64 // in the file, as its header claims
	Info    uint32

	offset uint64
}

// Sections returns the object's section headers; sections without bytes in the
// file are left out. It is empty for a file whose section headers were stripped.
func (o *Object) Sections() []Section {
	sections := make([]Section, 0, len(o.file.Sections))
	for _, s := range o.file.Sections {
		if s.Type == elf.SHT_NULL || s.Type == elf.SHT_NOBITS || s.FileSize == 0 {
			continue
		}
		sections = append(sections, Section{
			Name: s.Name, Type: s.Type, Flags: s.Flags, Address: s.Addr, Size: s.FileSize, Info: s.Info, offset: s.Offset,
		})
	}
	return sections
}

// ReadSection returns the first n bytes of a section, fewer if the section or
// the file ends before.
func (o *Object) ReadSection(s Section, n uint64) ([]byte, error) {
	b, err := o.readFile(s.offset, min(n, s.Size))
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", s.Name, err)
	}
	return b, nil
}

// Section returns the first section of that name.
func (o *Object) Section(name string) (Section, bool) {
	for _, s := range o.file.Sections {
		if s.Name == name && s.Type != elf.SHT_NOBITS && s.FileSize > 0 {
			return Section{
				Name: s.Name, Type: s.Type, Flags: s.Flags, Address: s.Addr, Size: s.FileSize, Info: s.Info, offset: s.Offset,
			}, true
		}
	}
	return Section{}, false
}

// Program returns address and size in the file of the first program header of
// a type.
func (o *Object) Program(typ elf.ProgType) (address, size uint64, ok bool) {
	for _, p := range o.file.Progs {
		if p.Type == typ {
			return p.Vaddr, p.Filesz, true
		}
	}
	return 0, 0, false
}

// Dynamic calls f for the entries of PT_DYNAMIC, of which it reads 4,096.
func (o *Object) Dynamic(f func(tag elf.DynTag, value uint64)) { o.dynamic(f) }
