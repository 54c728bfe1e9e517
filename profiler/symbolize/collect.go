package symbolize

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/initprof/initprof/profiler/trace"
)

// Opener opens the object of a mapping, as the subject sees it. The reader must
// stay readable until the Collector is closed.
type Opener func(m *trace.Mapping) (io.ReaderAt, error)

// Collector fills a store with the frames of the addresses that cold starts
// hit. It keeps the objects that it opened; it is not safe for concurrent use.
type Collector struct {
	store   *Store
	kernel  *Kernel
	objects map[string]*Object // by path and build ID; nil: could not be opened
	failed  map[string]error
}

// NewCollector returns a collector for a store. kernel may be nil.
func NewCollector(store *Store, kernel *Kernel) *Collector {
	return &Collector{store: store, kernel: kernel, objects: map[string]*Object{}, failed: map[string]error{}}
}

// Use takes an object for a module with that build ID instead of what a mapping
// leads to: the unstripped twin of a stripped subject.
func (c *Collector) Use(buildID string, o *Object) { c.objects[buildID] = o }

// Errors tells which objects could not be read, by path.
func (c *Collector) Errors() map[string]error { return c.failed }

// hit is an address of an object that a stack holds.
type hit struct {
	pid     int
	at      int64
	address uint64
}

// Collect names the addresses in the stacks of one cold start.
func (c *Collector) Collect(events []trace.Event, open Opener) {
	resolver := c.store.Resolver(events)
	kernel := map[uint64]bool{}
	user := map[hit]bool{}
	for _, e := range events {
		s, ok := stackOf(e)
		if !ok {
			continue
		}
		h := e.Head()
		for i, a := range s.Kernel {
			if i > 0 {
				a--
			}
			kernel[a] = true
		}
		for i, a := range s.User {
			if i > 0 && a > 0 {
				a--
			}
			user[hit{h.PID, h.Time, a}] = true
		}
		if s.Caller > 0 {
			user[hit{h.PID, h.Time, s.Caller - 1}] = true
		}
	}
	c.nameKernel(kernel)
	byModule := map[*module]map[uint64]bool{}
	objects := map[*module]*Object{}
	for h := range user {
		m := resolver.Mapping(h.pid, h.at, h.address)
		if m == nil || !isObject(m.Path) {
			continue
		}
		mod, object := c.module(m, open)
		if mod == nil {
			continue
		}
		if byModule[mod] == nil {
			byModule[mod] = map[uint64]bool{}
			objects[mod] = object
		}
		byModule[mod][objectAddress(mod.segments, m, h.address)] = true
	}
	for mod, addresses := range byModule {
		var list []uint64
		for a := range addresses {
			list = append(list, a)
		}
		slices.Sort(list)
		frames := map[uint64][]Frame{}
		for _, a := range c.store.missing(mod, list) {
			frames[a] = objects[mod].Frames(a)
		}
		c.store.add(mod, frames)
	}
}

func (c *Collector) nameKernel(addresses map[uint64]bool) {
	if c.kernel == nil || len(addresses) == 0 {
		return
	}
	mod := c.store.moduleFor(kernelKey, c.kernel.BuildID, nil)
	frames := map[uint64][]Frame{}
	for a := range addresses {
		frames[a] = nil
		if name := c.kernel.Name(a); name != "" {
			frames[a] = []Frame{{Function: name}}
		}
	}
	c.store.add(mod, frames)
}

// module returns the module of a mapping and its object, nil if it cannot be read.
func (c *Collector) module(m *trace.Mapping, open Opener) (*module, *Object) {
	id := m.Path + "\x00" + m.BuildID
	object, known := c.objects[id]
	if !known {
		var err error
		if object, err = c.open(m, open); err != nil {
			c.failed[m.Path] = err
		}
		c.objects[id] = object
	}
	if object == nil {
		return nil, nil
	}
	key := firstOf(m.BuildID, object.Info.BuildID)
	if key == "" {
		sum := sha256.Sum256([]byte(fmt.Sprint(m.Path, object.Segments())))
		key = hex.EncodeToString(sum[:8])
	}
	if twin := c.objects[key]; twin != nil {
		object = twin
	}
	if m.Path == VDSOModule {
		key = vdsoKey
	}
	mod := c.store.moduleFor(key, firstOf(m.BuildID, object.Info.BuildID), object.Segments())
	c.store.associate(m.Path, m.Time, key)
	return mod, object
}

func firstOf(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func (c *Collector) open(m *trace.Mapping, open Opener) (*Object, error) {
	r, err := open(m)
	if err != nil {
		return nil, err
	}
	if r == nil {
		return nil, errors.New("not a file")
	}
	return OpenObject(r)
}

func stackOf(e trace.Event) (trace.Stack, bool) {
	switch e := e.(type) {
	case *trace.Syscall:
		return e.Stack, true
	case *trace.Switch:
		return e.Stack, true
	case *trace.Fault:
		return e.Stack, true
	case *trace.Sample:
		return e.Stack, true
	}
	return trace.Stack{}, false
}
