package symbolize

import "debug/elf"

// maxSDTNotes bounds .note.stapsdt; that of a C library has some 10 KB.
const maxSDTNotes = 1 << 20

// SDTNotes returns the section .note.stapsdt, which describes the static probes
// (USDT) of a program, and the address of .stapsdt.base, by which it is read.
// Both are zero for a program without such probes.
func (o *Object) SDTNotes() (notes []byte, base uint64) {
	s := o.section(".note.stapsdt", elf.SHT_NOTE)
	if s == nil {
		return nil, 0
	}
	notes, err := o.readFile(s.Offset, min(s.FileSize, maxSDTNotes))
	if err != nil {
		return nil, 0
	}
	if b := o.file.Section(".stapsdt.base"); b != nil {
		base = b.Addr
	}
	return notes, base
}
