package record

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// rehearse makes one cold start that counts for nothing: it warms the page
// cache and this process, and shows which files the subject maps and opens, so
// that the right instructions are probed.
func (s *session) rehearse(ctx context.Context) ([]trace.Event, error) {
	var tracer coldstart.Tracer
	if s.tracer != nil {
		tracer = s.tracer
	}
	var events []trace.Event
	_, err := coldstart.Run(ctx, s.opts.ColdStart, tracer, func(r *coldstart.Result) {
		if r.Raw == nil {
			return
		}
		events, _ = r.Raw.Decode() // an incomplete list is still one
		s.root = fmt.Sprintf("/proc/%d", r.TracedProcess)
		s.planProbes(events)
	})
	return events, err
}

// role is what a mapped file is to the subject.
type role uint8

const (
	library role = iota
	program
	interpreter
)

// planProbes plans and attaches the probes of all files that a cold start
// executed code of.
func (s *session) planProbes(events []trace.Event) {
	var points []capture.Point
	for path, role := range executed(events) {
		plan, err := s.planFile(path, role)
		if err != nil {
			if !errors.Is(err, symbolize.ErrNotELF) && !errors.Is(err, os.ErrNotExist) {
				s.warn(fmt.Sprintf("%s: not probed: %v", path, err))
			}
			continue
		}
		for _, p := range plan.Points {
			points = append(points, capture.Point{Path: path, Point: p})
		}
		for _, m := range plan.Missing {
			s.missing(path, m)
		}
	}
	if s.opts.Capture.NoCalls {
		points = slices.DeleteFunc(points, func(p capture.Point) bool {
			return p.Action.IsCall() || p.Action == probe.RecordReturn || p.Action == probe.RecordGo
		})
	}
	// The loader tells by itself when it is done; the entry, of which the first
	// instruction would be single-stepped, is needed only without.
	if slices.ContainsFunc(points, func(p capture.Point) bool { return p.Name == loader.Init }) {
		points = slices.DeleteFunc(points, func(p capture.Point) bool { return p.Kind == probe.Entry && p.Steps })
	}
	slices.SortStableFunc(points, func(x, y capture.Point) int {
		switch {
		case x.Path != y.Path:
			if x.Path < y.Path {
				return -1
			}
			return 1
		}
		return int(x.Action) - int(y.Action)
	})
	s.points = points
	s.tracer.WatchPoints(points)
	s.watchGoroutines()
}

func (s *session) missing(path, reason string) {
	p := analysis.Probe{Name: "uprobe " + filepath.Base(path), Status: analysis.ProbeUnavailable, Reason: reason}
	if !slices.Contains(s.manifest.Head.Probes, p) {
		s.manifest.Head.Probes = append(s.manifest.Head.Probes, p)
	}
}

// executed lists the files of which code was mapped, by path, with their roles.
func executed(events []trace.Event) map[string]role {
	files := map[string]role{}
	type program_ struct{ entry, base uint64 }
	programs := map[int][]program_{}
	for _, e := range events {
		if e, ok := e.(*trace.Exec); ok {
			programs[e.PID] = append(programs[e.PID], program_{e.Entry, e.Base})
		}
	}
	for _, e := range events {
		m, ok := e.(*trace.Mapping)
		if !ok || m.Prot&trace.ProtExec == 0 || !filepath.IsAbs(m.Path) || m.Path == "//anon" {
			continue
		}
		is := files[m.Path]
		for _, p := range programs[m.PID] {
			switch {
			case m.Start <= p.entry && p.entry < m.Limit:
				is = program
			// The interpreter's first mapping is at its base; its code follows.
			case p.base != 0 && m.Start-m.Offset <= p.base && p.base < m.Limit && is == library:
				is = interpreter
			}
		}
		files[m.Path] = is
	}
	return files
}

// planFile plans the probes of one file.
func (s *session) planFile(path string, is role) (probe.Plan, error) {
	f, closer, err := s.openMapping(path, &trace.Mapping{Path: path})
	if err != nil {
		return probe.Plan{}, err
	}
	defer func() { _ = closer.Close() }()
	if is == interpreter {
		return s.planLoader(f)
	}
	o, err := symbolize.OpenObject(f)
	if err != nil {
		return probe.Plan{}, err
	}
	language, _ := o.Language()
	p := probe.Program{
		Object: o, Entry: o.Info.Entry, Dynamic: o.Info.Interpreter != "",
		Arch: o.Info.Machine, Go: language == symbolize.LanguageGo, AllowStepping: s.opts.StepProbes,
	}
	if is == program {
		s.planGoroutines(path, p, o)
		return probe.For(p), nil
	}
	return probe.ForLibrary(p), nil
}

func (s *session) planLoader(f io.ReaderAt) (probe.Plan, error) {
	l, err := loader.Locate(f, loader.Options{})
	if err != nil {
		return probe.Plan{}, err
	}
	if l.BuildID != "" {
		if debug, err := loader.OpenDebug("", l.BuildID); err == nil {
			defer func() { _ = debug.Close() }()
			if l, err = loader.Locate(f, loader.Options{Debug: debug}); err != nil {
				return probe.Plan{}, err
			}
		}
	}
	return l.Plan(s.opts.StepProbes), nil
}

// readObjects reads the facts of the objects that a cold start mapped and that
// are not known yet, while the subject still has them.
func (s *session) readObjects(events []trace.Event) {
	for path := range executed(events) {
		if _, known := s.objects[path]; known {
			continue
		}
		s.objects[path] = s.readFacts(path)
	}
}

// readFacts returns the facts of an object, nil if it is none.
func (s *session) readFacts(path string) *loader.Facts {
	f, closer, err := s.openMapping(path, &trace.Mapping{Path: path})
	if err != nil {
		return nil
	}
	defer func() { _ = closer.Close() }()
	o, err := symbolize.OpenObject(f)
	if err != nil {
		return nil
	}
	facts, err := loader.FactsOf(o)
	if err != nil {
		return nil
	}
	return facts
}

// listProbes adds what was attached, and what not, to the head.
func (s *session) listProbes() {
	costs := ledger.DefaultCosts
	cost := map[string]float64{}
	for _, p := range s.points {
		ns := costs.Mark
		switch {
		case p.Action.IsCall():
			ns = costs.Call
		case p.Action == probe.RecordReturn:
			ns = 0 // in that of the call
		}
		if p.Steps {
			ns += costs.Step
		}
		cost["uprobe "+p.String()] = ns
	}
	for _, p := range s.tracer.Probes() {
		out := analysis.Probe{Name: p.Name, Status: analysis.ProbeAttached, Reason: p.Reason}
		if p.Reason != "" {
			out.Status = analysis.ProbeUnavailable
			s.manifest.Head.Probes = append(s.manifest.Head.Probes, out)
			continue
		}
		total := int64(p.Hits)
		if name, ok := strings.CutPrefix(p.Name, "uprobe "); ok {
			total = s.hits[name]
		}
		// The others, which only note contexts or mappings, do not count their hits.
		ns, counted := cost[p.Name]
		if !counted {
			ns, counted = costs.OfProbe(p.Name)
		}
		if counted {
			out.Hits = new(float64(total) / float64(max(1, s.traced())))
			out.EstimatedNS = new(int64(*out.Hits * ns))
		}
		s.manifest.Head.Probes = append(s.manifest.Head.Probes, out)
	}
}
