package symbolize

import (
	"maps"
	"slices"
	"sync"

	"github.com/initprof/initprof/profiler/trace"
)

// Store holds the frames of the addresses that were hit, by module. It is
// filled by a Collector and written with a run; it is safe for concurrent use.
type Store struct {
	mu      sync.RWMutex
	modules map[string]*module // by key
	paths   map[string][]association
}

// association says which module a path was from a time on: files can be
// replaced between two cold starts.
type association struct {
	from int64 // CLOCK_MONOTONIC of the first mapping
	key  string
}

// module is an object and the frames of its addresses.
type module struct {
	key      string // build ID, or a hash of path, size and times of an object without one
	buildID  string
	segments []Segment
	frames   map[uint64][]Frame // by address in the object; nil frames: looked up and unnamed
}

// kernelKey and vdsoKey are the keys of modules that are no files.
const (
	kernelKey = "kernel"
	vdsoKey   = "vdso"
)

// NewStore returns an empty store.
func NewStore() *Store {
	return &Store{modules: map[string]*module{}, paths: map[string][]association{}}
}

// moduleFor returns the module with that key, and makes it if need be.
func (s *Store) moduleFor(key, buildID string, segments []Segment) *module {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.modules[key]
	if m == nil {
		m = &module{key: key, buildID: buildID, segments: slices.Clone(segments), frames: map[uint64][]Frame{}}
		s.modules[key] = m
	}
	return m
}

// associate notes that a path is a module from a time on.
func (s *Store) associate(path string, from int64, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.paths[path]
	i := 0
	for i < len(list) && list[i].from <= from {
		i++
	}
	if i > 0 && list[i-1].key == key {
		return
	}
	if i < len(list) && list[i].key == key {
		list[i].from = from
		return
	}
	s.paths[path] = slices.Insert(list, i, association{from, key})
}

// add stores frames of addresses of a module.
func (s *Store) add(m *module, frames map[uint64][]Frame) {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.Copy(m.frames, frames)
}

// missing returns which of the addresses a module has not looked up.
func (s *Store) missing(m *module, addresses []uint64) []uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	var list []uint64
	for _, a := range addresses {
		if _, ok := m.frames[a]; !ok {
			list = append(list, a)
		}
	}
	return list
}

// lookup returns the module of a mapping, nil if none is known.
func (s *Store) lookup(m *trace.Mapping) *module {
	if m.Path == VDSOModule {
		return s.modules[vdsoKey]
	}
	if m.BuildID != "" {
		if mod := s.modules[m.BuildID]; mod != nil {
			return mod
		}
	}
	list := s.paths[m.Path]
	if len(list) == 0 {
		return nil
	}
	i := len(list) - 1
	for i > 0 && list[i].from > m.Time {
		i--
	}
	return s.modules[list[i].key]
}

// Resolver resolves the addresses of one cold start. It is safe for concurrent
// use.
type Resolver struct {
	store  *Store
	spaces *trace.Spaces
}

// Resolver returns a resolver for the addresses in the events of one cold
// start: their mappings, forks and execs say what was where and when.
func (s *Store) Resolver(events []trace.Event) *Resolver {
	return &Resolver{store: s, spaces: trace.NewSpaces(events)}
}

// Mapping returns what was mapped at a user address of a process at a time
// (CLOCK_MONOTONIC), nil if nothing is known.
func (r *Resolver) Mapping(pid int, at int64, address uint64) *trace.Mapping {
	return r.spaces.Mapping(pid, at, address)
}

// Resolve returns the location of an address of a process at a time
// (CLOCK_MONOTONIC). A return address is looked up one byte before, where the
// call is. An address without a name keeps its module and its address there.
func (r *Resolver) Resolve(pid int, at int64, address uint64, kernel, returnAddress bool) Location {
	r.store.mu.RLock()
	defer r.store.mu.RUnlock()
	if returnAddress && address > 0 {
		address--
	}
	if kernel {
		l := Location{Module: KernelModule, Address: address}
		if m := r.store.modules[kernelKey]; m != nil {
			l.BuildID, l.Frames = m.buildID, m.frames[address]
		}
		return l
	}
	m := r.spaces.Mapping(pid, at, address)
	if m == nil {
		return Location{Address: address}
	}
	if !isObject(m.Path) {
		l := Location{Module: m.Path, Address: address}
		if isAnonymous(m.Path) {
			l.Module = ""
		}
		return l
	}
	mod := r.store.lookup(m)
	l := Location{Module: m.Path, BuildID: m.BuildID}
	if mod == nil {
		l.Address = address - m.Start + m.Offset
		return l
	}
	if mod.buildID != "" {
		l.BuildID = mod.buildID
	}
	l.Address = objectAddress(mod.segments, m, address)
	l.Frames = mod.frames[l.Address]
	return l
}

// isObject reports whether a mapping's path can be an ELF object: a file, or
// the vDSO.
func isObject(path string) bool {
	return len(path) > 0 && path[0] == '/' && !isAnonymous(path) || path == VDSOModule
}

func isAnonymous(path string) bool {
	return path == "" || path == "//anon" || path == "[anon]"
}

// objectAddress translates an address of a mapping into the object's own. The
// segment is the one whose file part the address lies in; in a page that two
// segments share, the one that was mapped from this offset.
func objectAddress(segments []Segment, m *trace.Mapping, address uint64) uint64 {
	offset := address - m.Start + m.Offset
	best := -1
	for i, s := range segments {
		pad := s.Offset & 4095
		inside := offset >= s.Offset && offset-s.Offset < s.FileSize
		near := offset >= s.Offset-pad && offset-(s.Offset-pad) < (pad+s.FileSize+4095)&^4095
		switch {
		case inside && s.Offset-pad == m.Offset:
			return offset - s.Offset + s.Address
		case inside && (best < 0 || s.Exec):
			best = i
		case near && best < 0 && s.Exec == (m.Prot&trace.ProtExec != 0):
			best = i
		}
	}
	if best < 0 {
		return offset
	}
	return offset - segments[best].Offset + segments[best].Address
}
