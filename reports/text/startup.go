package text

import (
	"fmt"
	"path"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// optional prints a duration that may be unknown.
func optional(ns *int64) cell {
	if ns == nil {
		return cell{"–", dim}
	}
	return cell{text: figure.Duration(float64(*ns))}
}

// startup prints what happened before and beside the program's own code.
func (p *printer) startup(r *analysis.Report) {
	p.parts(r)
	p.objects(r)
	p.symbols(r)
	p.lookups(r)
	p.packages(r)
	p.certs(r)
	p.allocators(r)
}

func (p *printer) parts(r *analysis.Report) {
	if len(r.Parts) == 0 {
		return
	}
	p.heading("before main", "what the phases loader and runtime_init consist of"+each(r))
	t := &table{columns: []column{{name: "phase", left: true}, {name: "part", left: true, flex: true}, {name: "time"}, {name: "share"}, {left: true}}}
	totals := map[string]int64{}
	for _, x := range r.Parts {
		totals[x.Phase] += x.NS
	}
	last := ""
	for _, x := range r.Parts {
		name := cell{figure.Clean(x.Phase), plain}
		if x.Phase == last {
			name.text = ""
		}
		last = x.Phase
		t.add(name, figure.Clean(x.Name), figure.Duration(float64(x.NS)), figure.Percent(float64(x.NS), float64(totals[x.Phase])),
			cell{bar(0, x.NS, totals[x.Phase], 20), green})
	}
	p.print(t)
}

func (p *printer) objects(r *analysis.Report) {
	b := r.Binding
	if b == nil || len(b.Objects) == 0 {
		return
	}
	p.heading("objects", fmt.Sprintf("%d relocated in %s; %s symbols bound at once, %s at their first call in %s%s", len(b.Objects),
		figure.Duration(float64(b.Eager.NS)), figure.Count(b.Eager.Count), figure.Count(b.Lazy.Count), figure.Duration(float64(b.Lazy.NS)), each(r)))
	t := &table{columns: []column{
		{name: "object", left: true, flex: true},
		{name: "mode", left: true, quiet: true},
		{name: "mapped"},
		{name: "relocated"},
		{name: "init"},
		{name: "faults"},
		{name: "relative"},
		{name: "eager"},
		{name: "lazy"},
		{name: "never"},
	}}
	shown := b.Objects[:min(p.Rows, len(b.Objects))]
	for _, o := range shown {
		relative, eager, never := cell{"–", dim}, cell{"–", dim}, cell{"–", dim}
		if s := o.StaticRelocations; s != nil {
			relative = known(float64(s.Relative + s.RELR))
			n := s.GlobDat
			if o.Mode != "lazy" {
				n += s.JumpSlot
			}
			eager = known(float64(n))
		}
		if o.NeverBound != nil {
			never = known(*o.NeverBound)
		}
		t.add(base(o.Path), o.Mode, optional(o.MapNS), figure.Duration(float64(o.NS)), optional(o.ConstructorsNS),
			known(o.Faults), relative, eager, known(o.BoundLazily), never)
	}
	p.print(t)
	var rest int64
	for _, o := range b.Objects[len(shown):] {
		rest += o.NS
	}
	p.more(len(b.Objects)-len(shown), fmt.Sprintf(": %s", figure.Duration(float64(rest))))
}

// symbols prints the slowest symbols that were bound at their first call.
func (p *printer) symbols(r *analysis.Report) {
	if r.Binding == nil || r.Binding.Lazy.Count == 0 {
		return
	}
	p.heading("symbols", "bound at their first call, slowest first")
	t := &table{columns: []column{{name: "symbol", left: true, flex: true}, {name: "needed by", left: true, quiet: true}, {name: "given by", left: true, quiet: true}, {name: "count"}, {name: "time"}, {name: "phase", left: true}}}
	shown, all := 0, 0
	for _, s := range r.Binding.Symbols {
		if s.NS == nil {
			continue
		}
		all++
		if shown == p.Rows {
			continue
		}
		shown++
		name := cell{figure.Clean(s.Name), plain}
		if s.Name == "" {
			name = cell{"unknown", dim}
		}
		t.add(name, base(s.Object), base(s.Target), figure.Count(s.Count), figure.Duration(float64(*s.NS)), figure.Clean(s.Phase))
	}
	p.print(t)
	p.more(all-shown, "")
}

// lookups prints the calls of dlopen and dlsym.
func (p *printer) lookups(r *analysis.Report) {
	if len(r.Dlopens)+len(r.Dlsyms) == 0 {
		return
	}
	p.heading("run-time linking", fmt.Sprintf("dlopen %s, dlsym %s; what a dlopen loads is in its time",
		plural(len(r.Dlopens), "name"), plural(len(r.Dlsyms), "name")))
	t := &table{columns: []column{{name: "call", left: true}, {name: "name", left: true, flex: true}, {name: "count"}, {name: "time"}, {left: true}}}
	row := func(call, name string, count float64, ns *int64, ok bool) {
		result := cell{}
		if !ok {
			result = cell{"failed", yellow}
		}
		named := cell{figure.Clean(name), plain}
		if name == "" {
			named = cell{"the program", dim}
		}
		t.add(call, named, figure.Count(count), optional(ns), result)
	}
	opens := r.Dlopens[:min(2*p.Rows, len(r.Dlopens))]
	for _, d := range opens {
		row("dlopen", d.Path, d.Count, d.NS, d.OK)
	}
	syms := r.Dlsyms[:min(p.Rows, len(r.Dlsyms))]
	for _, d := range syms {
		row("dlsym", d.Name, d.Count, d.NS, d.OK)
	}
	p.print(t)
	p.more(len(r.Dlopens)-len(opens)+len(r.Dlsyms)-len(syms), "")
}

func (p *printer) packages(r *analysis.Report) {
	if len(r.Packages) == 0 {
		return
	}
	var total int64
	for _, x := range r.Packages {
		total += x.NS
	}
	p.heading("packages", fmt.Sprintf("%s of Go initialised in %s%s, slowest first", plural(len(r.Packages), "package"), figure.Duration(float64(total)), each(r)))
	t := &table{columns: []column{{name: "package", left: true, flex: true}, {name: "time"}, {name: "share"}, {left: true}}}
	shown := r.Packages[:min(p.Rows, len(r.Packages))]
	for _, x := range shown {
		name := cell{figure.Clean(x.Path), plain}
		if x.Path == "" {
			name = cell{"unknown", dim}
		}
		t.add(name, figure.Duration(float64(x.NS)), figure.Percent(float64(x.NS), float64(total)), cell{bar(0, x.NS, total, 20), green})
	}
	p.print(t)
	var rest int64
	for _, x := range r.Packages[len(shown):] {
		rest += x.NS
	}
	p.more(len(r.Packages)-len(shown), ": "+figure.Duration(float64(rest)))
}

func (p *printer) certs(r *analysis.Report) {
	if len(r.Certs) == 0 {
		return
	}
	var total int64
	for _, x := range r.Certs {
		total += x.NS
	}
	p.heading("certificates", fmt.Sprintf("%s read and parsed in %s%s", plural(len(r.Certs), "file"), figure.Duration(float64(total)), each(r)))
	t := &table{columns: []column{{name: "path", left: true, flex: true}, {name: "read"}, {name: "time"}, {name: "faults"}, {name: "by", left: true, flex: true}, {name: "phase", left: true, quiet: true}}}
	shown := r.Certs[:min(p.Rows, len(r.Certs))]
	for _, x := range shown {
		read := cell{"–", dim}
		if x.Bytes != nil {
			read = cell{text: figure.Bytes(*x.Bytes)}
		}
		t.add(figure.Clean(x.Path), read, figure.Duration(float64(x.NS)), known(x.Faults), unknownIfEmpty(x.Function), figure.Clean(x.Phase))
	}
	p.print(t)
	p.more(len(r.Certs)-len(shown), "")
}

func (p *printer) allocators(r *analysis.Report) {
	if len(r.Allocator) == 0 {
		return
	}
	p.heading("allocators", "set up and growth: time in these functions, or in the calls by which they took memory"+each(r))
	t := &table{columns: []column{{name: "allocator", left: true}, {name: "function", left: true, flex: true}, {name: "time"}, {name: "mapped"}, {name: "faults"}, {name: "phase", left: true, quiet: true}}}
	shown := r.Allocator[:min(p.Rows, len(r.Allocator))]
	for _, x := range shown {
		t.add(figure.Clean(x.Name), unknownIfEmpty(x.Function), figure.Duration(float64(x.NS)), figure.Bytes(float64(x.MappedBytes)), known(x.Faults), figure.Clean(x.Phase))
	}
	p.print(t)
	p.more(len(r.Allocator)-len(shown), "")
}

// base is a path's last part, or nothing.
func base(name string) string {
	if name == "" {
		return ""
	}
	return figure.Clean(path.Base(name))
}

func unknownIfEmpty(name string) cell {
	if name == "" {
		return cell{"unknown", dim}
	}
	return cell{text: figure.Clean(name)}
}
