package probe

import (
	"encoding/binary"
	"fmt"
	"strings"

	"golang.org/x/arch/x86/x86asm"
)

// goFunctions are the functions of Go's start whose time is of interest, each
// with the only function that calls it. A function of Go must never have a
// return probe, which changes its stack; where it returns to is found in its
// caller's code instead.
var goFunctions = []struct {
	name   string
	caller string // empty: only the entry is probed
}{
	{"runtime.schedinit", "runtime.rt0_go"},
	{"runtime.mallocinit", "runtime.schedinit"},
	{"runtime.gcinit", "runtime.schedinit"},
	{"runtime.main", ""},
	{"runtime.doInit1", ""}, // one package's initialisation; the next one's entry ends it
	{"runtime.gcenable", "runtime.main"},
	{"runtime.gcStart", ""},
	{"runtime.gcMarkTermination", ""},
	{"crypto/x509.loadSystemRoots", "crypto/x509.initSystemRoots"},
}

// forGo adds the points of Go's start. A function that the program does not
// have (crypto/x509) or that the compiler inlined is left out; where one
// returns cannot always be probed cheaply.
func (p Program) forGo(plan *Plan) {
	for _, f := range goFunctions {
		address, size, ok := p.Object.LookupFunc(f.name)
		if !ok {
			if strings.HasPrefix(f.name, "runtime.") {
				plan.Missing = append(plan.Missing, f.name+": the program has no function of that name")
			}
			continue
		}
		plan.add(p.Object, p.Arch, RecordGo, Enter, f.name, p.afterStackCheck(address, size))
		if f.caller == "" {
			continue
		}
		at, err := p.returnsTo(f.name, address, f.caller)
		if err != nil {
			plan.Missing = append(plan.Missing, fmt.Sprintf("end of %s: %v", f.name, err))
			continue
		}
		plan.add(p.Object, p.Arch, RecordGo, Leave, f.name, at)
	}
}

// maxFunction bounds how much code of a function is read.
const maxFunction = 64 << 10

// returnsTo returns the first instruction at which a probe is cheap behind the
// call of a function in its caller: it is reached by every return, since what
// could branch away would be cheap itself.
func (p Program) returnsTo(name string, callee uint64, caller string) (uint64, error) {
	start, size, ok := p.Object.LookupFunc(caller)
	if !ok {
		return 0, fmt.Errorf("its caller %s is not in the program", caller)
	}
	code, err := p.Object.ReadAddress(start, min(size, maxFunction))
	if err != nil {
		return 0, fmt.Errorf("read %s: %w", caller, err)
	}
	found := uint64(0)
	for at := 0; at < len(code); {
		length, target := p.instruction(code[at:], start+uint64(at))
		if length == 0 {
			return 0, fmt.Errorf("%s has an instruction at %#x that is not known", caller, start+uint64(at))
		}
		at += length
		if target == 0 || target != callee && p.nameAt(target) != name {
			continue
		}
		if found != 0 {
			return 0, fmt.Errorf("%s calls it twice", caller)
		}
		if found, err = p.cheapFrom(code[at:], start+uint64(at)); err != nil {
			return 0, err
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("%s does not call it", caller)
	}
	return found, nil
}

// cheapFrom returns the address of the first instruction of straight code at
// which a probe is cheap.
func (p Program) cheapFrom(code []byte, address uint64) (uint64, error) {
	for n := 0; n < 16 && len(code) > 0; n++ {
		if CostOf(p.Arch, code).Cheap() {
			return address, nil
		}
		length, _ := p.instruction(code, address)
		if length == 0 || p.Arch == "amd64" && code[0] == 0xc3 { // ret
			break
		}
		code, address = code[length:], address+uint64(length)
	}
	return 0, fmt.Errorf("no instruction behind %#x can be probed cheaply", address)
}

// instruction returns the length of the instruction at the beginning of code,
// 0 if it is not known, and the target of a direct call.
func (p Program) instruction(code []byte, address uint64) (length int, target uint64) {
	if p.Arch == "arm64" {
		if len(code) < 4 {
			return 0, 0
		}
		w := binary.LittleEndian.Uint32(code)
		if w>>26 == 0x25 { // bl
			return 4, address + uint64(int64(int32(w<<6)>>6)*4)
		}
		return 4, 0
	}
	inst, err := x86asm.Decode(code, 64)
	if err != nil {
		return 0, 0
	}
	if relative, ok := inst.Args[0].(x86asm.Rel); ok && inst.Op == x86asm.CALL {
		target = address + uint64(inst.Len) + uint64(int64(relative))
	}
	return inst.Len, target
}

// nameAt returns the name of the function that begins at an address. Go's
// assembly calls wrappers of the same name.
func (p Program) nameAt(address uint64) string {
	return strings.TrimSuffix(p.Object.FuncName(address), ".abi0")
}
