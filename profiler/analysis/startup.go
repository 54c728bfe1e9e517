package analysis

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/startup"
)

// startupSums are totals of what programs do before and beside their own code.
type startupSums struct {
	seen bool // at least one cold start was accounted for

	symbols  map[symbolKey]*counts
	objects  map[objectKey]*objectTotals
	order    []objectKey
	dlopens  lookups
	dlsyms   lookups
	packages map[string]*counts
	packaged []string // in the order of their initialisation
	certs    map[certKey]*counts
	allocs   map[allocatorKey]*counts
	parts    map[partKey]*counts
	parted   []partKey
}

type symbolKey struct{ name, object, target, mode, phase string }

type objectKey struct{ path, mode string }

// objectTotals are an object's, over cold starts and processes.
type objectTotals struct {
	counts
	seen         int64
	mapped, init int64
	mappings     int64 // cold starts in which the mapping's time is known
	inits        int64
	lazily       int64
	never        int64
	nevers       int64
	last         startup.Object
}

type certKey struct{ path, function, phase string }

type allocatorKey struct{ name, function, phase string }

type partKey struct{ phase, name string }

func newStartupSums() startupSums {
	return startupSums{
		symbols: map[symbolKey]*counts{}, objects: map[objectKey]*objectTotals{}, packages: map[string]*counts{},
		certs: map[certKey]*counts{}, allocs: map[allocatorKey]*counts{}, parts: map[partKey]*counts{},
		dlopens: newLookups(), dlsyms: newLookups(),
	}
}

// lookups are calls of dlopen or dlsym, by name and success, in the order in
// which they were first seen.
type lookups struct {
	order  []lookupKey
	totals map[lookupKey]*counts
}

type lookupKey struct {
	name string
	ok   bool
}

func newLookups() lookups { return lookups{totals: map[lookupKey]*counts{}} }

func (l *lookups) add(calls []startup.Lookup) {
	for _, call := range calls {
		k := lookupKey{call.Name, call.OK}
		n := l.totals[k]
		if n == nil {
			n = &counts{}
			l.totals[k] = n
			l.order = append(l.order, k)
		}
		n.count++
		n.ns += call.NS()
		if !call.Returned {
			n.errors++ // its time is not known
		}
	}
}

func phaseName(p *phase.Result, at int64) string {
	if x := p.At(at); x != nil {
		return x.Name
	}
	return ""
}

func (s *startupSums) add(p *phase.Result, r *startup.Result) {
	if r == nil {
		return
	}
	s.seen = true
	for _, b := range r.Bindings {
		n := at(s.symbols, symbolKey{b.Symbol, b.Object, b.Target, startup.Lazy, phaseName(p, b.Start)})
		n.count++
		n.ns += b.NS()
	}
	for _, o := range r.Objects {
		s.addObject(p, o)
	}
	s.dlopens.add(r.Dlopens)
	s.dlsyms.add(r.Dlsyms)
	for _, x := range r.Packages {
		if s.packages[x.Path] == nil {
			s.packaged = append(s.packaged, x.Path)
		}
		n := at(s.packages, x.Path)
		n.count++
		n.ns += x.NS()
	}
	for _, x := range r.Certs {
		n := at(s.certs, certKey{x.Path, x.Function, phaseName(p, x.Start)})
		n.count++
		n.ns += x.NS()
		n.errors += int64(x.Minor + x.Major)
		if x.Bytes < 0 {
			n.wait++ // the bytes are not known
		} else {
			n.bytes += x.Bytes
		}
	}
	for _, x := range r.Allocators {
		n := at(s.allocs, allocatorKey{x.Name, x.Function, phaseName(p, x.Start)})
		n.count++
		n.ns += x.TimeNS
		n.bytes += x.Mapped
		n.errors += int64(x.Faults)
	}
	for _, x := range r.Parts {
		k := partKey{x.Phase, x.Name}
		if s.parts[k] == nil {
			s.parted = append(s.parted, k)
		}
		at(s.parts, k).ns += x.NS
	}
}

func (s *startupSums) addObject(p *phase.Result, o startup.Object) {
	k := objectKey{o.Path, o.Mode}
	n := s.objects[k]
	if n == nil {
		n = &objectTotals{}
		s.objects[k] = n
		s.order = append(s.order, k)
	}
	n.seen++
	n.last = o
	n.ns += o.Relocation.NS()
	n.errors += int64(o.Minor + o.Major)
	n.lazily += int64(o.BoundLazily)
	if o.MapNS > 0 {
		n.mapped += o.MapNS
		n.mappings++
	}
	if o.Constructors >= 0 {
		n.init += o.Constructors
		n.inits++
	}
	if o.NeverBound >= 0 {
		n.never += int64(o.NeverBound)
		n.nevers++
	}
	if o.Facts == nil {
		return
	}
	// What was bound at relocation has no time of its own.
	eager := o.Facts.GlobDats
	if o.Mode == startup.Eager {
		eager = append(slices.Clone(eager), o.Facts.Functions()...)
	}
	phase := phaseName(p, o.Relocation.Start)
	for _, name := range eager {
		at(s.symbols, symbolKey{name, o.Path, "", startup.Eager, phase}).count++
	}
}

// report divides the totals by the number of cold starts.
func (s *startupSums) report(r *Report, n int64, dynamic bool) {
	if !s.seen {
		return
	}
	if len(s.order) > 0 || dynamic {
		r.Binding = s.binding(n)
		r.Dlopens, r.Dlsyms = []Dlopen{}, []Dlsym{}
		for _, k := range s.dlopens.order {
			c := s.dlopens.totals[k]
			r.Dlopens = append(r.Dlopens, Dlopen{Path: k.name, Count: each(c.count, n), NS: known(c, n), OK: k.ok})
		}
		for _, k := range s.dlsyms.order {
			c := s.dlsyms.totals[k]
			r.Dlsyms = append(r.Dlsyms, Dlsym{Name: k.name, Count: each(c.count, n), NS: known(c, n), OK: k.ok})
		}
	}
	if len(s.packaged) > 0 {
		r.Packages = []Package{}
		for _, path := range s.packaged {
			r.Packages = append(r.Packages, Package{Path: path, NS: mean(s.packages[path].ns, n)})
		}
		slices.SortStableFunc(r.Packages, func(x, y Package) int { return cmp.Compare(y.NS, x.NS) })
	}
	r.Certs = []Cert{}
	keys, ns := divided(s.certs, n)
	for i, k := range keys {
		c := s.certs[k]
		cert := Cert{Path: k.path, Function: k.function, Phase: k.phase, NS: ns[i], Faults: each(c.errors, n)}
		if c.wait == 0 {
			cert.Bytes = new(each(c.bytes, n))
		}
		r.Certs = append(r.Certs, cert)
	}
	r.Allocator = []Allocation{}
	allocators, ns := divided(s.allocs, n)
	for i, k := range allocators {
		c := s.allocs[k]
		r.Allocator = append(r.Allocator, Allocation{
			Name: k.name, Function: k.function, Phase: k.phase, NS: ns[i],
			MappedBytes: mean(c.bytes, n), Faults: each(c.errors, n),
		})
	}
	for _, k := range s.parted {
		r.Parts = append(r.Parts, Part{Phase: k.phase, Name: k.name, NS: mean(s.parts[k].ns, n)})
	}
	slices.SortStableFunc(r.Parts, func(x, y Part) int {
		return cmp.Or(cmp.Compare(x.Phase, y.Phase), cmp.Compare(y.NS, x.NS))
	})
}

// known is the mean time of calls, absent where one of them has none.
func known(c *counts, n int64) *int64 {
	if c.errors > 0 {
		return nil
	}
	return new(mean(c.ns, n))
}

func (s *startupSums) binding(n int64) *Binding {
	b := &Binding{Symbols: []BoundSymbol{}, Objects: []BoundObject{}}
	var lazy, eager counts
	keys, ns := divided(s.symbols, n)
	for i, k := range keys {
		c := s.symbols[k]
		x := BoundSymbol{Name: k.name, Object: k.object, Target: k.target, Mode: k.mode, Phase: k.phase, Count: each(c.count, n)}
		if k.mode == startup.Lazy {
			x.NS = &ns[i]
			lazy.count, lazy.ns = lazy.count+c.count, lazy.ns+c.ns
		} else {
			eager.count += c.count
		}
		b.Symbols = append(b.Symbols, x)
	}
	for _, k := range s.order {
		o := s.objects[k]
		eager.ns += o.ns
		b.Objects = append(b.Objects, o.object(k, n))
	}
	slices.SortStableFunc(b.Objects, func(x, y BoundObject) int { return cmp.Compare(y.NS, x.NS) })
	b.Lazy = BindingSum{Count: each(lazy.count, n), NS: mean(lazy.ns, n)}
	b.Eager = BindingSum{Count: each(eager.count, n), NS: mean(eager.ns, n)}
	return b
}

func (o *objectTotals) object(k objectKey, n int64) BoundObject {
	x := BoundObject{
		Path: k.path, Mode: k.mode, NS: mean(o.ns, n), Faults: each(o.errors, n), BoundLazily: each(o.lazily, n),
	}
	if o.mappings > 0 {
		x.MapNS = new(mean(o.mapped, n))
	}
	if o.inits > 0 {
		x.ConstructorsNS = new(mean(o.init, n))
	}
	if o.nevers == o.seen {
		x.NeverBound = new(each(o.never, n))
	}
	if f := o.last.Facts; f != nil {
		x.StaticRelocations = &StaticRelocations{
			Relative: f.Counts.Relative, RELR: f.Counts.RELR, GlobDat: f.Counts.GlobDat, JumpSlot: f.Counts.JumpSlot,
			IRelative: f.Counts.IRelative, TLS: f.Counts.TLS, BindNow: f.BindNow, RELRO: string(f.RELRO),
		}
	}
	return x
}
