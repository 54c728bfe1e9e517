package startup

import (
	"cmp"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Allocator is work of setting up or growing an allocator: one call of a
// function that does it, or all calls by which one function took memory from
// the kernel.
type Allocator struct {
	Span            // of a function; of system calls from the first to the last
	TimeNS   int64  // in the function, or in the system calls
	Name     string // "go", "glibc", "jemalloc", "mimalloc", "tcmalloc", "unknown"
	Function string
	Mapped   int64 // bytes that it mapped
	Faults   int   // taken in the function, or on what it mapped
}

// allocatorFunctions are the probed functions that set allocators up.
var allocatorFunctions = map[string]string{
	"ptmalloc_init": "glibc", "arena_get2": "glibc",
	"malloc_init_hard": "jemalloc", "_rjem_malloc_init_hard": "jemalloc",
	"mi_process_init": "mimalloc", "tcmalloc::ThreadCache::InitModule": "tcmalloc",
}

func (c *computation) allocators() {
	add := func(s Span, name, function string) {
		a := Allocator{Span: s, TimeNS: s.NS(), Name: name, Function: function}
		minor, major, _ := faults(s)
		a.Faults = minor + major
		for _, m := range c.memoryCalls() {
			if m.Thread == s.Thread && m.Begin >= s.Start && m.Begin < s.End {
				a.Mapped += m.mapped
			}
		}
		c.Allocators = append(c.Allocators, a)
	}
	for _, s := range c.Stages {
		if s.Function == mallocInit || s.Function == gcInit || s.Function == gcEnable {
			add(s.Span, "go", s.Function)
		}
	}
	c.collections()
	for function, name := range allocatorFunctions {
		for _, f := range c.calls(function) {
			add(c.span(f), name, function)
		}
	}
	prefix, jemalloc := c.jemalloc()
	c.jemallocPrefix = prefix
	if jemalloc != nil && !slices.ContainsFunc(c.Allocators, func(a Allocator) bool { return a.Name == "jemalloc" }) {
		add(*jemalloc, "jemalloc", "initialisation, from its look-ups of "+prefix+"malloc.conf on")
	}
	c.growth(jemalloc != nil)
	byStart(c.Allocators, func(a Allocator) int64 { return a.Start })
}

// collections adds Go's garbage collections, from the start of a cycle to its
// mark termination. Most of such a cycle runs beside the program.
func (c *computation) collections() {
	var started *trace.Mark
	for _, m := range c.Timeline.Marks {
		if !c.inside(m.Time) || m.Kind != trace.MarkEnter {
			continue
		}
		switch {
		case m.Name == gcStart && started == nil:
			started = m
		case m.Name == gcEnd && started != nil:
			s := Span{Start: started.Time, End: m.Time, Thread: c.Timeline.Thread(started.TID, started.Time)}
			c.Allocators = append(c.Allocators, Allocator{Span: s, TimeNS: s.NS(), Name: "go", Function: gcStart})
			started = nil
		}
	}
}

// memoryCall is a system call that changes a process's memory.
type memoryCall struct {
	*trace.Call
	address, size uint64
	mapped        int64 // bytes of anonymous memory that it added
}

const mapAnonymous = 0x20 // MAP_ANONYMOUS, uapi/asm-generic/mman-common.h

// memoryCalls lists the calls that get anonymous memory from the kernel or say
// how it is to be used.
func (c *computation) memoryCalls() (calls []memoryCall) {
	breaks := map[int]uint64{} // by process
	for _, call := range c.Timeline.Calls {
		if !c.inside(call.Begin) || !call.Returned() || call.Failed() {
			continue
		}
		m := memoryCall{Call: call, address: call.Args[0], size: call.Args[1]}
		switch c.Timeline.SyscallName(call.Syscall) {
		case "mmap":
			if call.Args[3]&mapAnonymous == 0 {
				continue
			}
			m.address, m.mapped = uint64(call.Return), int64(call.Args[1])
		case "brk":
			now := uint64(call.Return)
			if before := breaks[call.PID]; before != 0 && now > before {
				m.address, m.size, m.mapped = before, now-before, int64(now-before)
			}
			breaks[call.PID] = now
		case "mremap":
			m.address, m.size = uint64(call.Return), call.Args[2]
			m.mapped = max(0, int64(call.Args[2])-int64(call.Args[1]))
		case "munmap", "madvise":
		default:
			continue
		}
		calls = append(calls, m)
	}
	return calls
}

// growth groups the calls that no probed function accounts for by the function
// that made them, and gives each group the faults on what it mapped.
func (c *computation) growth(jemalloc bool) {
	type key struct{ name, function string }
	groups := map[key]*Allocator{}
	type owned struct {
		memoryCall
		group *Allocator
	}
	var owners []owned
	for _, m := range c.memoryCalls() {
		name, function := c.allocatorOf(m.Call, jemalloc)
		if name == "" {
			continue
		}
		k := key{name, function}
		g := groups[k]
		if g == nil {
			g = &Allocator{Name: name, Function: function, Span: Span{Start: m.Begin, Thread: m.Thread}}
			groups[k] = g
		}
		g.End = min(m.Until, c.Phases.End)
		g.TimeNS += g.End - m.Begin
		g.Mapped += m.mapped
		if m.mapped > 0 {
			owners = append(owners, owned{m, g})
		}
	}
	for _, f := range c.Timeline.Faults {
		if !c.inside(f.Begin) {
			continue
		}
		for _, o := range slices.Backward(owners) {
			if o.PID == f.PID && o.Until <= f.Begin && f.Address-o.address < o.size {
				o.group.Faults++
				break
			}
		}
	}
	for _, g := range groups {
		c.Allocators = append(c.Allocators, *g)
	}
	slices.SortFunc(c.Allocators, func(x, y Allocator) int {
		return cmp.Or(cmp.Compare(x.Start, y.Start), cmp.Compare(x.Name, y.Name), cmp.Compare(x.Function, y.Function))
	})
}

// plumbing are functions between an allocator and the kernel.
var plumbing = regexp.MustCompile(`^(runtime\.(sysMmap|mmap|sysAlloc|sysAllocOS|sysReserve|sysReserveOS|sysReserveAligned|sysReserveAlignedSbrk|sysMap|sysMapOS|sysUsed|sysUsedOS|sysHugePage|sysHugePageOS|sysNoHugePage|sysNoHugePageOS|sysFault|sysFree|sysFreeOS|sysUnused|sysUnusedOS|madvise|munmap)(\.|$)|_*(GI_+|libc_)?(mmap|mmap64|munmap|madvise|brk|sbrk|mremap|syscall)(64)?$)`)

// allocatorOf tells by a call's stack which allocator made it and in which
// function; no name if it was none: the loader, a thread's stack.
func (c *computation) allocatorOf(call *trace.Call, jemalloc bool) (name, function string) {
	for n, address := range call.Stack.User {
		l := c.Resolver.Resolve(call.PID, call.Begin, address, false, n > 0)
		base, f := path.Base(l.Module), l.Function()
		if n == 0 && strings.HasPrefix(base, "ld-") && !strings.HasPrefix(base, "ld-musl") {
			return "", ""
		}
		if plumbing.MatchString(f) || n == 0 && f == "" && isLibc(l.Module) {
			if n > 0 || !isLibc(l.Module) {
				continue
			}
			// The C library's wrappers have no frame: who called one is at the top of
			// the stack, and the next frame may be anybody's further out.
			l = c.Resolver.Resolve(call.PID, call.Begin, call.Stack.Caller, false, true)
			if base, f = path.Base(l.Module), l.Function(); l.Module == "" {
				continue
			}
			if isLibc(l.Module) && c.Timeline.SyscallName(call.Syscall) == "brk" {
				// By sbrk, which has a frame: who called that is not known.
				return c.breaker(), ""
			}
		}
		if name, function := c.allocatorNamed(call, l.Module, base, f, jemalloc); name != "unknown" || n > 0 || f != "" {
			return name, function
		}
	}
	if len(call.Stack.User) > 0 {
		return "glibc", ""
	}
	return "unknown", ""
}

// breaker is whose allocator moves the program's break: glibc's, unless a
// library takes its place.
func (c *computation) breaker() string {
	for object := range c.Facts {
		for _, name := range []string{"tcmalloc", "jemalloc", "mimalloc"} {
			if strings.Contains(path.Base(object), "lib"+name) {
				return name
			}
		}
	}
	return "glibc"
}

func (c *computation) allocatorNamed(call *trace.Call, module, base, f string, jemalloc bool) (name, function string) {
	switch {
	case strings.HasPrefix(f, "runtime."):
		return "go", f
	case strings.Contains(f, "jemalloc") || strings.HasPrefix(f, "je_") || strings.Contains(base, "jemalloc"),
		c.jemallocPrefix != "" && strings.HasPrefix(f, c.jemallocPrefix):
		return "jemalloc", f
	case strings.HasPrefix(f, "mi_") || strings.HasPrefix(f, "_mi_") || strings.Contains(base, "mimalloc"):
		return "mimalloc", f
	case strings.HasPrefix(f, "tcmalloc") || strings.Contains(base, "tcmalloc"):
		return "tcmalloc", f
	case strings.Contains(f, "pthread_create") || strings.Contains(f, "allocate_stack"):
		return "", ""
	case isLibc(module):
		return "glibc", f
	case f == "" && jemalloc && c.isProgram(call, module):
		return "jemalloc", ""
	}
	return "unknown", f
}

// isProgram reports whether a module is the file that the process executes.
func (c *computation) isProgram(call *trace.Call, module string) bool {
	execs := call.Thread.Process.Execs
	if len(execs) == 0 {
		return false
	}
	m := c.Resolver.Mapping(call.PID, call.Begin, execs[len(execs)-1].Entry)
	return m != nil && m.Path == module
}

// jemallocConf matches the link that jemalloc reads its configuration from:
// with the prefix that it was built with (malloc_conf_init in jemalloc.c).
var jemallocConf = regexp.MustCompile(`^/etc/(.*)malloc\.conf$`)

// jemalloc recognises the initialisation of a jemalloc, also a stripped one, by
// what it looks up: /etc/PREFIXmalloc.conf, then the overcommit mode and the
// state of transparent huge pages. The span ends with the last call in a row
// that such an initialisation makes.
func (c *computation) jemalloc() (prefix string, span *Span) {
	belongs := func(call *trace.Call) bool {
		switch c.Timeline.SyscallName(call.Syscall) {
		case "mmap", "munmap", "madvise", "brk", "sched_getaffinity", "sysinfo", "getrandom":
			return true
		case "open", "openat", "read", "close", "readlink", "readlinkat":
			name := call.Name
			if name == "" && call.File != nil {
				name = call.File.Path
			}
			return jemallocConf.MatchString(name) || name == "/proc/sys/vm/overcommit_memory" ||
				strings.HasPrefix(name, "/sys/kernel/mm/transparent_hugepage/") || strings.HasPrefix(name, "/sys/devices/system/cpu")
		}
		return false
	}
	for _, call := range c.Timeline.Calls {
		if !c.inside(call.Begin) {
			continue
		}
		if span == nil {
			if found := jemallocConf.FindStringSubmatch(call.Name); found != nil {
				prefix = found[1]
				span = &Span{Start: call.Begin, End: call.Until, Thread: call.Thread}
			}
			continue
		}
		if call.Thread != span.Thread {
			continue
		}
		if !belongs(call) {
			break
		}
		span.End = min(call.Until, c.Phases.End)
	}
	return prefix, span
}
