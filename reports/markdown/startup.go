package markdown

import (
	"path"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// optional is a duration that may be unknown.
func optional(ns *int64) string {
	if ns == nil {
		return "–"
	}
	return figure.Duration(float64(*ns))
}

// startup lists what happened before and beside the program's own code.
func (p *page) startup(r *analysis.Report) {
	if len(r.Parts) > 0 {
		p.table("<phase", "<part", "time")
		for _, x := range r.Parts {
			p.row(escaped(x.Phase), escaped(x.Name), figure.Duration(float64(x.NS)))
		}
	}
	if b := r.Binding; b != nil && len(b.Objects) > 0 {
		p.table("<object", "<mode", "mapped", "relocated", "constructors", "bound lazily", "never bound")
		for _, o := range b.Objects[:min(rows, len(b.Objects))] {
			never := "–"
			if o.NeverBound != nil {
				never = figure.Count(*o.NeverBound)
			}
			p.row(code(path.Base(o.Path)), o.Mode, optional(o.MapNS), figure.Duration(float64(o.NS)), optional(o.ConstructorsNS),
				figure.Count(o.BoundLazily), never)
		}
		p.more(len(b.Objects), "objects")
	}
	if len(r.Packages) > 0 {
		p.table("<Go package", "initialised in")
		for _, x := range r.Packages[:min(rows, len(r.Packages))] {
			p.row(code(x.Path), figure.Duration(float64(x.NS)))
		}
		p.more(len(r.Packages), "packages")
	}
	if len(r.Certs) > 0 {
		p.table("<certificates", "read", "time", "<by")
		for _, x := range r.Certs[:min(rows, len(r.Certs))] {
			read := "–"
			if x.Bytes != nil {
				read = figure.Bytes(*x.Bytes)
			}
			p.row(code(x.Path), read, figure.Duration(float64(x.NS)), code(x.Function))
		}
		p.more(len(r.Certs), "files")
	}
}
