package symbolize

import "github.com/initprof/initprof/profiler/trace"

// Frame is one function of a call stack: a physical one, or one that the
// compiler inlined.
type Frame struct {
	Function string // demangled, as Demangle gives it
	File     string // source file as the compiler recorded it; empty if unknown
	Line     int    // in File; 0 if unknown
}

// Names of modules that are not files.
const (
	KernelModule = "[kernel]"
	VDSOModule   = trace.VDSO
)

// Location is an address and what is known about it.
type Location struct {
	// Module is the path of the mapped object as the subject sees it,
	// KernelModule, VDSOModule, the name of a special mapping such as
	// "[heap]", or empty for anonymous memory and unmapped addresses.
	Module string
	// BuildID is the module's GNU build ID in hexadecimal, or the one that
	// GNUBuildID derives from its Go build ID; empty if it has neither.
	BuildID string
	// Address lies in the object's own virtual addresses, those of its
	// program headers and symbol table. For a return address it is the
	// address looked up: one less, inside the call instruction. Outside of
	// objects it is the address as the CPU held it.
	Address uint64
	// Frames has the innermost, inlined function first and the physical
	// function last; it is empty when the address has no name. It is shared
	// between locations: do not change it.
	Frames []Frame
}

// Function returns the name of the innermost frame, or "".
func (l *Location) Function() string {
	if len(l.Frames) == 0 {
		return ""
	}
	return l.Frames[0].Function
}
