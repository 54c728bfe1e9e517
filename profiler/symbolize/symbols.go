package symbolize

import (
	"debug/elf"
	"errors"
	"fmt"
)

// ErrSymbolsMismatch says that a file of --symbols belongs to another program.
var ErrSymbolsMismatch = errors.New("these symbols belong to another build")

// ErrNoSymbols says that a file of --symbols names nothing.
var ErrNoSymbols = errors.New("it holds no symbols")

// SymbolsMatch reports whether an unstripped twin or a separate debug file may
// name a subject's addresses: both have the same build ID, or else the same
// .text at the same address. The error otherwise says how they differ and
// wraps ErrSymbolsMismatch.
func SymbolsMatch(subject, symbols *Object) error {
	a, b := subject.Info, symbols.Info
	if a.Machine != b.Machine {
		return fmt.Errorf("%w: for %s, the subject is for %s", ErrSymbolsMismatch, b.Machine, a.Machine)
	}
	if a.BuildID != "" && a.BuildID == b.BuildID {
		return nil
	}
	atA, sumA, okA := subject.text()
	atB, sumB, okB := symbols.text()
	ids := fmt.Sprintf("build ID %s, the subject's is %s", orNone(b.BuildID), orNone(a.BuildID))
	switch {
	case !okB:
		return fmt.Errorf("%w: %s, and the file holds no code to compare", ErrSymbolsMismatch, ids)
	case !okA || sumA != sumB:
		return fmt.Errorf("%w: %s, and the code differs", ErrSymbolsMismatch, ids)
	case atA != atB:
		return fmt.Errorf("%w: %s, and the code was linked at %#x, the subject's at %#x", ErrSymbolsMismatch, ids, atB, atA)
	}
	return nil
}

// HasSymbols returns nil if the object names functions by .symtab,
// .gnu_debugdata or a pclntab, and an error that wraps ErrNoSymbols if not.
func (o *Object) HasSymbols() error {
	if o.Info.Stripped && o.goTable() == nil && o.section(".gnu_debugdata", elf.SHT_NULL) == nil {
		return fmt.Errorf("%w: neither .symtab nor .gnu_debugdata nor a pclntab", ErrNoSymbols)
	}
	return nil
}

func orNone(id string) string {
	if id == "" {
		return "none"
	}
	return id
}
