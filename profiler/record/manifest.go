package record

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/profile"
	"github.com/initprof/initprof/profiler/sandbox"
	"github.com/initprof/initprof/profiler/startup"
	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// manifestVersion changes with every change of the manifest's meaning.
const manifestVersion = 1

// Manifest is manifest.json: everything that is no event.
type Manifest struct {
	Version    int             `json:"version"`
	Complete   bool            `json:"complete"` // false: the run was cut short
	Head       analysis.Header `json:"head"`
	ColdStarts []Entry         `json:"cold_starts"`
}

// Entry is one cold start. Instants are CLOCK_MONOTONIC; nil is unknown.
type Entry struct {
	Index           int      `json:"index"`
	Traced          bool     `json:"traced"`
	Outcome         string   `json:"outcome"`
	Detail          string   `json:"detail,omitempty"`
	LastOutput      []string `json:"last_output,omitempty"`
	Released        int64    `json:"released_ns"`
	ReleaseToNextNS *int64   `json:"release_to_next_ns,omitempty"`
	InitNS          *int64   `json:"init_ns,omitempty"`
	SlackNS         *int64   `json:"slack_ns,omitempty"`
	FirstInvokeNS   *int64   `json:"first_invoke_ns,omitempty"`
	ReadyNS         *int64   `json:"ready_ns,omitempty"`
	ThrottledNS     *int64   `json:"throttled_ns,omitempty"`
	// Init is absent where INIT did not end well.
	Init       *analysis.InitTimes `json:"init,omitempty"`
	EventCount *int64              `json:"event_count,omitempty"`
	LostEvents *int64              `json:"lost_events,omitempty"`
	Events     string              `json:"events,omitempty"` // file, relative to the run
	Received   []phase.Received    `json:"received,omitempty"`
}

// initTimes is what the environment saw of all processes of INIT.
func initTimes(r *coldstart.Result) *analysis.InitTimes {
	if r.InitStart == 0 || r.InitEnd == 0 {
		return nil
	}
	t := &analysis.InitTimes{Start: r.InitStart, End: r.InitEnd}
	for name, p := range r.Times.Extensions {
		t.Processes = append(t.Processes, analysis.InitProcess{
			Name: name, Subject: name == r.Subject, Released: p.Released, Registered: p.Registered, FirstNext: p.FirstNext,
		})
	}
	slices.SortFunc(t.Processes, func(x, y analysis.InitProcess) int { return cmp.Compare(x.Name, y.Name) })
	if p := r.Times.Runtime; p.FirstNext != 0 {
		t.Processes = append(t.Processes, analysis.InitProcess{
			Name: "runtime", Subject: r.Subject == sandbox.Runtime, Runtime: true, Released: p.Released, FirstNext: p.FirstNext,
		})
	}
	return t
}

// ErrNoRun is wrapped by errors about directories that are no run.
var ErrNoRun = errors.New("not a run of initprof")

// Run is a run that was opened.
type Run struct {
	Dir      string
	Manifest Manifest
	Symbols  *symbolize.Store
	Objects  loader.Objects // facts of the objects that were mapped
	Rules    *ledger.Rules  // of categories; nil: the built-in ones
}

// objectsName is where they lie in a run.
const objectsName = "symbols/objects.json"

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
		return nil, fmt.Errorf("%s: %w: its format has version %d, this initprof reads %d: record it again, or use the initprof that recorded it", dir, ErrNoRun, r.Manifest.Version, manifestVersion)
	}
	if r.Symbols, err = symbolize.Open(filepath.Join(dir, "symbols")); r.Symbols == nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	if b, err := os.ReadFile(filepath.Join(dir, filepath.FromSlash(objectsName))); err == nil {
		if err := json.Unmarshal(b, &r.Objects); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", dir, objectsName, err)
		}
	}
	return r, nil
}

// load decodes a cold start. A recording that cannot be read whole is a
// warning: what can be is used.
func (r *Run) load(e Entry) (analysis.ColdStart, *symbolize.Resolver, []string) {
	c := analysis.ColdStart{
		Index: e.Index, Traced: e.Traced, Outcome: e.Outcome, OutcomeDetail: e.Detail, LastOutput: e.LastOutput,
		ReleaseToNextNS: e.ReleaseToNextNS, InitNS: e.InitNS, SlackNS: e.SlackNS, FirstInvokeNS: e.FirstInvokeNS, ThrottledNS: e.ThrottledNS,
		Init: e.Init, Events: e.EventCount, LostEvents: e.LostEvents,
	}
	in := phase.Input{Runtime: r.Manifest.Head.Settings.As == "runtime", Release: e.Released, Received: e.Received}
	var warnings []string
	warn := func(err error) { warnings = append(warnings, fmt.Sprintf("cold start %d: %v", e.Index, err)) }
	var resolver *symbolize.Resolver
	if e.Events != "" {
		raw, err := capture.ReadRecordingFile(filepath.Join(r.Dir, filepath.FromSlash(e.Events)))
		if err != nil {
			warn(err)
			return c, nil, warnings
		}
		events, refused := raw.Decode()
		if refused != nil && !errors.Is(refused, capture.ErrLayout) { // that the probes tell
			warn(refused)
		}
		if c.Timeline, err = trace.Build(events, trace.BuildOptions{Arch: raw.Arch, Stop: raw.Stopped}); err != nil {
			warn(err)
			return c, nil, warnings
		}
		in.Timeline, in.PID = c.Timeline, raw.SubjectPID
		resolver = r.Symbols.Resolver(events)
		c.Names = resolver
		if raw.Goroutines != nil && !errors.Is(refused, capture.ErrLayout) {
			c.Goroutines = analysis.GoroutinesFull
			if raw.CheapGoroutines {
				c.Goroutines = analysis.GoroutinesCheap
			}
		}
	}
	found, err := phase.Compute(in)
	if err != nil {
		warn(err)
	}
	c.Phases = found
	if c.Timeline != nil && found != nil {
		c.Startup = startup.Compute(startup.Input{Timeline: c.Timeline, Phases: found, Resolver: resolver, Facts: r.Objects})
		if in := r.ledgerInput(c, resolver); in != nil {
			c.Ledger, _ = ledger.Compute(*in) // a mistake in it fails the report, which checks it again
		}
	}
	return c, resolver, warnings
}

// ledgerInput is what the account of a cold start is made of, nil where waits
// were not recorded: what a thread does then is not known.
func (r *Run) ledgerInput(c analysis.ColdStart, names *symbolize.Resolver) *ledger.Input {
	if s := r.Manifest.Head.Settings.Signals; c.Timeline == nil || c.Phases == nil || s != nil && !slices.Contains(s, string(profile.OffCPU)) {
		return nil
	}
	return &ledger.Input{
		Timeline: c.Timeline, Phases: c.Phases, Startup: c.Startup, Names: names, Rules: r.Rules,
		Goroutines: c.Goroutines == analysis.GoroutinesFull,
	}
}

// ColdStart decodes one cold start, counted from 1.
func (r *Run) ColdStart(index int) (analysis.ColdStart, error) {
	for _, e := range r.Manifest.ColdStarts {
		if e.Index == index {
			c, _, warnings := r.load(e)
			if c.Timeline == nil || c.Phases == nil {
				return c, fmt.Errorf("%s: cold start %d was not traced, or cannot be read (%s)", r.Dir, index, strings.Join(warnings, "; "))
			}
			return c, nil
		}
	}
	return analysis.ColdStart{}, fmt.Errorf("%s: there is no cold start %d", r.Dir, index)
}

// Report computes the report of all cold starts, or of one, counted from 1.
func (r *Run) Report(only int) (*analysis.Report, error) {
	return r.report(only, func(Entry, analysis.ColdStart, *symbolize.Resolver) {})
}

// report also shows each cold start to whoever needs more of it.
func (r *Run) report(only int, each func(Entry, analysis.ColdStart, *symbolize.Resolver)) (*analysis.Report, error) {
	sums := analysis.NewAccumulator(r.Manifest.Head, analysis.Options{Run: only})
	var warnings []string
	for _, e := range r.Manifest.ColdStarts {
		c := analysis.ColdStart{Index: e.Index}
		if only == 0 || e.Index == only {
			var w []string
			var names *symbolize.Resolver
			c, names, w = r.load(e)
			warnings = append(warnings, w...)
			each(e, c, names)
		}
		if err := sums.Add(c); err != nil {
			return nil, err
		}
	}
	report, err := sums.Report()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.Dir, err)
	}
	report.Warnings = append(report.Warnings, warnings...)
	if !r.Manifest.Complete {
		report.Warnings = append(report.Warnings, "this run was cut short")
	}
	return report, nil
}

// Profile reads the profile of a signal that was written with the run.
func (r *Run) Profile(s profile.Signal) (*pprofile.Profile, error) {
	f, err := os.Open(filepath.Join(r.Dir, profileName(s)))
	if err != nil {
		return nil, fmt.Errorf("the run has no profile of %s: %w", s, err)
	}
	defer func() { _ = f.Close() }()
	p, err := pprofile.Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", f.Name(), err)
	}
	return p, nil
}

// profileName is where a signal's profile lies in a run.
func profileName(s profile.Signal) string { return "profiles/" + string(s) + ".pb.gz" }

// profiles adds up the traced cold starts, all signals at once.
func (r *Run) profiles() *profile.Builder {
	b := r.newBuilder()
	for _, e := range r.Manifest.ColdStarts {
		if e.Events != "" && e.Outcome == analysis.OutcomeOK {
			c, names, _ := r.load(e) // warnings are the report's
			if names != nil {
				b.Add(profiled(e, c, names))
			}
		}
	}
	return b
}

func (r *Run) newBuilder() *profile.Builder {
	head := r.Manifest.Head
	opts := profile.Options{Tool: head.Tool.Version, Kernel: head.Host.Kernel, BuildID: head.Subject.BuildID}
	if len(head.Subject.Command) > 0 {
		opts.Main = head.Subject.Command[0]
	}
	if hz := head.Settings.SampleHz; hz != nil && *hz > 0 {
		opts.Period = time.Second / time.Duration(*hz)
	}
	return profile.NewBuilder(opts)
}

// profiled is what profiles take of a cold start.
func profiled(e Entry, c analysis.ColdStart, names *symbolize.Resolver) profile.ColdStart {
	lost := uint64(0)
	if e.LostEvents != nil {
		lost = uint64(*e.LostEvents)
	}
	return profile.ColdStart{Timeline: c.Timeline, Phases: c.Phases, Startup: c.Startup, Ledger: c.Ledger, Symbolizer: names, Lost: lost}
}

// Traced is how many cold starts the profiles hold.
func (r *Run) Traced() (n int) {
	for _, e := range r.Manifest.ColdStarts {
		if e.Events != "" && e.Outcome == analysis.OutcomeOK {
			n++
		}
	}
	return n
}
