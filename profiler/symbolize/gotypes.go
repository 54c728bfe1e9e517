package symbolize

import (
	"debug/dwarf"
	"debug/elf"
)

// StructFields returns the offsets of the fields of a struct of a compilation
// unit by the object's debug information, in bytes; nil if it has none.
func (o *Object) StructFields(unit, name string) (fields map[string]uint64) {
	defer func() {
		if recover() != nil { // debug/dwarf promises no resistance to hostile files
			fields = nil
		}
	}()
	d := o.dwarf()
	if d == nil {
		return nil
	}
	r := d.data.Reader()
	for range maxUnitDIEs {
		e, err := r.Next()
		if err != nil || e == nil {
			return nil
		}
		is, _ := e.Val(dwarf.AttrName).(string)
		switch {
		case e.Tag == dwarf.TagCompileUnit && is == unit:
		case e.Tag == dwarf.TagStructType && is == name:
			return structFields(r)
		case e.Children:
			r.SkipChildren()
		}
	}
	return nil
}

// structFields reads the members of the struct that the reader is in.
func structFields(r *dwarf.Reader) map[string]uint64 {
	fields := map[string]uint64{}
	for {
		e, err := r.Next()
		if err != nil || e == nil || e.Tag == 0 {
			return fields
		}
		name, _ := e.Val(dwarf.AttrName).(string)
		if at, ok := e.Val(dwarf.AttrDataMemberLoc).(int64); ok && at >= 0 {
			fields[name] = uint64(at)
		}
		if e.Children {
			r.SkipChildren()
		}
	}
}

// TLSSize returns the size of the object's thread-local variables in bytes.
func (o *Object) TLSSize() uint64 {
	for _, p := range o.file.Progs {
		if p.Type == elf.PT_TLS {
			return p.Memsz
		}
	}
	return 0
}
