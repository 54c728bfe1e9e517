package probe

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Goroutines is the plan of how the goroutines of a Go program are seen.
type Goroutines struct {
	Path    string   `json:"path"`    // the file, as the subject's mappings name it
	File    string   `json:"-"`       // where it is found to be probed; empty: at Path
	Offset  uint64   `json:"offset"`  // in the file, of the instruction of runtime.casgstatus to probe
	Main    uint64   `json:"main"`    // in the file, of runtime.main, where goroutine 1 must start
	Version string   `json:"version"` // of Go
	Source  string   `json:"source"`  // of the layout
	Layout  GoLayout `json:"layout"`
	// CheapMissing says why goroutines cannot be seen without a uprobe.
	CheapMissing string `json:"cheap_missing,omitempty"`
}

// GoLayout holds offsets of fields in runtime.g, and in runtime.m where the
// name says so, in bytes. They are equal on amd64 and arm64.
type GoLayout struct {
	ID         uint16 `json:"goid"`
	WaitReason uint16 `json:"waitreason"`
	Parent     uint16 `json:"parent_goid"`
	CreatedPC  uint16 `json:"gopc"`
	StartPC    uint16 `json:"startpc"`
	M          uint16 `json:"m"`
	SchedSP    uint16 `json:"sched_sp"`
	SchedPC    uint16 `json:"sched_pc"`
	SchedBP    uint16 `json:"sched_bp"`
	MThread    uint16 `json:"m_procid"`
	MCurrent   uint16 `json:"m_curg"`
	TLS        int32  `json:"tls"` // of g from the thread pointer; amd64 alone
}

// GoObject is what the plan needs to know of a Go program's ELF file.
type GoObject interface {
	Object
	// StructFields returns the offsets of a struct's fields as its debug
	// information has them; nil without.
	StructFields(unit, name string) map[string]uint64
	// TLSSize is the size of the program's thread-local variables.
	TLSSize() uint64
}

// goVersion is what the releases of one minor version of Go have in common.
type goVersion struct {
	layout  GoLayout
	reasons []string // runtime.waitReasonStrings
}

// Offsets of the releases, from their own DWARF. They did not change within a
// minor version.
var goVersions = map[int]goVersion{
	22: {GoLayout{ID: 152, WaitReason: 176, Parent: 272, CreatedPC: 280, StartPC: 296, MThread: 72, MCurrent: 192, SchedBP: 104}.withFixed(), waitReasons(22)},
	23: {GoLayout{ID: 160, WaitReason: 184, Parent: 280, CreatedPC: 288, StartPC: 304, MThread: 72, MCurrent: 192, SchedBP: 104}.withFixed(), waitReasons(23)},
	24: {GoLayout{ID: 160, WaitReason: 184, Parent: 280, CreatedPC: 288, StartPC: 304, MThread: 72, MCurrent: 192, SchedBP: 104}.withFixed(), waitReasons(24)},
	25: {GoLayout{ID: 152, WaitReason: 176, Parent: 272, CreatedPC: 280, StartPC: 296, MThread: 64, MCurrent: 184, SchedBP: 96}.withFixed(), waitReasons(25)},
	26: {GoLayout{ID: 152, WaitReason: 176, Parent: 280, CreatedPC: 288, StartPC: 304, MThread: 64, MCurrent: 184, SchedBP: 96}.withFixed(), waitReasons(26)},
}

// withFixed adds what all versions have at the same place.
func (l GoLayout) withFixed() GoLayout {
	l.M, l.SchedSP, l.SchedPC = 48, 56, 64
	return l
}

// WaitReason names a value of runtime.waitReason of the program's version.
func (g *Goroutines) WaitReason(value uint8) string {
	if minor, ok := goMinor(g.Version); ok {
		if reasons := goVersions[minor].reasons; int(value) < len(reasons) {
			return reasons[value]
		}
	}
	return fmt.Sprintf("reason %d of %s", value, g.Version)
}

// ErrNoGoroutines is wrapped by errors that say why a program's goroutines
// cannot be seen.
var ErrNoGoroutines = errors.New("goroutines cannot be seen")

// PlanGoroutines plans how the goroutines of a program are seen. Its error
// wraps ErrNoGoroutines.
func PlanGoroutines(p Program, o GoObject, version string) (*Goroutines, error) {
	if !p.Go {
		return nil, fmt.Errorf("%w: the subject is no Go program", ErrNoGoroutines)
	}
	address, size, ok := o.LookupFunc("runtime.casgstatus")
	main, _, hasMain := o.LookupFunc("runtime.main")
	if !ok || !hasMain {
		return nil, fmt.Errorf("%w: the program has no function table that names runtime.casgstatus and runtime.main", ErrNoGoroutines)
	}
	g := &Goroutines{Version: version}
	if !g.findLayout(o) {
		return nil, fmt.Errorf("%w: initprof knows Go 1.22 to 1.26, this program is of %q and has no debug information that would tell",
			ErrNoGoroutines, version)
	}
	var err error
	if g.Offset, err = o.FileOffset(p.transition(address, size)); err == nil {
		g.Main, err = o.FileOffset(main)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoGoroutines, err)
	}
	if p.Arch == "amd64" {
		g.Layout.TLS = -8
		if size := o.TLSSize(); size != 0 && size != 8 { // 0: Go's own linker without C code
			g.CheapMissing = "the program has thread-local variables beside g, so that its place is not known"
		}
	}
	return g, nil
}

// findLayout takes the program's own debug information, or else what is known
// of its version.
func (g *Goroutines) findLayout(o GoObject) bool {
	gs, ms, sched := o.StructFields("runtime", "runtime.g"), o.StructFields("runtime", "runtime.m"), o.StructFields("runtime", "runtime.gobuf")
	l, complete := GoLayout{}, true
	for _, f := range []struct {
		fields map[string]uint64
		name   string
		base   uint64
		to     *uint16
	}{
		{gs, "goid", 0, &l.ID},
		{gs, "waitreason", 0, &l.WaitReason},
		{gs, "parentGoid", 0, &l.Parent},
		{gs, "gopc", 0, &l.CreatedPC},
		{gs, "startpc", 0, &l.StartPC},
		{gs, "m", 0, &l.M},
		{sched, "sp", gs["sched"], &l.SchedSP},
		{sched, "pc", gs["sched"], &l.SchedPC},
		{sched, "bp", gs["sched"], &l.SchedBP},
		{ms, "procid", 0, &l.MThread},
		{ms, "curg", 0, &l.MCurrent},
	} {
		at, ok := f.fields[f.name]
		complete = complete && ok && f.base+at <= math.MaxUint16
		*f.to = uint16(f.base + at)
	}
	if complete {
		g.Layout, g.Source = l, "debug information"
		return true
	}
	minor, ok := goMinor(g.Version)
	known, found := goVersions[minor]
	g.Layout, g.Source = known.layout, fmt.Sprintf("the table of Go 1.%d", minor)
	return ok && found
}

// goMinor reads the 26 of "go1.26.8"; a development version is none.
func goMinor(version string) (int, bool) {
	rest, ok := strings.CutPrefix(version, "go1.")
	if !ok {
		return 0, false
	}
	end := strings.IndexFunc(rest, func(r rune) bool { return r < '0' || r > '9' })
	if end < 0 {
		end = len(rest)
	}
	if strings.HasPrefix(rest[end:], "-") { // go1.27-devel_…
		return 0, false
	}
	minor, err := strconv.Atoi(rest[:end])
	return minor, err == nil
}

// transition returns the address of an instruction of runtime.casgstatus that
// the kernel emulates or simulates, reached while the arguments are still in
// their registers: on amd64 the PUSH at its beginning, which is nosplit; on
// arm64 the test of a bit of the second argument, behind a prologue that only
// spills them. Elsewhere any instruction costs a single step, and the first
// one will do.
func (p Program) transition(address, size uint64) uint64 {
	if p.Arch == "amd64" {
		return p.afterStackCheck(address, size)
	}
	code, err := p.Object.ReadAddress(address, min(size, 64))
	if err != nil {
		return address
	}
	for at := 0; at+4 <= len(code); at += 4 {
		word := uint32(code[at]) | uint32(code[at+1])<<8 | uint32(code[at+2])<<16 | uint32(code[at+3])<<24
		if word&0xfff8001f == 0x37600001 { // TBNZ W1, #12: _Gscan
			return address + uint64(at)
		}
	}
	return address
}
