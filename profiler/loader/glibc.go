package loader

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"slices"

	"github.com/initprof/initprof/profiler/symbolize"
)

// messages are strings that one function of glibc's loader forms the addresses
// of: of its sources dl-reloc.c, dl-load.c, dl-deps.c, dl-init.c, dl-lookup.c
// and dl-open.c, the same from 2.31 to 2.43.
var messages = map[string][]string{
	"_dl_relocate_object":    {"\nrelocation processing: %s%s\n"},
	"_dl_map_object_from_fd": {"file=%s [%lu];  generating link map\n", "cannot create shared object descriptor"},
	"_dl_map_object_deps":    {"cannot allocate dependency list"},
	"call_init":              {"\ncalling init: %s\n\n"},
	"_dl_init":               {"\ncalling preinit: %s\n\n"},
	"_dl_lookup_symbol_x":    {"symbol lookup error"},
	"_dl_open":               {"invalid mode for dlopen()"},
}

// maxReferences bounds the code that may refer to a message, which is 1 or 2
// instructions; for each the whole code is searched for jumps.
const maxReferences = 32

// byPattern recognises a function by its code.
func (f *finder) byPattern(name string) (uint64, error) {
	if f.Kind != Glibc {
		return 0, errors.New("no symbol names it")
	}
	if len(f.image.starts) == 0 {
		return 0, errors.New("no symbol names it, and without .eh_frame_hdr no function's start is known")
	}
	switch name {
	case "_dl_fixup":
		_, target, err := f.fixupCalls()
		return target, err
	case "call_init":
		return f.callInit()
	}
	address, err := f.byMessages(name)
	if err != nil {
		return 0, err
	}
	// A second way to the same address, where there is one, must agree.
	if slot, ok := hookSlots[name]; ok {
		if hook, ok := f.hook(slot); ok && hook != address {
			return 0, fmt.Errorf("ambiguous: its messages lead to %#x, _rtld_global_ro to %#x", address, hook)
		}
	}
	return address, nil
}

// callInit tells one object's constructors from all of them: where the compiler
// inlined call_init into _dl_init, both messages lead to the same function.
func (f *finder) callInit() (uint64, error) {
	one, err := f.byMessages("call_init")
	if err != nil {
		return 0, err
	}
	if all, err := f.byMessages("_dl_init"); err == nil && all == one {
		return 0, errors.New("the compiler inlined it into _dl_init")
	}
	return one, nil
}

// byMessages returns the one function that forms the addresses of all of a
// function's messages.
func (f *finder) byMessages(name string) (uint64, error) {
	if len(messages[name]) == 0 {
		return 0, errors.New("no symbol names it")
	}
	var functions []uint64
	for i, message := range messages[name] {
		at := f.image.findCString(message)
		if at == 0 {
			return 0, fmt.Errorf("its message %q is not in the file", message)
		}
		var these []uint64
		references := f.image.references(f.Arch, at)
		if len(references) > maxReferences {
			return 0, fmt.Errorf("ambiguous: %d instructions refer to its message %q", len(references), message)
		}
		for _, r := range references {
			if start, _, ok := f.image.function(r.from); ok {
				start = f.hotPart(start)
				if !slices.Contains(these, start) && (i == 0 || slices.Contains(functions, start)) {
					these = append(these, start)
				}
			}
		}
		functions = these
	}
	switch len(functions) {
	case 0:
		return 0, fmt.Errorf("no function refers to its message %q", messages[name][0])
	case 1:
		return functions[0], nil
	}
	return 0, fmt.Errorf("ambiguous: %d functions refer to its message %q", len(functions), messages[name][0])
}

// hotPart returns the start of the function to which a cold part belongs. GCC
// moves unlikely code, such as that behind debug messages, into a part of its
// own; nothing calls it, and one function jumps into it.
func (f *finder) hotPart(start uint64) uint64 {
	_, end, ok := f.image.function(start)
	if !ok {
		return start
	}
	called := false
	var from []uint64
	f.image.transfers(f.Arch, func(t transfer) {
		if t.call && t.to == start {
			called = true
		}
		// A jump to the start itself can be a tail call, unless it is conditional.
		if t.call || t.to < start || t.to >= end || t.to == start && !t.conditional || t.from >= start && t.from < end {
			return
		}
		if parent, _, ok := f.image.function(t.from); ok && !slices.Contains(from, parent) {
			from = append(from, parent)
		}
	})
	if called || len(from) != 1 {
		return start
	}
	return from[0]
}

// The code with which _dl_runtime_resolve calls _dl_fixup and keeps its result
// (sysdeps/x86_64/dl-trampoline.h, sysdeps/aarch64/dl-trampoline.S).
var (
	resolveAMD64Before = []byte{0x48, 0x8b, 0x73, 0x10, 0x48, 0x8b, 0x7b, 0x08, 0xe8} // mov 16(%rbx),%rsi; mov 8(%rbx),%rdi; call
	resolveAMD64After  = []byte{0x49, 0x89, 0xc3}                                     // mov %rax,%r11
	resolveARM64Before = []byte{0x21, 0xf0, 0x7d, 0xd3, 0x21, 0x00, 0x03, 0xd1, 0x21, 0xfc, 0x43, 0xd3}
	resolveARM64After  = []byte{0xf0, 0x03, 0x00, 0xaa} // mov x16, x0
)

// fixupCalls returns the instructions that call _dl_fixup, and it: glibc's
// trampolines, one on arm64, three on x86-64 for as many ways to save vector
// registers, must call one and the same function.
func (f *finder) fixupCalls() (calls []uint64, target uint64, err error) {
	before, after := resolveAMD64Before, resolveAMD64After
	if f.Arch == "arm64" {
		before, after = resolveARM64Before, resolveARM64After
	}
	for _, p := range f.image.text {
		for at := 0; ; {
			i := bytes.Index(p.bytes[at:], before)
			if i < 0 {
				break
			}
			at += i + len(before)
			if at+4 > len(p.bytes) {
				break
			}
			operand := le.Uint32(p.bytes[at:])
			next := p.address + uint64(at) + 4
			call, to := next-5, next+uint64(int64(int32(operand)))
			if f.Arch == "arm64" {
				t, ok := transferARM64(operand, next-4)
				if !ok || !t.call {
					continue
				}
				call, to = t.from, t.to
			}
			if !bytes.HasPrefix(p.bytes[at+4:], after) {
				continue
			}
			if target != 0 && target != to {
				return nil, 0, fmt.Errorf("ambiguous: the resolvers call %#x and %#x", target, to)
			}
			calls, target = append(calls, call), to
		}
	}
	switch {
	case len(calls) == 0:
		return nil, 0, errors.New("no resolver that calls it was recognised")
	case f.Arch == "arm64" && len(calls) > 1, len(calls) > 8:
		return nil, 0, fmt.Errorf("ambiguous: %d resolvers", len(calls))
	case len(f.image.starts) > 0 && !f.image.isStart(target):
		return nil, 0, fmt.Errorf("what the resolvers call, %#x, is no function's start", target)
	}
	return calls, target, nil
}

// hookSlots are the places, in words behind _dl_mcount, of functions of which
// _rtld_global_ro keeps the address for libc (ldsodefs.h, struct
// rtld_global_ro, at its end).
var hookSlots = map[string]int{"_dl_lookup_symbol_x": 1, "_dl_open": 2}

// hook reads a slot. ok is false where the structure is not as it is known.
func (f *finder) hook(slot int) (uint64, bool) {
	mcount, _, ok := f.o.LookupFunc("_dl_mcount")
	if !ok {
		return 0, false
	}
	words := pointers(f.o)
	var at []uint64
	for address, target := range words {
		if target == mcount {
			at = append(at, address)
		}
	}
	if len(at) != 1 {
		return 0, false
	}
	target := words[at[0]+8*uint64(slot)]
	return target, f.image.isStart(target)
}

// pointers returns the relocated pointers of an object's data: those of RELATIVE
// relocations, and words that hold the address of code, which is where RELR
// leaves them.
func pointers(o *symbolize.Object) map[uint64]uint64 {
	words := map[uint64]uint64{}
	for _, s := range segmentsOf(o, func(s symbolize.Segment) bool { return s.Write }) {
		b, err := o.ReadAddress(s.Address, min(s.FileSize, maxImage))
		if err != nil {
			continue
		}
		for at := -s.Address & 7; at+8 <= uint64(len(b)); at += 8 {
			if v := le.Uint64(b[at:]); v != 0 {
				words[s.Address+at] = v
			}
		}
	}
	var table, size uint64
	o.Dynamic(func(tag elf.DynTag, value uint64) {
		switch tag {
		case elf.DT_RELA:
			table = value
		case elf.DT_RELASZ:
			size = value
		}
	})
	b, err := o.ReadAddress(table, min(size, maxImage))
	if err != nil {
		return words
	}
	for ; len(b) >= 24; b = b[24:] {
		switch le.Uint64(b[8:]) {
		case uint64(elf.R_X86_64_RELATIVE), uint64(elf.R_AARCH64_RELATIVE):
			words[le.Uint64(b)] = le.Uint64(b[16:])
		}
	}
	return words
}
