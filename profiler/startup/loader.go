package startup

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/trace"
)

// Modes of binding.
const (
	Lazy  = "lazy"  // at a symbol's first call
	Eager = "eager" // when its object was relocated
)

// Binding is a symbol bound at its first call.
type Binding struct {
	Span
	Symbol string // empty if the object's file could not be read
	Object string // that refers to it
	Target string // that defines it
	PID    int
	Stack  trace.Stack // of the caller, inside the loader's trampoline
}

// Object is one object as one process had it mapped.
type Object struct {
	Path  string
	PID   int
	Mode  string // Lazy where symbols were left to be bound at their first call
	Facts *loader.Facts

	Relocation   Span // empty if its relocation was not probed
	Minor, Major int  // faults inside of it
	Stack        trace.Stack
	MapNS        int64 // from the opening of its file until it was mapped; 0: unknown, as of what exec maps
	Constructors int64 // -1: not known
	BoundLazily  int
	NeverBound   int // -1: not known
}

// Lookup is a call of dlopen or dlsym.
type Lookup struct {
	Span
	Name     string // the path or the symbol; empty for the program itself
	PID      int
	Returned bool // else it was left by a longjmp, and the span is empty
	OK       bool
}

// objectKey tells an object of a program apart. A process keeps it over fork,
// and loses it with exec.
type objectKey struct {
	dynamic uint64
	path    string
	exec    *trace.Exec
}

// loader accounts for the calls of the dynamic loader.
func (c *computation) loader() {
	objects := map[objectKey]*Object{}
	var order []*Object
	object := func(f *trace.ThreadFunction) *Object {
		path := c.pathOf(f)
		if path == "" {
			return nil
		}
		k := objectKey{f.Dynamic, path, execOf(f)}
		o := objects[k]
		if o == nil {
			o = &Object{Path: path, PID: f.PID, Facts: c.Facts[path], Constructors: -1, NeverBound: -1}
			objects[k] = o
			order = append(order, o)
		}
		return o
	}
	for _, f := range c.calls(loader.Relocate) {
		o := object(f)
		if o == nil || o.Relocation.Thread != nil {
			continue
		}
		o.Relocation, o.Minor, o.Major, o.Stack = c.span(f), f.Minor, f.Major, f.Stack
		o.Mode = Eager
		if f.Args[2]&rtldLazy != 0 && (o.Facts == nil || !o.Facts.BindNow) {
			o.Mode = Lazy
		}
	}
	for _, f := range c.calls(loader.CallInit) {
		if o := object(f); o != nil {
			s := c.span(f)
			o.Constructors = max(o.Constructors, 0) + s.NS()
		}
	}
	bound := map[*Object]map[uint64]bool{}
	for _, f := range c.calls(loader.Fixup) {
		o := object(f)
		b := Binding{Span: c.span(f), PID: f.PID, Stack: f.Stack}
		if o != nil {
			b.Object = o.Path
			slot := f.Args[1]
			if o.Facts != nil {
				b.Symbol = c.symbolOf(o, slot)
			}
			if bound[o] == nil {
				bound[o] = map[uint64]bool{}
			}
			bound[o][slot] = true
		}
		if f.End != 0 {
			if m := c.Resolver.Mapping(f.PID, f.End, f.Return); m != nil {
				b.Target = c.definer(m.Path)
			}
		}
		c.Bindings = append(c.Bindings, b)
	}
	for _, o := range order {
		o.BoundLazily = len(bound[o])
		if o.Facts != nil && o.Mode == Lazy {
			o.NeverBound = max(0, o.Facts.Lazy()-o.BoundLazily)
		} else if o.Mode == Eager {
			o.NeverBound = 0
		}
		o.MapNS = c.mapping(o)
		c.Objects = append(c.Objects, *o)
	}
	c.lookups()
}

// musl finds the stages of musl's loader: each lasts until the next one, the last
// one until the program's entry.
func (c *computation) musl() {
	stages := map[int]*trace.Mark{} // by process: the one that it is in
	for _, m := range c.Timeline.Marks {
		if !c.inside(m.Time) {
			continue
		}
		stage := m.Kind == trace.MarkEnter && slices.Contains(loader.MuslStages, m.Name)
		if !stage && m.Kind != trace.MarkEntry && m.Kind != trace.MarkMain {
			continue
		}
		if s := stages[m.PID]; s != nil {
			c.stage(s, m.Time)
			delete(stages, m.PID)
		}
		if stage {
			stages[m.PID] = m
		}
	}
}

// definer returns the object that defines the function in a mapped file. What
// lies in the vDSO, such as time, was chosen by an IFUNC of the C library.
func (c *computation) definer(path string) string {
	if path != "[vdso]" {
		return path
	}
	libc := ""
	for object := range c.Facts {
		if !isLibc(object) {
			continue
		}
		if libc != "" {
			return path // of several, it is not known which one
		}
		libc = object
	}
	return cmp.Or(libc, path)
}

// symbolOf names the symbol of a relocation that _dl_fixup was given.
func (c *computation) symbolOf(o *Object, slot uint64) string {
	name, err := o.Facts.LazySymbol(c.Timeline.Arch, slot)
	if err != nil {
		c.warn("%s: %v", o.Path, err)
	}
	return name
}

// rtldLazy is RTLD_LAZY, in the mode given to _dl_relocate_object.
const rtldLazy = 1

// lookups finds dlopen and dlsym. A call of the C library's dlopen returns also
// when it fails, whereas the loader's own is then left by a longjmp: it counts
// where nothing else tells, as when the C library opens a module for itself.
func (c *computation) lookups() {
	opens := c.calls(loader.MuslDlopen, "dlmopen")
	for _, inner := range c.calls(loader.Dlopen) {
		within := func(outer *trace.ThreadFunction) bool {
			return outer.Thread == inner.Thread && outer.Time <= inner.Time && (outer.End == 0 || inner.Time < outer.End)
		}
		if !slices.ContainsFunc(opens, within) {
			opens = append(opens, inner)
		}
	}
	for _, f := range opens {
		c.Dlopens = append(c.Dlopens, c.lookup(f))
	}
	byStart(c.Dlopens, func(l Lookup) int64 { return l.Start })
	for _, f := range c.calls(loader.MuslDlsym, "dlvsym") {
		c.Dlsyms = append(c.Dlsyms, c.lookup(f))
	}
}

func (c *computation) lookup(f *trace.ThreadFunction) Lookup {
	return Lookup{Span: c.span(f), Name: f.Text, PID: f.PID, Returned: f.End != 0, OK: f.End != 0 && f.Return != 0}
}

// execOf returns the program that the process ran at a call, or that of the
// process it was forked from.
func execOf(f *trace.ThreadFunction) *trace.Exec {
	var last *trace.Exec
	for _, e := range f.Thread.Process.Execs {
		if e.Time <= f.Time {
			last = e
		}
	}
	return last
}

// pathOf returns the file whose dynamic section the loader was given.
func (c *computation) pathOf(f *trace.ThreadFunction) string {
	if f.Dynamic == 0 {
		return ""
	}
	m := c.Resolver.Mapping(f.PID, f.Time, f.Dynamic)
	if m == nil || len(m.Path) == 0 || m.Path[0] != '/' || m.Path == "//anon" {
		return ""
	}
	return m.Path
}

// mapping returns how long it took to map an object: from the opening of its
// file to the close of the descriptor by which the loader mapped it.
func (c *computation) mapping(o *Object) int64 {
	for _, m := range c.objectMappings() {
		if m.path == o.Path && m.pid == o.PID && (o.Relocation.Thread == nil || m.Start <= o.Relocation.Start) {
			return m.NS()
		}
	}
	return 0
}

// objectMapping is the stretch in which the loader opened, read and mapped a file.
type objectMapping struct {
	Span
	pid  int
	path string // as the mappings name it: what was opened may be a link
}

// objectMappings finds the files of which code was mapped.
func (c *computation) objectMappings() []objectMapping {
	if c.maps != nil {
		return c.maps
	}
	c.maps = []objectMapping{}
	paths := map[*trace.Descriptor]string{}
	for _, call := range c.Timeline.Calls {
		if call.File == nil || c.Timeline.SyscallName(call.Syscall) != "mmap" || !call.Returned() || call.Failed() {
			continue
		}
		if m := c.Resolver.Mapping(call.PID, call.Until, uint64(call.Return)); m != nil {
			paths[call.File] = m.Path
		}
	}
	for _, call := range c.Timeline.Calls {
		path := paths[call.File]
		if call.File == nil || path == "" || !c.inside(call.Begin) || !c.Timeline.Opens(call) || c.Facts[path] == nil {
			continue
		}
		end := cmp.Or(call.File.Closed, call.Until)
		c.maps = append(c.maps, objectMapping{
			Span: Span{Start: call.Begin, End: min(end, c.Phases.End), Thread: call.Thread}, pid: call.PID, path: path,
		})
	}
	return c.maps
}
