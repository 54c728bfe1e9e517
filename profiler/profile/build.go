package profile

import (
	"encoding/binary"

	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// labels tells samples with the same stack apart.
type labels struct {
	phase, category, state, thread, syscall, mapping, goroutine, reason, waker string
}

// profileBuilder is a profile with indexes of what it holds.
type profileBuilder struct {
	pprofile.Profile
	mappings  map[mappingKey]*pprofile.Mapping
	locations map[locationKey]*pprofile.Location
	functions map[functionKey]*pprofile.Function
	samples   map[sampleKey]*pprofile.Sample
	scratch   []byte
}

type mappingKey struct{ module, buildID string }

type locationKey struct {
	mapping *pprofile.Mapping
	address uint64
	name    string // innermost: two processes may have different code there
}

type functionKey struct{ name, file string }

type sampleKey struct {
	labels
	stack string // location IDs
}

// wholeSpace makes a mapping whose addresses are the object's own: pprof takes
// them as they are if a mapping covers everything.
const wholeSpace = ^uint64(0)

func newProfileBuilder(s Signal, opts Options) *profileBuilder {
	b := &profileBuilder{
		mappings:  map[mappingKey]*pprofile.Mapping{},
		locations: map[locationKey]*pprofile.Location{},
		functions: map[functionKey]*pprofile.Function{},
		samples:   map[sampleKey]*pprofile.Sample{},
	}
	b.SampleType = s.types()
	last := b.SampleType[len(b.SampleType)-1]
	b.DefaultSampleType = last.Type
	b.PeriodType = last
	b.Period = 1
	if s == CPU {
		b.Period = opts.Period.Nanoseconds()
	}
	if !opts.Time.IsZero() {
		b.TimeNanos = opts.Time.UnixNano()
	}
	if opts.Main != "" {
		b.mapping(opts.Main, opts.BuildID)
	}
	return b
}

// add adds values to the sample with that stack and those labels.
func (b *profileBuilder) add(c ColdStart, pid int, at int64, stack trace.Stack, l labels, values ...int64) {
	b.addUnder(c, pid, at, stack, "", false, l, values...)
}

// addUnder is add with a leaf that is no code but has a name. The stack is that
// of its caller, which begins with a return address, or of the leaf itself.
func (b *profileBuilder) addUnder(c ColdStart, pid int, at int64, stack trace.Stack, leaf string, caller bool, l labels, values ...int64) {
	var locations []*pprofile.Location
	if leaf != "" {
		locations = append(locations, b.named(leaf))
	}
	resolve := func(addresses []uint64, kernel bool) {
		for n, address := range addresses {
			locations = append(locations, b.location(c, pid, at, address, kernel, n > 0 || caller && !kernel))
		}
	}
	resolve(stack.Kernel, true)
	resolve(stack.User, false)
	if len(locations) == 0 {
		locations = append(locations, b.named("[unknown]"))
	}
	b.scratch = b.scratch[:0]
	for _, location := range locations {
		b.scratch = binary.AppendUvarint(b.scratch, location.ID)
	}
	key := sampleKey{l, string(b.scratch)}
	s := b.samples[key]
	if s == nil {
		s = &pprofile.Sample{Location: locations, Value: make([]int64, len(values)), Label: l.pprof()}
		b.samples[key] = s
		b.Sample = append(b.Sample, s)
	}
	for n, v := range values {
		s.Value[n] += v
	}
}

func (l labels) pprof() map[string][]string {
	m := map[string][]string{}
	for name, value := range map[string]string{
		"phase": l.phase, "state": l.state, "thread": l.thread, "syscall": l.syscall, "mapping": l.mapping,
		"goroutine": l.goroutine, "reason": l.reason, "category": l.category, "waker": l.waker,
	} {
		if value != "" {
			m[name] = []string{value}
		}
	}
	return m
}

func (b *profileBuilder) mapping(module, buildID string) *pprofile.Mapping {
	key := mappingKey{module, buildID}
	m := b.mappings[key]
	if m == nil {
		m = &pprofile.Mapping{
			ID: uint64(len(b.Mapping) + 1), Limit: wholeSpace, File: module, BuildID: buildID,
			// Names are final: pprof must not look for the file on its own host.
			HasFunctions: true, HasFilenames: true, HasLineNumbers: true, HasInlineFrames: true,
		}
		b.mappings[key] = m
		b.Mapping = append(b.Mapping, m)
	}
	return m
}

func (b *profileBuilder) location(c ColdStart, pid int, at int64, address uint64, kernel, returns bool) *pprofile.Location {
	resolved := symbolize.Location{Address: address}
	if kernel {
		resolved.Module = symbolize.KernelModule
	}
	if c.Symbolizer != nil {
		resolved = c.Symbolizer.Resolve(pid, at, address, kernel, returns)
	}
	key := locationKey{address: resolved.Address, name: resolved.Function()}
	if resolved.Module != "" {
		key.mapping = b.mapping(resolved.Module, resolved.BuildID)
	}
	location := b.locations[key]
	if location == nil {
		location = &pprofile.Location{ID: uint64(len(b.Location) + 1), Mapping: key.mapping, Address: resolved.Address}
		for _, f := range resolved.Frames {
			location.Line = append(location.Line, pprofile.Line{Function: b.function(f.Function, f.File), Line: int64(f.Line)})
		}
		b.locations[key] = location
		b.Location = append(b.Location, location)
	}
	return location
}

// named is a location without an address: of a stack that is not known, so that
// its time is shown, or of a leaf that is no code.
func (b *profileBuilder) named(name string) *pprofile.Location {
	key := locationKey{name: name}
	location := b.locations[key]
	if location == nil {
		location = &pprofile.Location{ID: uint64(len(b.Location) + 1), Line: []pprofile.Line{{Function: b.function(key.name, "")}}}
		b.locations[key] = location
		b.Location = append(b.Location, location)
	}
	return location
}

func (b *profileBuilder) function(name, file string) *pprofile.Function {
	key := functionKey{name, file}
	f := b.functions[key]
	if f == nil {
		f = &pprofile.Function{ID: uint64(len(b.Function) + 1), Name: name, SystemName: name, Filename: file}
		b.functions[key] = f
		b.Function = append(b.Function, f)
	}
	return f
}
