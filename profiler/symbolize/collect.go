package symbolize

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/initprof/initprof/profiler/trace"
)

// Options say where a Collector finds objects. Of the zero value only kernel
// addresses are named, if Kernel is set.
type Options struct {
	// Open opens the object of a mapping for reading: a file as the subject
	// sees it, through /proc/PID/root or /proc/PID/map_files. The closer may
	// be nil. It is called from several goroutines.
	Open func(path string, m *trace.Mapping) (io.ReaderAt, io.Closer, error)
	// Kernel names kernel addresses; see ReadKernel. Nil: they stay unnamed.
	Kernel *Kernel
	// VDSO is the image of the vDSO; see unwind.ReadVDSO.
	VDSO []byte
	// Symbols are the objects of --symbols: unstripped twins of stripped
	// subjects, accepted where SymbolsMatch says so.
	Symbols []*Object
	// DebugDir holds separate debug files; "" is /usr/lib/debug.
	DebugDir string
	// NoDebugFiles turns the search for separate debug files off.
	NoDebugFiles bool
	// Parallel is the number of objects and parts of objects that are worked
	// on at a time; 0 is GOMAXPROCS.
	Parallel int
}

// Address is one address to name beside those of the events' stacks.
type Address struct {
	PID    int
	Time   int64
	Value  uint64
	Kernel bool
	Return bool // a return address: looked up one byte before
}

// Summary is what came of naming one cold start.
type Summary struct {
	Addresses int // distinct ones: by module and address there
	Named     int
	Warnings  []string // what stayed unnamed and why, or which table was malformed
}

// Collector fills a store cold start by cold start. An object is opened and
// read only for addresses that the store does not hold yet.
type Collector struct {
	opts  Options
	store *Store

	mu     sync.Mutex
	vdso   *Object
	cached map[string]*cachedObject // by key of the module
	uses   int64
}

// cachedObject is an object that stays open for further cold starts.
type cachedObject struct {
	object  *Object
	closer  io.Closer
	users   int
	lastUse int64
}

// maxCached bounds the tables of objects that are kept for further cold starts.
const maxCached = 256 << 20

// NewCollector returns a collector with an empty store.
func NewCollector(opts Options) *Collector {
	if opts.Parallel <= 0 {
		opts.Parallel = runtime.GOMAXPROCS(0)
	}
	return &Collector{opts: opts, store: NewStore(), cached: map[string]*cachedObject{}}
}

// Store returns the store that the collector fills.
func (c *Collector) Store() *Store { return c.store }

// Collect names the addresses of one cold start in a store of its own.
func Collect(ctx context.Context, events []trace.Event, opts Options) (*Store, Summary, error) {
	c := NewCollector(opts)
	defer func() { _ = c.Close() }()
	summary, err := c.Collect(ctx, events)
	return c.store, summary, err
}

// Collect names all addresses in the stacks of one cold start's events, and
// the extra ones. What cannot be named is told in the summary; the only error
// is the context's.
func (c *Collector) Collect(ctx context.Context, events []trace.Event, extra ...Address) (Summary, error) {
	spaces := trace.NewSpaces(events)
	wanted := map[*trace.Mapping]map[uint64]struct{}{}
	kernel := map[uint64]struct{}{}
	note := func(pid int, at int64, address uint64, isKernel, isReturn bool) {
		if isReturn && address > 0 {
			address--
		}
		if isKernel {
			kernel[address] = struct{}{}
			return
		}
		m := spaces.Mapping(pid, at, address)
		if m == nil || !isObject(m.Path) {
			return
		}
		if wanted[m] == nil {
			wanted[m] = map[uint64]struct{}{}
		}
		wanted[m][address] = struct{}{}
	}
	for _, e := range events {
		h, stack := e.Head(), stackOf(e)
		for i, a := range stack.Kernel {
			note(h.PID, h.Time, a, true, i > 0)
		}
		_, called := e.(*trace.FunctionCall) // whose stack is the caller's
		for i, a := range stack.User {
			note(h.PID, h.Time, a, false, i > 0 || called)
		}
	}
	for _, a := range extra {
		note(a.PID, a.Time, a.Value, a.Kernel, a.Return)
	}

	var summary Summary
	c.nameKernel(kernel, &summary)
	// One mapping of an object stands for all of them.
	type fileID struct{ path, buildID string }
	groups := map[fileID][]*trace.Mapping{}
	for m := range wanted {
		id := fileID{m.Path, m.BuildID}
		groups[id] = append(groups[id], m)
	}
	var mu sync.Mutex
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(c.opts.Parallel)
	for _, mappings := range groups {
		g.Go(func() error {
			if err := ctx.Err(); err != nil {
				return err
			}
			slices.SortFunc(mappings, func(a, b *trace.Mapping) int { return int(min(max(a.Time-b.Time, -1), 1)) })
			n, named, warnings := c.nameObject(mappings, wanted)
			mu.Lock()
			defer mu.Unlock()
			summary.Addresses += n
			summary.Named += named
			summary.Warnings = append(summary.Warnings, warnings...)
			return nil
		})
	}
	err := g.Wait()
	slices.Sort(summary.Warnings)
	return summary, err
}

func stackOf(e trace.Event) trace.Stack {
	switch e := e.(type) {
	case *trace.Syscall:
		return e.Stack
	case *trace.Switch:
		return e.Stack
	case *trace.Fault:
		return e.Stack
	case *trace.Sample:
		return e.Stack
	case *trace.Goroutine:
		return e.Stack
	case *trace.FunctionCall:
		return e.Stack
	}
	return trace.Stack{}
}

func (c *Collector) nameKernel(addresses map[uint64]struct{}, summary *Summary) {
	if len(addresses) == 0 || c.opts.Kernel == nil {
		summary.Addresses += len(addresses)
		return
	}
	frames := make(map[uint64][]Frame, len(addresses))
	for a := range addresses {
		summary.Addresses++
		frames[a] = nil
		if name := c.opts.Kernel.Name(a); name != "" {
			frames[a] = []Frame{{Function: name}}
			summary.Named++
		}
	}
	c.store.add(c.store.moduleFor(kernelKey, c.opts.Kernel.BuildID, nil), frames)
}

// nameObject names the addresses in mappings of one file.
func (c *Collector) nameObject(mappings []*trace.Mapping, wanted map[*trace.Mapping]map[uint64]struct{}) (n, named int, warnings []string) {
	first := mappings[0]
	total := 0
	for _, m := range mappings {
		total += len(wanted[m])
	}
	fail := func(err error) (int, int, []string) {
		return total, 0, []string{fmt.Sprintf("%s: %d addresses stay unnamed: %v", first.Path, total, err)}
	}
	translate := func(segments []Segment) []uint64 {
		var list []uint64
		for _, m := range mappings {
			for a := range wanted[m] {
				list = append(list, objectAddress(segments, m, a))
			}
		}
		slices.Sort(list)
		return slices.Compact(list)
	}
	// What is in the store needs no object.
	c.store.mu.RLock()
	known := c.store.modules[first.BuildID]
	c.store.mu.RUnlock()
	if first.BuildID != "" && known != nil {
		addresses := translate(known.segments)
		if len(c.store.missing(known, addresses)) == 0 {
			c.store.associate(first.Path, first.Time, known.key)
			return len(addresses), c.countNamed(known, addresses), nil
		}
	}
	object, key, done, err := c.open(first)
	if err != nil {
		return fail(err)
	}
	defer done()
	module := c.store.moduleFor(key, object.Info.BuildID, object.segments)
	if key != vdsoKey {
		c.store.associate(first.Path, first.Time, key)
	}
	addresses := translate(object.segments)
	missing := c.store.missing(module, addresses)
	if len(missing) > 0 {
		c.store.add(module, c.frames(object, first, missing))
	}
	if err := object.Err(); err != nil {
		warnings = append(warnings, fmt.Sprintf("%s: %v", first.Path, err))
	}
	return len(addresses), c.countNamed(module, addresses), warnings
}

func (c *Collector) countNamed(m *module, addresses []uint64) (named int) {
	c.store.mu.RLock()
	defer c.store.mu.RUnlock()
	for _, a := range addresses {
		if len(m.frames[a]) > 0 {
			named++
		}
	}
	return named
}

// frames looks up sorted addresses, first in a twin given by --symbols or a
// separate debug file, in parallel parts.
func (c *Collector) frames(o *Object, m *trace.Mapping, addresses []uint64) map[uint64][]Frame {
	var twin *Object
	for _, s := range c.opts.Symbols {
		if s != o && SymbolsMatch(o, s) == nil {
			twin = s
			break
		}
	}
	if twin == nil {
		twin = c.debugFile(o, m)
	}
	const part = 2048
	found := make([][]Frame, len(addresses))
	var g errgroup.Group
	g.SetLimit(c.opts.Parallel)
	for at := 0; at < len(addresses); at += part {
		g.Go(func() error {
			cursor, twinCursor := newCursor(o), (*cursor)(nil)
			if twin != nil {
				twinCursor = newCursor(twin)
			}
			for i := at; i < min(at+part, len(addresses)); i++ {
				if twinCursor != nil {
					found[i] = twinCursor.frames(addresses[i])
				}
				if len(found[i]) == 0 {
					found[i] = cursor.frames(addresses[i])
				}
			}
			return nil
		})
	}
	_ = g.Wait()
	frames := make(map[uint64][]Frame, len(addresses))
	for i, a := range addresses {
		frames[a] = found[i]
	}
	return frames
}

// open opens a mapping's object and tells the key of its module.
func (c *Collector) open(m *trace.Mapping) (o *Object, key string, done func(), err error) {
	done = func() {}
	if m.Path == VDSOModule {
		if len(c.opts.VDSO) == 0 {
			return nil, "", done, errors.New("its image was not read")
		}
		o, err := c.openVDSO()
		return o, vdsoKey, done, err
	}
	if m.BuildID != "" {
		if o, done := c.fromCache(m.BuildID); o != nil {
			return o, m.BuildID, done, nil
		}
	}
	if c.opts.Open == nil {
		return nil, "", done, errors.New("no way to open files was given")
	}
	r, closer, err := c.opts.Open(m.Path, m)
	if err != nil {
		return nil, "", done, err
	}
	closeFile := func() {
		if closer != nil {
			_ = closer.Close()
		}
	}
	o, err = OpenObject(r)
	if err != nil {
		closeFile()
		return nil, "", done, err
	}
	id := o.Info.BuildID
	if m.BuildID != "" && m.BuildID != id && o.hasGNUBuildID() {
		closeFile()
		return nil, "", done, fmt.Errorf("the file has changed since it was mapped: build ID %s, was %s", id, m.BuildID)
	}
	if key = id; key == "" {
		key = c.fileKey(m.Path, r, o)
	}
	if other, done := c.fromCache(key); other != nil {
		closeFile()
		return other, key, done, nil
	}
	return o, key, c.toCache(key, o, closer), nil
}

// fromCache returns an object that an earlier cold start has read, and what to
// call when it is no longer used; nil if there is none.
func (c *Collector) fromCache(key string) (*Object, func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.cached[key]
	if e == nil {
		return nil, nil
	}
	e.users++
	c.uses++
	e.lastUse = c.uses
	return e.object, func() { c.release(e) }
}

// toCache keeps an object, and returns what to call when it is no longer used.
func (c *Collector) toCache(key string, o *Object, closer io.Closer) func() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.uses++
	e := &cachedObject{object: o, closer: closer, users: 1, lastUse: c.uses}
	if c.cached[key] != nil { // another path to the same object came first
		return func() { e.close() }
	}
	c.cached[key] = e
	return func() { c.release(e) }
}

// release gives an object back, and closes those used longest ago until the
// rest fits.
func (c *Collector) release(e *cachedObject) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e.users--
	for {
		held, oldest := int64(0), ""
		for key, e := range c.cached {
			held += e.object.held.Load()
			if e.users > 0 {
				continue // whoever uses it may be looking for its debug file
			}
			if debug := e.object.debug; debug != nil {
				held += debug.held.Load()
			}
			if oldest == "" || e.lastUse < c.cached[oldest].lastUse {
				oldest = key
			}
		}
		if held <= maxCached && len(c.cached) <= maxOpen || oldest == "" {
			return
		}
		c.cached[oldest].close()
		delete(c.cached, oldest)
	}
}

// maxOpen bounds the files that are kept open.
const maxOpen = 128

func (e *cachedObject) close() {
	if e.closer != nil {
		_ = e.closer.Close()
	}
	if e.object.debugCloser != nil {
		_ = e.object.debugCloser.Close()
	}
}

// Close closes the objects that were kept. The store stays usable.
func (c *Collector) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, e := range c.cached {
		if e.users == 0 {
			e.close()
			delete(c.cached, key)
		}
	}
	return nil
}

func (c *Collector) openVDSO() (*Object, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.vdso == nil {
		o, err := OpenObject(readerAt(c.opts.VDSO))
		if err != nil {
			return nil, err
		}
		c.vdso = o
	}
	return c.vdso, nil
}

// hasGNUBuildID tells a build ID of the file's own from one that was derived:
// only the former can contradict the kernel's.
func (o *Object) hasGNUBuildID() bool {
	gnu, _ := o.buildIDs()
	return gnu != ""
}

// fileKey identifies an object without a build ID by path, size and time of
// modification; where the reader is no file, by path and code.
func (c *Collector) fileKey(path string, r io.ReaderAt, o *Object) string {
	h := sha256.New()
	_, _ = io.WriteString(h, path)
	if f, ok := r.(interface{ Stat() (fs.FileInfo, error) }); ok {
		if info, err := f.Stat(); err == nil {
			fmt.Fprintf(h, "\x00%d\x00%d", info.Size(), info.ModTime().UnixNano())
			return "file-" + hex.EncodeToString(h.Sum(nil)[:16])
		}
	}
	_, sum, _ := o.text()
	h.Write(sum[:])
	return "file-" + hex.EncodeToString(h.Sum(nil)[:16])
}

// readerAt is bytes.Reader without its state.
type readerAt []byte

func (b readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
