package doctor

import (
	"fmt"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/symbolize"
)

// Probe is one place that record would probe, or could not.
type Probe struct {
	Name   string `json:"name"`
	In     string `json:"in"`     // the program, its interpreter or a library
	Status string `json:"status"` // "possible", "dear" (single-stepped at each hit) or "unavailable"
	Offset uint64 `json:"offset,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// planProbes tells what record's plans hold for this program.
func (e *examination) planProbes() {
	e.Probes = []Probe{}
	if e.Binary.Packer != "" {
		e.Probes = append(e.Probes, Probe{Name: "all", In: e.Path, Status: "unavailable", Reason: "the program is packed: its code is not in the file"})
		return
	}
	e.addPlan(e.Path, probe.For(probe.Program{
		Object: e.o, Entry: e.o.Info.Entry, Dynamic: e.facts.Interpreter != "", Arch: e.Binary.Arch, Go: e.isGo(),
	}))
	e.planLoader()
	for _, name := range sortedKeys(e.libs) {
		e.addPlan(e.libs[name].path, e.libs[name].plan)
	}
}

func (e *examination) addPlan(path string, plan probe.Plan) {
	for _, p := range plan.Points {
		status := "possible"
		if p.Steps {
			status = "dear"
		}
		e.Probes = append(e.Probes, Probe{Name: p.String(), In: path, Status: status, Offset: p.Offset})
	}
	for _, missing := range plan.Missing {
		e.Probes = append(e.Probes, Probe{Name: "–", In: path, Status: "unavailable", Reason: missing})
	}
}

// planLoader looks into the program's interpreter, which is this host's and may
// not be the target's.
func (e *examination) planLoader() {
	path := e.facts.Interpreter
	if path == "" {
		return
	}
	unavailable := func(reason string) {
		e.Probes = append(e.Probes, Probe{Name: "–", In: path, Status: "unavailable", Reason: reason})
	}
	if e.opts.Open == nil {
		unavailable("the interpreter was not looked at")
		return
	}
	l, err := e.locate(path)
	if err != nil {
		unavailable(err.Error())
		return
	}
	if l.Kind == loader.Unknown {
		unavailable("neither glibc's loader nor musl's: its span as a whole is seen")
		return
	}
	e.addPlan(path, l.Plan(false))
	for _, w := range l.Warnings {
		e.Warnings = append(e.Warnings, path+": "+w)
	}
}

// locate looks into the interpreter, with its debug file if this host has it.
func (e *examination) locate(path string) (*loader.Loader, error) {
	f, err := e.opts.Open(path)
	if err != nil {
		return nil, fmt.Errorf("not on this host: %w", err)
	}
	defer func() { _ = f.Close() }()
	l, err := loader.Locate(f, loader.Options{})
	if err != nil || l.BuildID == "" {
		return l, err
	}
	debug, err := e.opts.Open(loader.DebugPath("", l.BuildID))
	if err != nil {
		return l, nil
	}
	defer func() { _ = debug.Close() }()
	return loader.Locate(f, loader.Options{Debug: debug})
}

// library is one that the program needs, as this host has it.
type library struct {
	path  string
	facts *loader.Facts
	plan  probe.Plan
}

func readLibrary(r ReaderAtCloser, path, arch string) (*library, error) {
	o, err := symbolize.OpenObject(r)
	if err != nil {
		return nil, err
	}
	if o.Info.Machine != arch {
		return nil, fmt.Errorf("%s is for %s", path, o.Info.Machine)
	}
	facts, err := loader.FactsOf(o)
	if err != nil {
		return nil, err
	}
	return &library{path: path, facts: facts, plan: probe.ForLibrary(probe.Program{Object: o, Arch: arch})}, nil
}
