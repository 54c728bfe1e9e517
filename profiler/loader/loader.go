// Package loader knows the dynamic loader and its work from files alone: which
// instructions of an ld.so are to be probed so that binding, relocation, mapping
// and constructors show, and what an object gives the loader to do.
//
// It stands beside symbolize, whose reader of ELF objects it uses, and left of
// analysis: plans are made of what Locate finds, and reports join the loader's
// events with what Facts counts.
//
// Files are written by others: everything here is bounded in time and memory,
// and what cannot be told with certainty is refused with a reason.
package loader

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"

	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
)

// Kind is which C library a loader belongs to.
type Kind string

// The loaders that are known.
const (
	Glibc   Kind = "glibc"
	Musl    Kind = "musl"
	Unknown Kind = "unknown"
)

// Source is how an address was found.
type Source string

// The sources, in the order in which they are preferred.
const (
	FromSymbols   Source = "symtab"     // .symtab, .dynsym or .gnu_debugdata of the file itself
	FromDebugFile Source = "debug file" // .symtab of its separate debug file
	FromPattern   Source = "pattern"    // recognised by its code
)

// Point is an instruction to probe.
type Point struct {
	Address uint64 // virtual, as the file has it
	Offset  uint64 // in the file, as uprobes want it
	Cost    probe.Cost
}

// Function is a function of the loader. It was found if Source is not empty;
// else Reason says why not.
type Function struct {
	Name    string // by glibc's sources, such as "_dl_fixup"
	Symbol  string // what the symbol table calls it, such as "call_init.part.0"
	Address uint64 // virtual
	Source  Source
	Reason  string

	// Entry is where a probe sees the arguments in their registers and the
	// return address in its place: the first instruction, or one behind it that
	// costs less.
	Entry Point
	// Calls are all instructions that call it, with its arguments ready, and
	// Returns all by which it returns, with its result in place, and none of
	// either where not all are known. On arm64, where nearly every entry would be
	// single-stepped and branches are simulated, they are the cheap places. On
	// amd64 only _dl_fixup has Calls, and none Returns: ret would be stepped, so
	// a uretprobe is cheaper.
	Calls, Returns []Point
}

// Found reports whether the function's address is known.
func (f Function) Found() bool { return f.Source != "" }

// Loader is an ld.so.
type Loader struct {
	Kind      Kind
	Version   string // such as "2.36", empty if the file does not tell
	Arch      string // as GOARCH
	BuildID   string
	Entry     uint64     // e_entry, virtual
	Functions []Function // of the names in FunctionNames, in that order
	USDT      []USDT     // probes of provider rtld, in the file's order
	Warnings  []string   // what was malformed or contradictory
}

// The functions that Locate looks for. What they are called with:
//
//	_dl_fixup               (link_map, reloc_arg), returns the bound address
//	_dl_relocate_object     (link_map, scope, mode, profiling); since glibc 2.41
//	                        this is _dl_relocate_object_no_relro, which does the
//	                        work and has the same arguments
//	_dl_map_object_from_fd  (name, …), returns the link_map
//	_dl_map_object_deps     (link_map, …)
//	call_init               (link_map, argc, argv, env): one object's constructors
//	_dl_init                (link_map, argc, argv, env): all of them
//	_dl_lookup_symbol_x     (name, link_map, …)
//	_dl_open                (file, mode, …)
//	_dl_debug_state         (), with _r_debug.r_state telling add from consistent
//
// and of musl's loader, whose stages are spans:
//
//	__dls2b, __dls3         (sp, auxv): the loader relocated itself; threads are up
//	dlopen, dlsym           musl's loader is its C library
var FunctionNames = map[Kind][]string{
	Glibc: {
		"_dl_fixup", "_dl_relocate_object", "_dl_map_object_from_fd", "_dl_map_object_deps", "call_init", "_dl_init",
		"_dl_lookup_symbol_x", "_dl_open", "_dl_debug_state",
	},
	Musl: {"__dls2b", "__dls3", "_dl_debug_state", "dlopen", "dlsym", "__libc_start_main"},
}

// arguments is how many registers carry arguments that a probe may want.
var arguments = map[string]int{
	"_dl_fixup": 2, "_dl_relocate_object": 4, "call_init": 4, "_dl_init": 4, "_dl_map_object_deps": 5,
	"_dl_map_object_from_fd": 8, "_dl_lookup_symbol_x": 8, "_dl_open": 7, "__dls2b": 2, "__dls3": 2,
	"dlopen": 2, "dlsym": 2, "__libc_start_main": 5,
}

// Function returns a function by its name; one that Locate did not look for is
// not found and has that for a reason.
func (l *Loader) Function(name string) Function {
	for _, f := range l.Functions {
		if f.Name == name {
			return f
		}
	}
	return Function{Name: name, Reason: fmt.Sprintf("not looked for in a loader of kind %s", l.Kind)}
}

// Options are what Locate may use. The zero value suffices.
type Options struct {
	// Debug is the loader's separate debug file, if there is one; see OpenDebug.
	Debug io.ReaderAt
	// PatternsOnly leaves symbols of the file and of Debug unread.
	PatternsOnly bool
}

// DebugPath is where distributions install the separate debug file of a build
// ID below a directory, /usr/lib/debug if it is empty. It is empty for no build
// ID.
func DebugPath(dir, buildID string) string {
	if len(buildID) < 3 {
		return ""
	}
	if dir == "" {
		dir = "/usr/lib/debug"
	}
	return filepath.Join(dir, ".build-id", buildID[:2], buildID[2:]+".debug")
}

// OpenDebug opens the file at DebugPath.
func OpenDebug(dir, buildID string) (*os.File, error) {
	path := DebugPath(dir, buildID)
	if path == "" {
		return nil, fmt.Errorf("build ID %q names no debug file", buildID)
	}
	return os.Open(path)
}

// Locate finds in an ld.so what is to be probed. The error is of a file that is
// not a 64-bit ELF object of a known architecture; a loader of an unknown kind
// is no error and has no functions.
func Locate(r io.ReaderAt, opts Options) (l *Loader, err error) {
	// debug/elf promises no resistance to hostile files.
	defer func() {
		if p := recover(); p != nil {
			l, err = nil, fmt.Errorf("malformed loader: %v", p)
		}
	}()
	o, err := symbolize.OpenObject(r)
	if err != nil {
		return nil, err
	}
	l = &Loader{Kind: Unknown, Arch: o.Info.Machine, BuildID: o.Info.BuildID, Entry: o.Info.Entry}
	if l.Arch != "amd64" && l.Arch != "arm64" {
		return nil, fmt.Errorf("a loader for %s: only amd64 and arm64 are known", l.Arch)
	}
	f := &finder{Loader: l, o: o, opts: opts}
	if opts.Debug != nil && !opts.PatternsOnly {
		f.openDebug(opts.Debug)
	}
	f.image = newImage(o)
	f.identify()
	f.locate()
	l.USDT = readUSDT(o, "rtld")
	if err := o.Err(); err != nil {
		l.Warnings = append(l.Warnings, err.Error())
	}
	return l, nil
}

// finder is the state of one Locate.
type finder struct {
	*Loader
	o, debug *symbolize.Object
	image    *image
	opts     Options
	stored   map[uint64]bool // what the pointers in the data lead to
}

func (f *finder) openDebug(r io.ReaderAt) {
	d, err := symbolize.OpenObject(r)
	if err == nil {
		err = symbolize.SymbolsMatch(f.o, d)
	}
	if err != nil {
		f.Warnings = append(f.Warnings, fmt.Sprintf("debug file: %v", err))
		return
	}
	f.debug = d
}

var (
	releaseVersion = regexp.MustCompile(`release version ([0-9]+\.[0-9]+)`)
	muslBanner     = []byte("musl libc (")
)

func (f *finder) identify() {
	if m := releaseVersion.FindSubmatch(f.image.data); m != nil {
		f.Version = string(m[1])
	}
	_, _, glibc := f.o.LookupFunc("_dl_debug_state")
	_, _, musl := f.o.LookupFunc("__dls3")
	switch {
	case musl || f.image.findString(muslBanner) != 0:
		f.Kind = Musl
	case glibc || f.image.findCString("\nrelocation processing: %s%s\n") != 0:
		f.Kind = Glibc
	}
}

func (f *finder) locate() {
	for _, name := range FunctionNames[f.Kind] {
		fn := Function{Name: name}
		if !f.bySymbol(&fn) {
			address, err := f.byPattern(name)
			if err != nil {
				fn.Reason = err.Error()
			} else {
				fn.Address, fn.Source = address, FromPattern
			}
		}
		f.finish(&fn)
		f.Functions = append(f.Functions, fn)
	}
}

// aliases are the names by which compilers or other releases call a function,
// the better ones first: of a part that was split off, the part does the work.
var aliases = map[string][]string{
	"_dl_relocate_object": {"_dl_relocate_object_no_relro", "_dl_relocate_object"},
	"call_init":           {"call_init", "call_init.part.0"},
}

// exported are the functions that an ld.so has in .dynsym, which PatternsOnly
// leaves readable.
var exported = map[string]bool{"_dl_debug_state": true}

func (f *finder) bySymbol(fn *Function) bool {
	names := aliases[fn.Name]
	if names == nil {
		names = []string{fn.Name}
	}
	for _, try := range []struct {
		o      *symbolize.Object
		source Source
	}{{f.o, FromSymbols}, {f.debug, FromDebugFile}} {
		if try.o == nil || f.opts.PatternsOnly && f.Kind == Glibc && !exported[fn.Name] {
			continue
		}
		for _, name := range names {
			address, _, ok := try.o.LookupFunc(name)
			if ok && f.image.executable(address) {
				fn.Symbol, fn.Address, fn.Source = name, address, try.source
				return true
			}
		}
	}
	return false
}

// finish fills in the points of a function whose address is known.
func (f *finder) finish(fn *Function) {
	if !fn.Found() {
		return
	}
	code := f.image.code(fn.Address, 48)
	skip, _ := probe.CheapPoint(f.Arch, code, arguments[fn.Name])
	p, err := f.point(fn.Address + uint64(skip))
	if err != nil {
		fn.Source, fn.Reason = "", err.Error()
		return
	}
	fn.Entry = p
	if f.Arch == "arm64" {
		calls, returns := f.branches(fn.Address)
		fn.Calls, fn.Returns = f.points(calls), f.points(returns)
	}
	if fn.Name == "_dl_fixup" && f.Kind == Glibc {
		calls, target, err := f.fixupCalls()
		switch {
		case err != nil:
			f.Warnings = append(f.Warnings, fmt.Sprintf("calls of _dl_fixup: %v", err))
		case target != fn.Address:
			f.Warnings = append(f.Warnings, fmt.Sprintf("the resolvers call %#x, but the symbols have _dl_fixup at %#x", target, fn.Address))
		default:
			fn.Calls = f.points(calls)
		}
	}
}

// points returns a point for each address, or none if one has none.
func (f *finder) points(addresses []uint64) []Point {
	var points []Point
	for _, a := range addresses {
		p, err := f.point(a)
		if err != nil {
			return nil
		}
		points = append(points, p)
	}
	return points
}

func (f *finder) point(address uint64) (Point, error) {
	offset, err := f.o.FileOffset(address)
	if err != nil {
		return Point{}, err
	}
	return Point{Address: address, Offset: offset, Cost: probe.CostOf(f.Arch, f.image.code(address, 16))}, nil
}

// segmentsOf returns the segments that a predicate chooses.
func segmentsOf(o *symbolize.Object, choose func(symbolize.Segment) bool) []symbolize.Segment {
	var chosen []symbolize.Segment
	for _, s := range o.Segments() {
		if s.FileSize > 0 && choose(s) {
			chosen = append(chosen, s)
		}
	}
	return chosen
}
