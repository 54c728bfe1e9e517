package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Command is a program to be held in front of its exec.
type Command struct {
	Path string   // looked up in the PATH of initprof when it has no slash
	Args []string // argv, the program's name first; nil: the path alone
	Env  []string // the whole environment, as KEY=VALUE; nil: empty
	Dir  string   // working directory; "": initprof's own

	// What the process and its children write. A writer must not block: the
	// pipe would fill up and stop the subject. When it fails, it is not called
	// again. nil: kept in LastOutput only.
	Stdout, Stderr io.Writer

	Nonce uint64 // the second argument of the announcing getppid, see HolderMagic
}

// Usage is what a process used between its hold and its end, with those of its
// children that it waited for.
type Usage struct {
	User, System             time.Duration
	MaxRSSBytes              int64 // the peak of the largest single process
	MinorFaults, MajorFaults int64
	Voluntary, Involuntary   int64 // context switches
}

// Exit tells how a process ended.
type Exit struct {
	Status    int            // exit status; -1 when a signal ended it or it was never executed
	Signal    syscall.Signal // what ended it; 0: it exited
	Err       error          // a *NotExecutableError, ErrDismissed, or nil: it was executed
	OOMKilled bool           // the box's memory limit was the reason of the SIGKILL
	At        int64          // CLOCK_MONOTONIC ns at which initprof knew
	Usage     Usage
}

// ErrDismissed is the Err of an Exit whose process ended before Release.
var ErrDismissed = errors.New("ended before it was released")

// NotExecutableError tells that the kernel refused to execute the program.
type NotExecutableError struct {
	Path  string
	Errno syscall.Errno
	Hint  string // what is wrong with the file, where that can be seen
}

func (e *NotExecutableError) Error() string {
	s := "cannot execute " + e.Path + ": " + e.Errno.Error()
	if e.Hint != "" {
		s += ": " + e.Hint
	}
	return s
}

// Unwrap gives the error number of execve(2).
func (e *NotExecutableError) Unwrap() error { return e.Errno }

// Process is a held or running program of a Box.
type Process struct {
	box     *Box
	pid     int
	pidfd   int
	path    string
	release *os.File
	status  *os.File
	output  *output

	released atomic.Bool
	mu       sync.Mutex // pidfd
	execErr  error
	executed chan struct{} // closed when execve succeeded or failed
	reaped   chan struct{}
	done     chan struct{}
	before   heldCounts
	exit     Exit
}

// heldCounts are the holder's own part of what wait4 reports.
type heldCounts struct {
	minor, major int64
	oomKills     uint64
}

// Hold starts a process that waits in front of the exec of c. When Hold
// returns, the process is in the box, has dropped to the user, and has announced
// itself. The context bounds only the start.
func (b *Box) Hold(ctx context.Context, c Command) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path, dir, err := c.resolve()
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return nil, ErrClosed
	}
	p, err := b.hold(ctx, &c, path, dir)
	if err != nil {
		return nil, fmt.Errorf("holding %s: %w", c.Path, err)
	}
	b.processes = append(b.processes, p)
	return p, nil
}

// resolve gives the absolute path of the program and the working directory.
func (c *Command) resolve() (path, dir string, err error) {
	if slices.ContainsFunc(append(slices.Concat(c.Args, c.Env), c.Path, c.Dir), func(s string) bool {
		return strings.ContainsRune(s, 0)
	}) {
		return "", "", errors.New("path, arguments and environment may not hold a zero byte")
	}
	path = c.Path
	if path == "" {
		return "", "", errors.New("no program named")
	}
	if !strings.Contains(path, "/") {
		if path, err = exec.LookPath(path); err != nil && !errors.Is(err, exec.ErrDot) {
			return "", "", err
		}
	}
	if path, err = filepath.Abs(path); err != nil {
		return "", "", err
	}
	if dir, err = filepath.Abs(c.Dir); err != nil {
		return "", "", err
	}
	return path, dir, nil
}

// inherited collects the descriptors of a holder. It keeps the files alive.
type inherited struct {
	files []*os.File
}

func (i *inherited) add(f *os.File) int {
	i.files = append(i.files, f)
	return len(i.files) - 1
}

func (i *inherited) fds() []uintptr {
	fds := make([]uintptr, len(i.files))
	for k, f := range i.files {
		fds[k] = f.Fd()
	}
	return fds
}

func (b *Box) hold(ctx context.Context, c *Command, path, dir string) (p *Process, err error) {
	p = &Process{
		box: b, pidfd: -1, path: path,
		executed: make(chan struct{}), reaped: make(chan struct{}), done: make(chan struct{}),
	}
	var theirs []*os.File
	defer func() {
		for _, f := range theirs {
			f.Close()
		}
		if err != nil {
			for _, f := range []*os.File{p.release, p.status} {
				if f != nil {
					f.Close()
				}
			}
			p.output.close()
		}
	}()
	pipe := func() (r, w *os.File) {
		if err == nil {
			r, w, err = os.Pipe()
		}
		return r, w
	}
	held, release := pipe()
	status, statusWrite := pipe()
	stdout, stdoutWrite := pipe()
	stderr, stderrWrite := pipe()
	p.release, p.status = release, status
	for _, f := range []*os.File{held, statusWrite, stdoutWrite, stderrWrite} {
		if f != nil {
			theirs = append(theirs, f)
		}
	}
	p.output = &output{}
	p.output.add(stdout, c.Stdout)
	p.output.add(stderr, c.Stderr)
	if err != nil {
		return nil, err
	}

	var in inherited
	for _, f := range []*os.File{b.null, stdoutWrite, stderrWrite, held, statusWrite} {
		in.add(f)
	}
	h := &holding{
		path: path, args: c.Args, env: c.Env, dir: dir, nonce: c.Nonce, cpus: b.settings.CPUs,
		rlimits: changedRlimits(), unignore: ignoredSignals(), plain: b.dog == nil,
	}
	if h.args == nil {
		h.args = []string{c.Path}
	}
	if u := b.settings.User; os.Geteuid() == 0 && u.UID != 0 || b.options.User != nil {
		h.user = &u
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
		fd, err := unix.FcntlInt(uintptr(b.dog.pidfd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		dog := os.NewFile(uintptr(fd), "watchdog")
		theirs = append(theirs, dog)
		h.box, h.spaces = in.add(dog), unix.CLONE_NEWPID|unix.CLONE_NEWNS
		if b.settings.Isolated {
			h.spaces |= unix.CLONE_NEWNET
		}
	}
	image, err := holderProgram(h).image()
	if err != nil {
		return nil, err
	}
	if err := b.spawn(image, &in, p); err != nil {
		return nil, err
	}
	for _, f := range theirs {
		f.Close()
	}
	theirs = nil
	if err := p.await(ctx); err != nil {
		return nil, err
	}
	b.guard.watch(p.pid)
	p.before = p.counts()
	go p.watchExec()
	go p.wait()
	p.output.start()
	return p, nil
}

// spawn starts the first stage.
func (b *Box) spawn(image []byte, in *inherited, p *Process) error {
	start := func() (err error) {
		first, err := startImage(image, &syscall.ProcAttr{Dir: "/", Files: in.fds()})
		if err != nil {
			return err
		}
		go func() { _, _, _ = wait4(first) }()
		return nil
	}
	if b.spawner != nil {
		return b.spawner.do(start)
	}
	return start()
}

// await reads the messages of both stages: the PID, and that the second is
// ready. On failure the second stage is gone.
func (p *Process) await(ctx context.Context) (err error) {
	deadline := time.Now().Add(setupTimeout)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	if err := p.status.SetReadDeadline(deadline); err != nil {
		return err
	}
	defer func() {
		if err != nil && p.pid != 0 {
			_ = unix.Kill(p.pid, unix.SIGKILL)
			_, _, _ = wait4(p.pid)
		}
	}()
	var failure error
	for ready := false; !ready || p.pid == 0; {
		m, err := p.readMessage()
		switch {
		case err != nil && failure != nil:
			return failure
		case errors.Is(err, io.EOF):
			return errors.New("the holder ended before it was ready")
		case err != nil:
			return fmt.Errorf("the holder is not ready: %w", err)
		case m.tag == tagPID:
			p.pid = int(m.result)
		case m.tag == tagReady:
			ready = true
		default:
			failure = m.error()
		}
		if failure != nil && p.pid != 0 {
			return failure
		}
	}
	if err := p.status.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	p.pidfd, err = unix.PidfdOpen(p.pid, 0)
	if err != nil {
		return fmt.Errorf("pidfd_open: %w", err)
	}
	return nil
}

func (p *Process) readMessage() (message, error) {
	buffer := make([]byte, 16)
	if _, err := io.ReadFull(p.status, buffer); err != nil {
		return message{}, err
	}
	return parseMessage(buffer), nil
}

// watchExec learns from the status pipe how execve ended: it closes on success.
func (p *Process) watchExec() {
	defer close(p.executed)
	m, err := p.readMessage()
	if err != nil {
		return
	}
	if op, errno, ok := m.failed(); ok && op == opExec {
		p.execErr = &NotExecutableError{p.path, errno, executionHint(p.path, errno)}
	} else {
		p.execErr = m.error()
	}
}

// wait reaps the process and composes its Exit.
func (p *Process) wait() {
	status, usage, err := wait4(p.pid)
	at := monotonic()
	close(p.reaped)
	<-p.executed
	p.status.Close()
	p.release.Close()
	e := Exit{Status: -1, At: at, Err: p.execErr}
	switch {
	case err != nil:
		e.Err = errors.Join(e.Err, fmt.Errorf("wait4: %w", err))
	case status.Signaled():
		e.Signal = status.Signal()
	case e.Err == nil:
		e.Status = status.ExitStatus()
	}
	if e.Err == nil && !p.released.Load() {
		e.Err, e.Status = ErrDismissed, -1
	}
	e.Usage = Usage{
		User: time.Duration(usage.Utime.Nano()), System: time.Duration(usage.Stime.Nano()),
		MaxRSSBytes: usage.Maxrss << 10,
		MinorFaults: usage.Minflt - p.before.minor, MajorFaults: usage.Majflt - p.before.major,
		Voluntary: usage.Nvcsw, Involuntary: usage.Nivcsw,
	}
	if e.Signal == unix.SIGKILL && p.box.group != nil {
		e.OOMKilled = p.box.group.counts().oomKills > p.before.oomKills
	}
	p.exit = e
	p.output.settle()
	close(p.done)
}

// counts reads what the process has used already.
func (p *Process) counts() (c heldCounts) {
	if p.box.group != nil {
		c.oomKills = p.box.group.counts().oomKills
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(p.pid) + "/stat")
	if err != nil {
		return c
	}
	// proc_pid_stat(5): minflt is field 10, majflt field 12; the name in field
	// 2 may hold anything.
	text := string(stat)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	if len(fields) > 9 {
		c.minor, _ = strconv.ParseInt(fields[7], 10, 64)
		c.major, _ = strconv.ParseInt(fields[9], 10, 64)
	}
	return c
}

// Release lets the process go on to its exec and returns the time,
// CLOCK_MONOTONIC in nanoseconds, right before.
func (p *Process) Release() (int64, error) {
	if !p.released.CompareAndSwap(false, true) {
		return 0, fmt.Errorf("%s was released already", p.path)
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

// PID is the process's ID in initprof's own PID namespace.
func (p *Process) PID() int { return p.pid }

// Root is the path of the process's root directory, through which initprof sees
// its files; valid while it lives.
func (p *Process) Root() string { return "/proc/" + strconv.Itoa(p.pid) + "/root" }

// Done is closed when the process has ended and what it wrote was delivered.
func (p *Process) Done() <-chan struct{} { return p.done }

// Executed is closed when the kernel has executed or refused the program, or
// the process has ended before.
func (p *Process) Executed() <-chan struct{} { return p.executed }

// Wait waits for Done and tells how the process ended. Children that keep its
// output open do not delay it.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// LastOutput is the end of what the process and its children wrote to both
// outputs, at most 64 KiB.
func (p *Process) LastOutput() []byte { return p.output.last() }

// Signal sends a signal. It returns os.ErrProcessDone when the process ended.
func (p *Process) Signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd < 0 {
		return os.ErrProcessDone
	}
	err := unix.PidfdSendSignal(p.pidfd, s, nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return os.ErrProcessDone
	}
	return err
}

func (p *Process) closePidfd() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.pidfd >= 0 {
		_ = unix.Close(p.pidfd)
		p.pidfd = -1
	}
}

func (p *Process) closeOutput() { p.output.close() }
