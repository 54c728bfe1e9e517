package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is what a holder execs.
type Command struct {
	Path  string   // the file, as execve takes it; no search in PATH
	Args  []string // argv, the program's name first; nil: the path alone
	Env   []string // the whole environment, KEY=VALUE; nil: an empty one
	Dir   string   // "": initprof's own
	Nonce uint64   // the second argument of the announcing getppid

	// Line gets each line of output, without its end, in the order in which
	// they were read; lines of more than 64 KiB come in pieces. It must neither
	// block, or the subject will, nor keep the slice. May be nil.
	Line func(line []byte)
	// Echo gets the output as it is. It must not block. May be nil.
	Echo io.Writer
}

// Exit tells how a process ended.
type Exit struct {
	Status int            // of exit, if Signal is 0
	Signal syscall.Signal // that ended it, or 0
	Err    error          // *NotExecutableError if the exec failed, ErrDismissed

	OOMKilled bool  // the signal came from the box's memory limit
	At        int64 // when initprof knew: CLOCK_MONOTONIC ns
	// Usage counts from the hold on: faults, time and peak memory are the
	// subject's own, with those of the children that it waited for.
	Usage syscall.Rusage
}

// ErrDismissed is the Err of a process that ended before Release.
var ErrDismissed = errors.New("ended before it was released")

// Process is one process of a box.
type Process struct {
	box     *Box
	pid     int
	path    string
	release *os.File
	status  *os.File
	output  *output
	guard   *guard // of a plain box
	before  counted

	released atomic.Bool
	refused  error         // by execve
	executed chan struct{} // closed when execve succeeded or failed
	reaped   chan struct{}
	done     chan struct{}
	exit     Exit

	mu    sync.Mutex
	pidfd int // -1: forgotten
}

// counted is what wait4 and the cgroup count that is not the subject's.
type counted struct {
	minor, major int64
	oomKills     uint64
}

// Hold starts a process that waits before its exec. When Hold returns, it is in
// the box, has dropped to the user, and has announced itself with the nonce.
func (b *Box) Hold(c Command) (*Process, error) {
	if hasZero(c.Args, c.Env, []string{c.Path, c.Dir}) {
		return nil, errors.New("neither arguments nor environment may hold a zero byte")
	}
	path, err := filepath.Abs(c.Path)
	if err != nil || c.Path == "" {
		return nil, errors.Join(fmt.Errorf("no program %q", c.Path), err)
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	p := &Process{
		box: b, path: path, pidfd: -1,
		executed: make(chan struct{}), reaped: make(chan struct{}), done: make(chan struct{}),
	}
	if err := p.hold(&c, dir); err != nil {
		return nil, fmt.Errorf("hold %s: %w", c.Path, err)
	}
	b.held = append(b.held, p)
	return p, nil
}

func (p *Process) hold(c *Command, dir string) error {
	var theirs, ours []*os.File
	closeAll := func(files []*os.File) {
		for _, f := range files {
			_ = f.Close() // the ends of pipes: nothing is lost with them
		}
	}
	defer func() { closeAll(theirs) }()
	for _, writes := range []bool{true, false, false} { // release, status, output
		r, w, err := os.Pipe()
		if err != nil {
			closeAll(ours)
			return err
		}
		if writes {
			r, w = w, r
		}
		ours, theirs = append(ours, r), append(theirs, w)
	}
	p.release, p.status = ours[0], ours[1]
	err := p.start(c, dir, theirs)
	closeAll(theirs)
	theirs = nil
	if err == nil {
		err = p.await()
	}
	if err == nil && p.box.dog == nil {
		if p.guard, err = startGuard(p.pid, p.box.null); err != nil {
			p.abandon()
		}
	}
	if err != nil {
		closeAll(ours)
		return err
	}
	p.before = p.counts()
	p.output = collect(ours[2], c.Line, c.Echo)
	go p.watchExec()
	go p.wait()
	return nil
}

// start starts the first stage. theirs are the read end of release, and the
// write ends of status and output.
func (p *Process) start(c *Command, dir string, theirs []*os.File) error {
	b := p.box
	var in inherited
	for _, f := range []*os.File{b.null, theirs[2], theirs[2], theirs[0], theirs[1]} {
		in.add(f)
	}
	h := &holding{
		path: p.path, args: c.Args, env: c.Env, dir: dir, nonce: c.Nonce, user: b.opts.User, cpus: b.settings.CPUs,
		rlimits: changedRlimits(), unignore: ignoredSignals(), plain: b.dog == nil,
	}
	if h.args == nil {
		h.args = []string{c.Path}
	}
	if b.group != nil {
		for _, f := range b.group.joins {
			h.joins = append(h.joins, in.add(f))
		}
		if b.group.dir2 != nil {
			h.cgroup2, h.procs2 = in.add(b.group.dir2), in.add(b.group.procs2)
		}
	}
	if b.dog != nil {
		// A copy: the os.File closes it.
		fd, err := unix.FcntlInt(uintptr(b.dog.pidfd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		dog := os.NewFile(uintptr(fd), "watchdog")
		defer func() { _ = dog.Close() }()
		h.box, h.root, h.spaces = in.add(dog), in.add(b.dog.root), unix.CLONE_NEWPID|unix.CLONE_NEWNS
		if b.settings.Isolated {
			h.spaces |= unix.CLONE_NEWNET
		}
	}
	image, err := holderProgram(h).image()
	if err != nil {
		return err
	}
	spawn := func() error {
		first, err := startImage(image, &syscall.ProcAttr{Dir: "/", Files: in.fds()})
		if err == nil {
			go func() { _, _, _ = wait4(first) }()
		}
		return err
	}
	if b.spawner != nil {
		return b.spawner.do(spawn)
	}
	return spawn()
}

// await reads the messages of both stages: the PID, and that the second is
// ready. On failure the second stage is gone.
func (p *Process) await() error {
	if err := p.status.SetReadDeadline(time.Now().Add(setupTimeout)); err != nil {
		return err
	}
	var failure error
	for ready := false; p.pid == 0 || !ready && failure == nil; {
		m, err := readMessage(p.status)
		switch {
		case err != nil:
			p.abandon()
			if failure != nil { // in the first stage: there is no second
				return failure
			}
			return fmt.Errorf("the holder ended: %w", err)
		case m.tag == tagClone && m.result > 0:
			p.pid = int(m.result)
		case m.tag == tagReady:
			ready = true
		default:
			failure = m.error()
		}
	}
	if failure == nil {
		failure = p.status.SetReadDeadline(time.Time{})
	}
	if failure == nil {
		p.pidfd, failure = unix.PidfdOpen(p.pid, 0)
	}
	if failure != nil {
		p.abandon()
	}
	return failure
}

// abandon ends a second stage that nobody waits for yet.
func (p *Process) abandon() {
	if p.pid != 0 {
		_ = unix.Kill(p.pid, unix.SIGKILL)
		_, _, _ = wait4(p.pid)
	}
	p.forget()
}

// watchExec learns from the status pipe how execve ended: it closes on success.
func (p *Process) watchExec() {
	defer close(p.executed)
	m, err := readMessage(p.status)
	if err != nil {
		return
	}
	if op, errno, ok := m.failed(); ok && op == opExec {
		p.refused = &NotExecutableError{Path: p.path, Err: errno}
	} else {
		p.refused = m.error()
	}
}

// wait reaps the process and composes its Exit.
func (p *Process) wait() {
	defer close(p.done)
	status, usage, err := wait4(p.pid)
	at := monotonic()
	close(p.reaped)
	<-p.executed
	_ = p.status.Close()
	_ = p.release.Close()
	p.guard.dismiss()
	e := Exit{At: at, Err: errors.Join(p.refused, err)}
	if status.Signaled() {
		e.Signal = status.Signal()
	} else {
		e.Status = status.ExitStatus()
	}
	if p.refused != nil {
		e.Err = p.refused
	} else if e.Err == nil && !p.released.Load() {
		e.Err = ErrDismissed
	}
	if e.Signal == unix.SIGKILL && p.box.group != nil {
		e.OOMKilled = p.box.group.counts().oomKills > p.before.oomKills
	}
	e.Usage = syscall.Rusage{
		Utime: syscall.Timeval(usage.Utime), Stime: syscall.Timeval(usage.Stime), Maxrss: usage.Maxrss,
		Minflt: usage.Minflt - p.before.minor, Majflt: usage.Majflt - p.before.major,
		Inblock: usage.Inblock, Oublock: usage.Oublock, Nvcsw: usage.Nvcsw, Nivcsw: usage.Nivcsw,
	}
	p.exit = e
	p.output.settle()
}

// counts reads what the holder itself has used.
func (p *Process) counts() (c counted) {
	if p.box.group != nil {
		c.oomKills = p.box.group.counts().oomKills
	}
	// proc_pid_stat(5): minflt is field 10, majflt field 12. The name, field
	// 2, may hold anything.
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/stat")
	if err != nil {
		return c
	}
	text := string(stat)
	if fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:]); len(fields) > 9 {
		c.minor, _ = strconv.ParseInt(fields[7], 10, 64)
		c.major, _ = strconv.ParseInt(fields[9], 10, 64)
	}
	return c
}

// Release lets the process exec. It returns the time before it, on
// CLOCK_MONOTONIC in nanoseconds.
func (p *Process) Release() (int64, error) {
	if !p.released.CompareAndSwap(false, true) {
		return 0, fmt.Errorf("release %s: it was released already", p.path)
	}
	at := monotonic()
	if _, err := p.release.Write([]byte{1}); err != nil {
		p.released.Store(false)
		return 0, fmt.Errorf("release %s: %w", p.path, err)
	}
	return at, nil
}

// monotonic reads CLOCK_MONOTONIC in nanoseconds.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t) // cannot fail with this clock
	return t.Nano()
}

// PID is the process's ID as initprof sees it.
func (p *Process) PID() int { return p.pid }

// Root is the directory through which the process's files can be opened while
// it lives.
func (p *Process) Root() string { return "/proc/" + strconv.Itoa(p.pid) + "/root" }

// Executed is closed when the kernel has executed or refused the program, or
// the process has ended before.
func (p *Process) Executed() <-chan struct{} { return p.executed }

// Done is closed when the process has ended and its last output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for Done. Descendants that keep the output open do not delay it.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// LastOutput is the end of what the process and its descendants printed, at most 64 KiB.
func (p *Process) LastOutput() []byte { return p.output.last() }

// Signal sends a signal to the process alone, by its pidfd. Once the process
// has ended it returns os.ErrProcessDone.
func (p *Process) Signal(s os.Signal) error {
	number, ok := s.(syscall.Signal)
	if !ok {
		return fmt.Errorf("no signal of this system: %v", s)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return os.ErrProcessDone
	}
	err := unix.PidfdSendSignal(p.pidfd, number, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

// forget closes the pidfd, after the end of the process.
func (p *Process) forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
}
