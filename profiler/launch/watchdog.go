package launch

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setupTimeout bounds the wait for a holder or watchdog, which takes a
// millisecond: more is a host in trouble.
const setupTimeout = 10 * time.Second

// watching is all that the watchdog's program depends on.
type watching struct {
	network bool     // bring the loopback interface of a new network namespace up
	hosts   []byte   // what /etc/hosts holds inside
	covers  []cover  // files to be bound over others
	cgroups []string // directories to be removed once all is dead
	files   []string // files to be removed then
	dirs    []string // directories to be removed after them
}

type cover struct{ from, over string }

// Waits between the attempts to remove a cgroup: the kernel takes its time to
// let go of the last process.
var removalWaits = []time.Duration{
	0, time.Millisecond, 2 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond, 20 * time.Millisecond,
	50 * time.Millisecond, 100 * time.Millisecond, 200 * time.Millisecond, 999 * time.Millisecond,
}

// watchdogProgram writes the init of a box down.
func watchdogProgram(w *watching) *program {
	p := newProgram()
	none, root, proc := p.string("none"), p.string("/"), p.string("/proc")
	p.call(unix.SYS_SETSID)
	p.call(unix.SYS_PRCTL, unix.PR_SET_NAME, p.string("initprof-box"))
	p.call(unix.SYS_CLOSE_RANGE, firstFreeFD, closeAll, 0)
	// Children of an init that ignores SIGCHLD are reaped by the kernel.
	ignore := p.words(1, 0, 0, 0) // struct sigaction: SIG_IGN
	p.call(unix.SYS_RT_SIGACTION, uint64(unix.SIGCHLD), ignore, 0, 8)

	p.must(p.call(unix.SYS_MOUNT, none, root, 0, unix.MS_REC|unix.MS_PRIVATE, 0), opMountPrivate)
	for _, c := range w.covers {
		p.must(p.call(unix.SYS_MOUNT, p.string(c.from), p.string(c.over), 0, unix.MS_BIND, 0), opCover)
	}
	if len(w.hosts) > 0 {
		p.mountHosts(w.hosts, proc)
	}
	p.must(p.call(unix.SYS_MOUNT, none, proc, p.string("proc"), unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, 0), opMountProc)
	if w.network {
		up := make([]byte, 40) // struct ifreq: a name of 16 bytes, then the flags
		copy(up, "lo")
		up[16] = unix.IFF_UP | unix.IFF_RUNNING
		p.must(p.call(unix.SYS_SOCKET, unix.AF_INET, unix.SOCK_DGRAM, 0), opLoopback)
		p.must(p.call(unix.SYS_IOCTL, firstFreeFD, unix.SIOCSIFFLAGS, p.bytes(up)), opLoopback)
		p.call(unix.SYS_CLOSE, firstFreeFD)
	}
	p.send(statusFD, p.call(unix.SYS_GETPID), tagReady)
	p.call(unix.SYS_CLOSE, statusFD)

	watch := p.call(unix.SYS_READ, holdFD, p.words(0), 1)
	p.onNegative(watch, watch) // interrupted

	p.call(unix.SYS_KILL, ^uint64(0), uint64(unix.SIGKILL))
	for _, wait := range removalWaits {
		if len(w.cgroups) == 0 {
			break
		}
		if wait != 0 {
			p.call(unix.SYS_NANOSLEEP, p.words(0, uint64(wait)), 0)
		}
		for _, dir := range w.cgroups {
			p.call(unix.SYS_UNLINKAT, fdCwd, p.string(dir), unix.AT_REMOVEDIR)
		}
	}
	for _, f := range w.files {
		p.call(unix.SYS_UNLINKAT, fdCwd, p.string(f), 0)
	}
	for _, d := range w.dirs {
		p.call(unix.SYS_UNLINKAT, fdCwd, p.string(d), unix.AT_REMOVEDIR)
	}
	p.call(unix.SYS_EXIT_GROUP, 0)
	p.ends(statusFD)
	return p
}

// mountHosts binds a file over /etc/hosts. It lies on a tmpfs that is mounted
// on /proc for a moment, a place that exists everywhere, and which only the
// bind mount keeps afterwards.
func (p *program) mountHosts(content []byte, proc uint64) {
	tmpfs, file := p.string("tmpfs"), p.string("/proc/hosts")
	p.must(p.call(unix.SYS_MOUNT, tmpfs, proc, tmpfs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC,
		p.string("mode=755")), opMountTemporary)
	p.must(p.call(unix.SYS_OPENAT, fdCwd, file, unix.O_CREAT|unix.O_WRONLY, 0o644), opHosts)
	p.must(p.call(unix.SYS_WRITE, firstFreeFD, p.bytes(content), uint64(len(content))), opHosts)
	p.call(unix.SYS_FCHMOD, firstFreeFD, 0o644) // whatever the umask
	p.call(unix.SYS_CLOSE, firstFreeFD)
	p.must(p.call(unix.SYS_MOUNT, file, p.string("/etc/hosts"), 0, unix.MS_BIND, 0), opHosts)
	p.must(p.call(unix.SYS_UMOUNT2, proc, unix.MNT_DETACH), opMountTemporary)
}

// watchdog is the running init of a box.
type watchdog struct {
	pid   int
	pidfd int
	life  *os.File // the only write end: closed when initprof ends
	root  *os.File // its root directory: in a chroot, not that of its mount namespace
	gone  chan struct{}
}

// startWatchdog starts PID 1 of new namespaces and waits until the box is
// furnished.
func startWatchdog(w *watching, null *os.File) (*watchdog, error) {
	image, err := watchdogProgram(w).image()
	if err != nil {
		return nil, err
	}
	lifeRead, life, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { _ = lifeRead.Close() }()
	status, statusWrite, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, life.Close())
	}
	defer func() { _ = status.Close() }()
	flags := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	if w.network {
		flags |= unix.CLONE_NEWNET
	}
	d := &watchdog{pidfd: -1, life: life, gone: make(chan struct{})}
	fds := (&inherited{files: []*os.File{null, null, null, lifeRead, statusWrite}}).fds()
	d.pid, err = startImage(image, &syscall.ProcAttr{
		Dir: "/", Files: fds, Sys: &syscall.SysProcAttr{Cloneflags: flags, PidFD: &d.pidfd},
	})
	err = errors.Join(err, statusWrite.Close())
	if err != nil {
		return nil, errors.Join(fmt.Errorf("new namespaces: %w", err), life.Close())
	}
	go d.reap()
	err = d.ready(status)
	if err == nil && d.pidfd < 0 {
		err = fmt.Errorf("pidfd: %w", unix.ENOSYS)
	}
	if err == nil {
		d.root, err = os.OpenFile(fmt.Sprintf("/proc/%d/root", d.pid), unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	if err != nil {
		d.kill()
		<-d.gone
		d.close()
		return nil, err
	}
	return d, nil
}

// ready waits for the watchdog's message.
func (d *watchdog) ready(status *os.File) error {
	if err := status.SetReadDeadline(time.Now().Add(setupTimeout)); err != nil {
		return err
	}
	m, err := readMessage(status)
	switch {
	case errors.Is(err, io.EOF):
		return errors.New("the box's first process ended before the box was furnished")
	case err != nil:
		return fmt.Errorf("the box's first process: %w", err)
	case m.tag != tagReady:
		return m.error()
	}
	return nil
}

// reap waits for the end of the watchdog, which is the end of all inside: the
// kernel lets an init go only after everything else in its PID namespace.
func (d *watchdog) reap() {
	_, _, _ = wait4(d.pid)
	close(d.gone)
}

// kill ends the watchdog, and with it all that is inside.
func (d *watchdog) kill() {
	if d.pidfd >= 0 {
		_ = unix.PidfdSendSignal(d.pidfd, unix.SIGKILL, nil, 0)
		return
	}
	_ = unix.Kill(d.pid, unix.SIGKILL) // not reaped by anybody else
}

// close releases the descriptors, after the end of the watchdog.
func (d *watchdog) close() {
	_ = d.life.Close()
	if d.root != nil {
		_ = d.root.Close()
	}
	if d.pidfd >= 0 {
		_ = unix.Close(d.pidfd)
	}
}
