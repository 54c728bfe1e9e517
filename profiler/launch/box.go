package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Options describes a box. The zero value is one of the caller's user, in the
// host's network, without limits.
type Options struct {
	Isolated bool  // an own network namespace, with nothing but loopback
	User     *User // who the processes run as; nil: the caller

	CPUs     int     // how many CPUs are visible, 0: all
	CPUQuota float64 // in CPUs, 0: none
	MemoryMB int     // 0: no limit
	NoLimits bool    // no cgroup at all

	// Hosts are names that resolve inside, beside those of the host's own
	// hosts file. They need root: else a warning stands in Settings.
	Hosts map[string]string
}

// Settings tells what a box really is.
type Settings struct {
	Namespaces    bool // own PID and mount namespaces
	Isolated      bool
	CgroupVersion int // 0: none
	CPUs          []int
	CPUQuota      float64
	CPUPeriod     time.Duration
	MemoryMB      int
	Throttled     time.Duration // so far
	OOMKilled     bool
	Missing       []string // what could not be had, with the reason
}

// Box is one execution environment: everything in it ends with Close, or when
// initprof ends.
type Box struct {
	opts     Options
	settings Settings
	watchdog *exec.Cmd
	lifeline *os.File // the watchdog's pipe: its end of file is the box's end
	group    group
	network  *os.File // namespaces of the watchdog; nil where not isolated
	mounts   *os.File
	pids     *os.File
	root     *os.File // the watchdog's root, which need not be its mount namespace's

	mu     sync.Mutex
	held   []*Process
	closed bool
}

// New makes a box. As root it has namespaces of its own; what cannot be had is
// listed in Settings and is no error.
func New(ctx context.Context, opts Options) (*Box, error) {
	b := &Box{opts: opts}
	if os.Geteuid() != 0 {
		b.missing("namespaces and limits", errors.New("they need root"))
		return b, nil
	}
	if err := b.startWatchdog(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the box: %w", err), b.Close())
	}
	if opts.Isolated {
		if err := b.inside(loopbackUp); err != nil {
			return nil, errors.Join(fmt.Errorf("bring up loopback in the box: %w", err), b.Close())
		}
	}
	if !opts.NoLimits {
		b.group, b.settings = newGroup(opts, b.settings)
	}
	return b, ctx.Err()
}

func (b *Box) missing(what string, err error) {
	b.settings.Missing = append(b.settings.Missing, fmt.Sprintf("%s: %v", what, err))
}

func (b *Box) startWatchdog() error {
	theirLifeline, lifeline, err := pipe()
	if err != nil {
		return err
	}
	b.lifeline = lifeline
	status, theirStatus, err := pipe()
	if err != nil {
		return errors.Join(err, theirLifeline.Close())
	}
	defer func() { _ = status.Close() }()
	image, err := watchdogProgram(b.opts.Hosts).file("initprof-watchdog")
	if err != nil {
		return err
	}
	flags := uintptr(unix.CLONE_NEWPID | unix.CLONE_NEWNS)
	if b.opts.Isolated {
		flags |= unix.CLONE_NEWNET
	}
	b.watchdog = &exec.Cmd{
		Path: fdPath(image), Args: []string{"initprof-watchdog"}, Env: []string{}, Dir: "/",
		ExtraFiles:  []*os.File{theirLifeline, theirStatus},
		SysProcAttr: &syscall.SysProcAttr{Cloneflags: flags, Setsid: true},
	}
	err = b.watchdog.Start()
	for _, f := range []*os.File{theirLifeline, theirStatus, image} {
		_ = f.Close()
	}
	if err != nil {
		b.watchdog = nil
		return err
	}
	b.settings.Namespaces = true
	b.settings.Isolated = b.opts.Isolated
	for {
		tag, result, err := readMessage(status)
		if err != nil {
			return fmt.Errorf("the box's first process ended: %w", err)
		}
		switch tag {
		case tagReady:
			return b.openNamespaces()
		case tagPrivate:
			return fmt.Errorf("make the mounts private: %w", syscall.Errno(-result))
		case tagHosts:
			b.missing("names in /etc/hosts", syscall.Errno(-result))
		case tagProc:
			b.missing("an own /proc", syscall.Errno(-result))
		}
	}
}

func (b *Box) openNamespaces() error {
	open := func(name string) (*os.File, error) {
		return os.Open(fmt.Sprintf("/proc/%d/ns/%s", b.watchdog.Process.Pid, name))
	}
	var err error
	if b.pids, err = open("pid"); err != nil {
		return err
	}
	if b.mounts, err = open("mnt"); err != nil {
		return err
	}
	if b.root, err = os.Open(fmt.Sprintf("/proc/%d/root", b.watchdog.Process.Pid)); err != nil {
		return err
	}
	if b.opts.Isolated {
		b.network, err = open("net")
	}
	return err
}

// inside runs f on a thread that is in the box's network namespace. The thread
// goes back afterwards, or ends where that fails.
func (b *Box) inside(f func() error) error {
	if b.network == nil {
		return f()
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = own.Close() }()
		if err := unix.Setns(int(b.network.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter the box's network: %w", err)
			return
		}
		err = f()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

func loopbackUp() error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(s) }()
	request, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	request.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	return unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, request)
}

// Listen announces on an address of the box's network.
func (b *Box) Listen(network, address string) (l net.Listener, err error) {
	err = b.inside(func() (err error) {
		l, err = net.Listen(network, address)
		return err
	})
	return l, err
}

// DialContext connects to an address of the box's network. The address must be
// an IP address: names are not looked up.
func (b *Box) DialContext(ctx context.Context, network, address string) (c net.Conn, err error) {
	err = b.inside(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	return c, err
}

// Settings tells what the box is, throttled time and OOM kills up to now.
func (b *Box) Settings() Settings {
	s := b.settings
	if b.group != nil {
		s.Throttled, s.OOMKilled = b.group.counts()
	}
	s.Missing = slices.Clone(s.Missing)
	return s
}

// Close ends everything inside and leaves nothing behind. It may be called again.
func (b *Box) Close() error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil
	}
	b.closed = true
	held := b.held
	b.mu.Unlock()

	var errs []error
	if b.lifeline != nil {
		errs = append(errs, b.lifeline.Close())
	}
	if b.watchdog != nil {
		// Its end is the end of all others: the kernel lets PID 1 go last.
		var ended *exec.ExitError
		if err := b.watchdog.Wait(); err != nil && !errors.As(err, &ended) {
			errs = append(errs, err)
		}
	}
	for _, p := range held {
		p.end()
	}
	if b.group != nil {
		errs = append(errs, b.group.remove())
	}
	for _, f := range []*os.File{b.network, b.mounts, b.pids, b.root} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("end the box: %w", err)
	}
	return nil
}

func pipe() (r, w *os.File, err error) {
	r, w, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("make a pipe: %w", err)
	}
	return r, w, nil
}

// readMessage reads what program.send sent.
func readMessage(from io.Reader) (tag uint64, result int64, err error) {
	var m [16]byte
	if _, err := io.ReadFull(from, m[:]); err != nil {
		return 0, 0, err
	}
	return word(m[:8]), int64(word(m[8:])), nil
}
