package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HolderMagic is the first extra argument of the getppid by which a holder
// announces itself to BPF; the nonce is the second. "initprof" in ASCII.
const HolderMagic = 0x696e697470726f66

// Command is what a holder execs.
type Command struct {
	Path  string // the file, as execve takes it; no search in PATH
	Args  []string
	Env   []string
	Dir   string
	Nonce uint64

	// Line gets each line of output, without its end, in the order in which
	// they were read; lines of more than 64 KiB come in pieces. May be nil.
	Line func(line []byte)
	// Echo gets the output as it is. May be nil.
	Echo io.Writer
}

// NotExecutableError says that the kernel refused to exec the command.
type NotExecutableError struct {
	Path string
	Err  syscall.Errno
}

func (e *NotExecutableError) Error() string {
	switch e.Err {
	case unix.ENOEXEC:
		return fmt.Sprintf("%s is neither a program of this machine's architecture nor a script with #!", e.Path)
	case unix.ENOENT:
		if _, err := os.Stat(e.Path); err == nil {
			return fmt.Sprintf("%s needs an interpreter or loader that does not exist here", e.Path)
		}
	case unix.EACCES:
		return fmt.Sprintf("%s may not be executed by this user (chmod +x, and x on every directory above it)", e.Path)
	}
	return fmt.Sprintf("exec %s: %v", e.Path, e.Err)
}

// Unwrap returns the error of execve.
func (e *NotExecutableError) Unwrap() error { return e.Err }

// Exit tells how a process ended.
type Exit struct {
	Status int            // of exit, if Signal is 0
	Signal syscall.Signal // that ended it, or 0
	Err    error          // *NotExecutableError if the exec failed
	Usage  syscall.Rusage
}

// Process is one process of a box.
type Process struct {
	command Command
	cmd     *exec.Cmd
	pid     int
	release *os.File
	status  *os.File
	guard   io.Closer
	output  *output
	done    chan struct{}
	exit    Exit
	once    sync.Once
}

// Hold starts a process that waits before its exec. It has announced itself
// with the nonce when Hold returns.
func (b *Box) Hold(c Command) (*Process, error) {
	p := &Process{command: c, done: make(chan struct{})}
	if err := p.start(b); err != nil {
		return nil, fmt.Errorf("hold %s: %w", c.Path, err)
	}
	b.mu.Lock()
	b.held = append(b.held, p)
	b.mu.Unlock()
	if b.group != nil {
		if err := b.group.add(p.pid); err != nil {
			p.end()
			return nil, fmt.Errorf("limit %s: %w", c.Path, err)
		}
	}
	if _, _, err := readMessage(p.status); err != nil {
		p.end()
		return nil, fmt.Errorf("hold %s: the holder ended: %w", c.Path, err)
	}
	go p.wait()
	return p, nil
}

func (p *Process) start(b *Box) error {
	theirRelease, release, err := pipe()
	if err != nil {
		return err
	}
	status, theirStatus, err := pipe()
	if err != nil {
		return errors.Join(err, theirRelease.Close(), release.Close())
	}
	p.release, p.status = release, status
	read, write, err := pipe()
	if err != nil {
		return err
	}
	image, err := holderProgram(p.command).file("initprof-holder")
	if err != nil {
		return err
	}
	p.cmd = &exec.Cmd{
		Path: fdPath(image), Args: []string{"initprof-holder"}, Env: []string{}, Dir: p.command.Dir,
		Stdout: write, Stderr: write, ExtraFiles: []*os.File{theirRelease, theirStatus},
		SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}
	if b.opts.User != nil && os.Geteuid() == 0 {
		u := b.opts.User
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: u.UID, Gid: u.GID, Groups: u.Groups}
	}
	err = b.fork(p.cmd)
	for _, f := range []*os.File{theirRelease, theirStatus, write, image} {
		_ = f.Close()
	}
	if err != nil {
		return errors.Join(err, release.Close(), status.Close(), read.Close())
	}
	p.pid = p.cmd.Process.Pid
	p.output = collect(read, p.command.Line, p.command.Echo)
	if !b.settings.Namespaces {
		if p.guard, err = startGuard(p.pid); err != nil {
			p.end()
			return err
		}
	}
	return nil
}

// fork starts a command inside the box's namespaces, from a thread of its own
// that ends afterwards: namespaces cannot be left again.
func (b *Box) fork(cmd *exec.Cmd) error {
	if b.pids == nil {
		return cmd.Start()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_FS); err != nil {
				return fmt.Errorf("leave the shared root: %w", err)
			}
			for _, ns := range []struct {
				file *os.File
				flag int
			}{{b.pids, unix.CLONE_NEWPID}, {b.network, unix.CLONE_NEWNET}, {b.mounts, unix.CLONE_NEWNS}} {
				if ns.file == nil {
					continue
				}
				if err := unix.Setns(int(ns.file.Fd()), ns.flag); err != nil {
					return fmt.Errorf("enter the box: %w", err)
				}
			}
			// Entering a mount namespace leaves a chroot: go back into it.
			if err := unix.Fchdir(int(b.root.Fd())); err != nil {
				return fmt.Errorf("enter the box's root: %w", err)
			}
			if err := unix.Chroot("."); err != nil {
				return fmt.Errorf("enter the box's root: %w", err)
			}
			return cmd.Start()
		}()
	}()
	return <-done
}

// holderProgram announces itself, says so on descriptor 4, waits for a byte on
// 3, and execs; a failed exec is told on 4.
func holderProgram(c Command) *program {
	const release, report = 3, 4
	p := newProgram()
	path, argv, envp := p.string(c.Path), p.strings(c.Args), p.strings(c.Env)
	p.call(unix.SYS_CLOSE_RANGE, report+1, closeAll, 0)
	for _, fd := range []uint64{release, report} {
		p.call(unix.SYS_FCNTL, fd, unix.F_SETFD, unix.FD_CLOEXEC)
	}
	// What initprof's own caller ignored, the subject must not.
	standard := p.words(0, 0, 0, 0) // struct sigaction: SIG_DFL
	for signal := uint64(1); signal <= 64; signal++ {
		p.call(unix.SYS_RT_SIGACTION, signal, standard, 0, 8)
	}
	announce := p.call(unix.SYS_GETPPID, HolderMagic, c.Nonce)
	p.send(report, announce, tagReady)
	wait := p.call(unix.SYS_READ, release, p.words(0), 1)
	p.onNegative(wait, wait) // EINTR
	run := p.call(unix.SYS_EXECVE, path, argv, envp)
	p.send(report, run, tagExec)
	p.onZero(wait, end(p, 127)) // end of file: initprof is gone
	return p
}

// Release lets the process exec. It returns the time before it, on
// CLOCK_MONOTONIC in nanoseconds.
func (p *Process) Release() (int64, error) {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0, fmt.Errorf("read the clock: %w", err)
	}
	if _, err := p.release.Write([]byte{1}); err != nil {
		return 0, fmt.Errorf("release %s: %w", p.command.Path, err)
	}
	return now.Nano(), nil
}

// PID is the process's ID as initprof sees it.
func (p *Process) PID() int { return p.pid }

// Root is the directory through which the process's files can be opened while
// it lives.
func (p *Process) Root() string { return "/proc/" + strconv.Itoa(p.pid) + "/root" }

// Done is closed when the process has ended and its last output was read.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait waits for the end of the process and of its output.
func (p *Process) Wait() Exit {
	<-p.done
	return p.exit
}

// Signal sends a signal to the process alone.
func (p *Process) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// LastOutput is the end of what the process and its descendants printed, at most 64 KiB.
func (p *Process) LastOutput() []byte { return p.output.last() }

// lingering is how long the output of a process that ended is still read while
// one of its descendants keeps it open.
const lingering = 100 * time.Millisecond

// wait collects the end of a process.
func (p *Process) wait() {
	defer close(p.done)
	tag, result, err := readMessage(p.status) // end of file: the exec succeeded
	if err == nil && tag == tagExec {
		p.exit.Err = &NotExecutableError{Path: p.command.Path, Err: syscall.Errno(-result)}
	}
	state, err := p.cmd.Process.Wait()
	if err != nil {
		p.exit.Err = errors.Join(p.exit.Err, err)
		return
	}
	if usage, ok := state.SysUsage().(*syscall.Rusage); ok {
		p.exit.Usage = *usage
	}
	if status, ok := state.Sys().(syscall.WaitStatus); ok {
		if status.Signaled() {
			p.exit.Signal = status.Signal()
		} else {
			p.exit.Status = status.ExitStatus()
		}
	}
	select {
	case <-p.output.done:
	case <-time.After(lingering):
	}
}

// end kills the process with its session and lets go of what belongs to it.
func (p *Process) end() {
	p.once.Do(func() {
		if p.pid > 0 {
			_ = unix.Kill(-p.pid, unix.SIGKILL) // its own group: it is a session leader
			_ = p.cmd.Process.Kill()
		}
		_ = p.release.Close()
		if p.guard != nil {
			_ = p.guard.Close()
		}
	})
	if p.output != nil {
		select {
		case <-p.done:
		case <-time.After(time.Second):
		}
		p.output.close()
	}
	_ = p.status.Close()
}

// guard kills a process group when its pipe ends.
type guard struct {
	cmd  *exec.Cmd
	pipe *os.File
}

func startGuard(pid int) (*guard, error) {
	theirs, ours, err := pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = theirs.Close() }()
	p := newProgram()
	wait := p.call(unix.SYS_READ, 3, p.words(0), 1)
	p.onNegative(wait, wait)
	p.onPositive(wait, wait)
	p.call(unix.SYS_KILL, -uint64(pid), uint64(unix.SIGKILL))
	end(p, 0)
	image, err := p.file("initprof-guard")
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer func() { _ = image.Close() }()
	g := &guard{pipe: ours, cmd: &exec.Cmd{
		Path: fdPath(image), Args: []string{"initprof-guard"}, Env: []string{}, Dir: "/",
		ExtraFiles: []*os.File{theirs}, SysProcAttr: &syscall.SysProcAttr{Setsid: true},
	}}
	if err := g.cmd.Start(); err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	return g, nil
}

// Close lets the guard do its work.
func (g *guard) Close() error { return errors.Join(g.pipe.Close(), g.cmd.Wait()) }
