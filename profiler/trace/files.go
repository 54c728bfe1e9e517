package trace

import (
	"cmp"
	"path"
	"slices"
)

// DescriptorKind tells what a file descriptor leads to.
type DescriptorKind uint8

// The kinds of descriptors, as far as system calls tell them apart.
const (
	DescriptorUnknown DescriptorKind = iota // inherited, or made unseen: a pipe, a passed one
	DescriptorFile                          // opened by a path
	DescriptorSocket
	DescriptorOther // epoll, eventfd, timerfd, memfd, …
)

// Descriptor is an open file description: what open, socket or accept made,
// shared by all descriptors that were duplicated or inherited from it.
type Descriptor struct {
	Kind   DescriptorKind
	Path   string // of a file, as far as it can be told absolute
	FD     int    // under which it was first seen
	PID    int    // by which it was first seen
	Opened int64  // 0: before it was first seen
	Closed int64  // when its last descriptor was closed; 0: still open at the stop

	Near, Far Endpoint // of a socket that was connected or accepted; zero: not known

	references int
}

// Endpoint is one end of a connection: address << 16 | port, of the address the
// last four bytes as they are sent, which an IPv4 address mapped to IPv6 shares.
type Endpoint uint64

// FileUse is what a path cost.
type FileUse struct {
	Path    string
	Opens   int   // successful ones
	Failed  int   // calls that named the path and failed
	Read    int64 // bytes
	Written int64 // bytes
	NS      int64 // in calls that named it or worked on a descriptor of it, waiting included
}

// Files sums up the calls on files that began within [from, to), clipped to
// it, most time first. Programs that were executed are not among them.
func (tl *Timeline) Files(from, to int64) []FileUse {
	table := newCallTable(tl.Arch)
	byPath := map[string]*FileUse{}
	for _, c := range tl.Calls {
		if c.Begin < from || c.Begin >= to || table.is(c.Number, "execve") || table.is(c.Number, "execveat") {
			continue
		}
		name := c.Name
		if name == "" && c.File != nil {
			name = c.File.Path
		}
		if name == "" {
			continue
		}
		f := byPath[name]
		if f == nil {
			f = &FileUse{Path: name}
			byPath[name] = f
		}
		f.NS += min(c.Until, to) - c.Begin
		does := table.of(c.Number)
		switch {
		case !c.Returned():
		case c.Failed():
			f.Failed++
		case does.effect == effectOpen:
			f.Opens++
		case does.reads:
			f.Read += c.Return
		case does.writes:
			f.Written += c.Return
		}
	}
	files := make([]FileUse, 0, len(byPath))
	for _, f := range byPath {
		files = append(files, *f)
	}
	slices.SortFunc(files, func(x, y FileUse) int {
		return cmp.Or(cmp.Compare(y.NS, x.NS), cmp.Compare(x.Path, y.Path))
	})
	return files
}

// Reads reports whether the call's result counts bytes that came in through
// its descriptor.
func (tl *Timeline) Reads(c *Call) bool { return semanticsOf[tl.SyscallName(c.Syscall)].reads }

// Writes reports whether the call's result counts bytes that went out through
// its descriptor.
func (tl *Timeline) Writes(c *Call) bool { return semanticsOf[tl.SyscallName(c.Syscall)].writes }

// step is one change of the tables of files or mappings.
type step struct {
	at      int64
	process *Process

	child   *Process // fork
	exec    *Exec
	mapping *Mapping
	call    *Call
	exit    bool // of call
}

// tables are a process's, as they are while the steps are walked.
type tables struct {
	fds map[int]*slot
	dir string // working directory, empty: unknown
	brk uint64 // start of the heap

	execs bool // an execve that succeeds is under way
}

// slot is one file descriptor.
type slot struct {
	description *Descriptor
	cloexec     bool
}

// walker follows the tables of all processes through time.
type walker struct {
	b      *builder
	tables map[*Process]*tables
}

// walkTables attributes calls to files and learns the address spaces.
func (b *builder) walkTables() {
	for _, c := range b.tl.Calls {
		b.steps = append(b.steps, step{at: c.Begin, process: c.Thread.Process, call: c})
		if c.Returned() {
			b.steps = append(b.steps, step{at: c.Until, process: c.Thread.Process, call: c, exit: true})
		}
	}
	slices.SortStableFunc(b.steps, func(x, y step) int { return cmp.Compare(x.at, y.at) })
	w := &walker{b: b, tables: map[*Process]*tables{}}
	for _, s := range b.steps {
		t := w.of(s.process)
		switch {
		case s.child != nil:
			w.tables[s.child] = t.fork()
			s.child.regions = slices.Clone(s.process.regions)
		case s.exec != nil:
			for fd, open := range t.fds {
				if open.cloexec {
					t.close(fd, s.at)
				}
			}
			if !t.execs {
				s.process.regions = append(s.process.regions, regionChange{at: s.at, reset: true})
			}
			t.brk, t.execs = 0, false
		case s.mapping != nil:
			s.process.mapped(s.mapping)
		case s.exit:
			w.leave(t, s)
		default:
			w.enter(t, s)
		}
	}
	for _, f := range b.tl.Faults {
		f.Region = f.Thread.Process.RegionAt(f.Address, f.Begin)
	}
}

func (w *walker) of(p *Process) *tables {
	t := w.tables[p]
	if t == nil {
		t = &tables{fds: map[int]*slot{}}
		w.tables[p] = t
	}
	return t
}

// fork copies the table; the descriptions are shared.
func (t *tables) fork() *tables {
	child := &tables{fds: make(map[int]*slot, len(t.fds)), dir: t.dir, brk: t.brk}
	for fd, open := range t.fds {
		open.description.references++
		child.fds[fd] = &slot{open.description, open.cloexec}
	}
	return child
}

func (t *tables) close(fd int, at int64) {
	open := t.fds[fd]
	if open == nil {
		return
	}
	delete(t.fds, fd)
	open.description.references--
	if open.description.references == 0 {
		open.description.Closed = at
	}
}

func (t *tables) set(fd int, d *Descriptor, cloexec bool, at int64) {
	t.close(fd, at)
	d.references++
	d.Closed = 0
	t.fds[fd] = &slot{d, cloexec}
}

// describe returns what a descriptor leads to; one whose origin was not seen
// is unknown, but the same until it is closed.
func (t *tables) describe(pid, fd int) *Descriptor {
	open := t.fds[fd]
	if open == nil {
		d := &Descriptor{FD: fd, PID: pid, references: 1}
		open = &slot{description: d}
		t.fds[fd] = open
	}
	return open.description
}

// enter handles what takes effect at a call's begin: which file it works on,
// and close, whose descriptor another thread can get before it returns.
func (w *walker) enter(t *tables, s step) {
	c := s.call
	if (w.b.calls.is(c.Number, "execve") || w.b.calls.is(c.Number, "execveat")) && c.Returned() && !c.Failed() {
		// The new program is mapped before the exec event, the old one is of
		// no interest any more.
		s.process.regions = append(s.process.regions, regionChange{at: s.at, reset: true})
		t.execs = true
	}
	does := w.b.calls.of(c.Number)
	anonymous := w.b.calls.is(c.Number, "mmap") && c.Args[3]&mapAnonymous != 0
	if does.fd >= 0 && !anonymous {
		if fd := int(int32(c.Args[does.fd])); fd >= 0 && (t.fds[fd] != nil || !c.Failed()) {
			c.File = t.describe(s.process.PID, fd)
		}
	}
	if c.Path != "" {
		c.Name = t.resolve(c, does)
	} else if does.dirfd >= 0 && does.effect == effectNone {
		// AT_EMPTY_PATH: the call is about the descriptor itself, as in glibc's fstat.
		if fd := int(int32(c.Args[does.dirfd])); fd >= 0 {
			c.File = t.describe(s.process.PID, fd)
		}
	}
	switch does.effect {
	case effectClose:
		t.close(int(int32(c.Args[0])), s.at)
	case effectCloseRange:
		first, last := c.Args[0]&0xffffffff, c.Args[1]&0xffffffff
		for fd, open := range t.fds {
			if n := uint64(fd); first <= n && n <= last {
				if c.Args[2]&closeRangeCloexec != 0 {
					open.cloexec = true
				} else {
					t.close(fd, s.at)
				}
			}
		}
	}
}

// resolve makes the path given to a call absolute where that can be told.
func (t *tables) resolve(c *Call, does semantics) string {
	if path.IsAbs(c.Path) {
		return c.Path
	}
	dir := t.dir
	if does.dirfd >= 0 {
		if fd := int(int32(c.Args[does.dirfd])); fd != atWorkingDir {
			dir = ""
			if open := t.fds[fd]; open != nil {
				dir = open.description.Path
			}
		}
	}
	if dir == "" {
		return c.Path
	}
	return path.Join(dir, c.Path)
}

// leave handles what takes effect when a call has returned.
func (w *walker) leave(t *tables, s step) {
	c := s.call
	if c.File != nil && w.b.calls.is(c.Number, "connect") { // which may still be under way
		c.File.Near, c.File.Far = Endpoint(c.Args[4]), Endpoint(c.Args[5])
	}
	if c.Failed() {
		return
	}
	does := w.b.calls.of(c.Number)
	result := int(c.Return)
	pid := s.process.PID
	switch does.effect {
	case effectOpen:
		c.File = &Descriptor{Kind: DescriptorFile, Path: c.Name, FD: result, PID: pid, Opened: s.at}
		t.set(result, c.File, does.closes(c), s.at)
	case effectNew:
		c.File = &Descriptor{Kind: does.kind, FD: result, PID: pid, Opened: s.at}
		if does.accepts {
			c.File.Near, c.File.Far = Endpoint(c.Args[4]), Endpoint(c.Args[5])
		}
		t.set(result, c.File, does.closes(c), s.at)
	case effectDup, effectDup2:
		if c.File != nil && int(int32(c.Args[0])) != result {
			t.set(result, c.File, does.closes(c), s.at)
		}
	case effectFcntl:
		open := t.fds[int(int32(c.Args[0]))]
		switch command := c.Args[1]; {
		case c.File == nil:
		case command == fcntlDup || command == fcntlDupCloexec:
			t.set(result, c.File, command == fcntlDupCloexec, s.at)
		case command == fcntlSetFlags && open != nil:
			open.cloexec = c.Args[2]&closeOnExec != 0
		}
	case effectChdir:
		t.dir = c.Name
	case effectFchdir:
		t.dir = ""
		if c.File != nil {
			t.dir = c.File.Path
		}
	}
	w.remap(t, s)
}

// closes reports whether the descriptor that the call made is closed by exec.
func (s semantics) closes(c *Call) bool {
	switch {
	case s.cloexec == -2:
		return true
	case s.cloexec < 0:
		return false
	}
	return c.Args[s.cloexec]&openCloexec != 0
}

// Opens reports whether the call makes a descriptor of a path.
func (tl *Timeline) Opens(c *Call) bool {
	return semanticsOf[tl.SyscallName(c.Syscall)].effect == effectOpen
}
