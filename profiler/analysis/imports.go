package analysis

import (
	"cmp"
	"slices"

	"github.com/initprof/initprof/profiler/imports"
	"github.com/initprof/initprof/profiler/trace"
)

// importValues are the totals of one module over cold starts.
type importValues struct {
	module        string
	n, start      int64
	followed, sum int64 // those that another module followed
	opens, probes int64
}

func (s *sums) addImports(tl *trace.Timeline, from, to int64) {
	for _, m := range imports.Find(tl, from, to) {
		v := s.imports[m.Path]
		if v == nil {
			v = &importValues{module: m.Name}
			s.imports[m.Path] = v
		}
		v.n++
		v.start += m.Start - from
		v.opens += int64(m.Opens)
		v.probes += int64(m.Probes)
		if m.NS > 0 {
			v.followed++
			v.sum += m.NS
		}
	}
}

// reportImports lists the modules in the order of their opens.
func (s *sums) reportImports(r *Report) {
	r.Imports = []Import{}
	for path, v := range s.imports {
		i := Import{
			Module: v.module, Path: path, StartNS: mean(v.start, v.n),
			Opens: each(v.opens, int64(s.timed)), Probes: each(v.probes, v.n),
		}
		if v.followed > 0 {
			i.NS = new(mean(v.sum, v.followed))
		}
		r.Imports = append(r.Imports, i)
	}
	slices.SortFunc(r.Imports, func(x, y Import) int {
		return cmp.Or(cmp.Compare(x.StartNS, y.StartNS), cmp.Compare(x.Path, y.Path))
	})
}
