package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// manifestVersion changes with every change of the manifest's meaning.
const manifestVersion = 1

// Manifest is manifest.json: everything that is no event.
type Manifest struct {
	Version    int             `json:"version"`
	Complete   bool            `json:"complete"` // false: the run was cut short
	Head       analysis.Report `json:"head"`     // what holds for all cold starts; no figures
	ColdStarts []Entry         `json:"cold_starts"`
}

// Entry is one cold start.
type Entry struct {
	Run      analysis.Run     `json:"run"`
	Released int64            `json:"released_ns"`
	Ready    int64            `json:"ready_ns,omitempty"`
	Events   string           `json:"events,omitempty"` // file, relative to the run
	Received []phase.Received `json:"received,omitempty"`
}

// ErrNoRun is wrapped by errors about directories that are no run.
var ErrNoRun = errors.New("not a run of initprof")

// Run is a run that was opened.
type Run struct {
	Dir      string
	Manifest Manifest
	Symbols  *symbolize.Store
}

// Open opens a run.
func Open(dir string) (*Run, error) {
	b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrNoRun, err)
	}
	r := &Run{Dir: dir}
	if err := json.Unmarshal(b, &r.Manifest); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", dir, ErrNoRun, err)
	}
	if r.Manifest.Version != manifestVersion {
		return nil, fmt.Errorf("%s: %w: version %d, want %d", dir, ErrNoRun, r.Manifest.Version, manifestVersion)
	}
	if r.Symbols, err = symbolize.Open(filepath.Join(dir, "symbols")); err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return r, nil
}

// coldStart is a cold start with its events decoded.
type coldStart struct {
	analysis.ColdStart
	resolver *symbolize.Resolver
	sampleHz int
}

// each calls f for every cold start, or only for the one with index only.
// Recordings that cannot be read are warnings; their cold starts count as untraced.
func (r *Run) each(only int, f func(coldStart)) (warnings []string, err error) {
	found := false
	for _, e := range r.Manifest.ColdStarts {
		if only != 0 && e.Run.Index != only {
			continue
		}
		found = true
		c, w := r.load(e)
		warnings = append(warnings, w...)
		f(c)
	}
	if only != 0 && !found {
		return warnings, fmt.Errorf("%s has no cold start %d: it has %d, from 1", r.Dir, only, len(r.Manifest.ColdStarts))
	}
	return warnings, nil
}

func (r *Run) load(e Entry) (coldStart, []string) {
	c := coldStart{ColdStart: analysis.ColdStart{Run: e.Run, Ready: e.Ready}}
	in := phase.Input{AsRuntime: r.Manifest.Head.Settings.As == "runtime", Released: e.Released, Received: e.Received}
	if e.Events == "" {
		c.Found = phase.Find(in)
		return c, nil
	}
	raw, err := capture.ReadRecordingFile(filepath.Join(r.Dir, filepath.FromSlash(e.Events)))
	if err != nil {
		return c, []string{fmt.Sprintf("cold start %d: %v", e.Run.Index, err)}
	}
	var warnings []string
	events, err := raw.Decode()
	if err != nil {
		warnings = append(warnings, fmt.Sprintf("cold start %d: %v", e.Run.Index, err))
	}
	tl, err := trace.Build(events, trace.BuildOptions{Arch: raw.Arch, Stop: raw.Stopped})
	if err == nil {
		err = tl.Check()
	}
	if err != nil {
		return c, append(warnings, fmt.Sprintf("cold start %d: %v", e.Run.Index, err))
	}
	in.Timeline, in.SubjectPID = tl, raw.SubjectPID
	c.Timeline, c.Found = tl, phase.Find(in)
	c.resolver, c.sampleHz = r.Symbols.Resolver(events), raw.SampleHz
	return c, append(warnings, c.Found.Warnings...)
}

// Report computes the report of all cold starts, or of one, counted from 1.
func (r *Run) Report(only int) (*analysis.Report, error) {
	b := analysis.NewBuilder(r.Manifest.Head)
	warnings, err := r.each(only, func(c coldStart) { b.Add(c.ColdStart) })
	if err != nil {
		return nil, err
	}
	report := b.Report()
	seen := map[string]bool{}
	for _, w := range warnings {
		if !seen[w] {
			report.Warnings = append(report.Warnings, w)
		}
		seen[w] = true
	}
	if !r.Manifest.Complete {
		report.Warnings = append(report.Warnings, "this run was cut short")
	}
	return report, nil
}

// Samples calls f with the weighted stacks of a signal of each traced cold start.
func (r *Run) Samples(signal string, f func([]profile.Sample)) (coldStarts int, err error) {
	_, err = r.each(0, func(c coldStart) {
		if c.Timeline == nil || c.Run.Outcome != analysis.OutcomeOK {
			return
		}
		coldStarts++
		f(profile.Source{Timeline: c.Timeline, Found: c.Found, Resolver: c.resolver, SampleHz: c.sampleHz}.Collect(signal))
	})
	return coldStarts, err
}

// Phases lists the phases over all cold starts, in the order of the window.
func (r *Run) Phases() ([]string, error) {
	report, err := r.Report(0)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, p := range report.Phases {
		names = append(names, p.Name)
	}
	return names, nil
}
