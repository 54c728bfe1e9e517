package launch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrClosed is what the methods of a Box return after Close.
var ErrClosed = errors.New("the box is closed")

// closeTimeout bounds how long Close waits for the kernel to end the processes.
const closeTimeout = 5 * time.Second

// defaultPeriod is the kernel's default, and Lambda's as far as it can be seen.
const defaultPeriod = 100 * time.Millisecond

// Options describes a box. The zero value is one of the caller's user, in the
// host's network, without limits.
type Options struct {
	Isolated bool  // an own network namespace, with nothing but loopback
	User     *User // who the processes run as; nil: the user of initprof

	CPUs      int           // how many CPUs are visible, the first ones; 0: all
	CPUQuota  float64       // in CPUs, 0: none
	CPUPeriod time.Duration // of the quota, 0: 100 ms
	MemoryMB  int           // of all processes together, without swap; 0: no limit
	NoLimits  bool          // no cgroup at all

	// Hosts are names that resolve inside, beside those of the host's own
	// hosts file. They need namespaces: else it stands in Settings.
	Hosts map[string]string

	// Copies are files over which private copies are bound, with no page of
	// them in memory: the way to a cold start from files that others keep
	// mapped, see ResidualPages. They need namespaces.
	Copies []string
}

// Settings tells what a box really is.
type Settings struct {
	Namespaces    bool // own PID and mount namespaces
	Isolated      bool
	CgroupVersion int // 0: none
	CPUs          []int
	CPUQuota      float64       // 0: none
	CPUPeriod     time.Duration // 0: no quota
	MemoryMB      int           // 0: no limit

	Throttled        time.Duration // so far
	Periods          uint64        // of the quota in which something ran, so far
	ThrottledPeriods uint64        // of them
	OOMKilled        bool          // a process met the memory limit
	Missing          []string      // what could not be had, with the reason
}

// Box is one execution environment: everything in it ends with Close, or when
// initprof ends. Its methods may be called from several goroutines.
type Box struct {
	name    string
	opts    Options
	dog     *watchdog // nil: a plain box
	group   *group    // nil: no cgroup
	spawner *spawner  // of a plain box
	copies  *copies
	null    *os.File

	mu       sync.Mutex
	settings Settings
	held     []*Process
	closed   bool
	closeErr error
}

var boxes atomic.Int64

// New makes a box. As root it has namespaces of its own; what cannot be had is
// listed in Settings and is no error.
func New(ctx context.Context, opts Options) (*Box, error) {
	if err := errors.Join(ctx.Err(), opts.check()); err != nil {
		return nil, err
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	b := &Box{
		name: fmt.Sprintf("%s%d-%d", boxPrefix, os.Getpid(), boxes.Add(1)),
		opts: opts, null: null,
	}
	b.limit()
	if err := b.isolate(); err != nil {
		return nil, errors.Join(fmt.Errorf("start the box: %w", err), b.Close())
	}
	return b, nil
}

func (o *Options) check() error {
	switch {
	case o.CPUs < 0 || o.CPUQuota < 0 || o.MemoryMB < 0:
		return fmt.Errorf("CPUs (%d), quota (%v) and memory (%d) may not be negative", o.CPUs, o.CPUQuota, o.MemoryMB)
	case o.CPUPeriod != 0 && (o.CPUPeriod < time.Millisecond || o.CPUPeriod > time.Second):
		return fmt.Errorf("CPU period: %v is not within 1ms and 1s", o.CPUPeriod)
	case o.User != nil && os.Geteuid() != 0 && int(o.User.UID) != os.Geteuid():
		return fmt.Errorf("running the subject as %s needs root", o.User.Name)
	}
	for name, address := range o.Hosts {
		if name == "" || address == "" || strings.ContainsAny(name+address, " \t\r\n#") {
			return fmt.Errorf("host %q at %q: neither may be empty or hold spaces", name, address)
		}
	}
	for _, path := range o.Copies {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("private copy of %q: the path must be absolute", path)
		}
	}
	return nil
}

func (b *Box) missing(what string, err error) {
	b.settings.Missing = append(b.settings.Missing, fmt.Sprintf("%s: %v", what, err))
}

// limit makes the cgroup.
func (b *Box) limit() {
	b.settings.CPUs = given.cpus
	if b.opts.NoLimits {
		return
	}
	want := limits{cpus: given.cpus, period: b.opts.CPUPeriod, quota: b.opts.CPUQuota, memory: int64(b.opts.MemoryMB) << 20}
	if want.period == 0 {
		want.period = defaultPeriod
	}
	if n := b.opts.CPUs; n > 0 {
		if len(given.cpus) < n {
			b.missing("visible CPUs", fmt.Errorf("%d asked for, initprof itself has %d", n, len(given.cpus)))
		}
		want.cpus = given.cpus[:min(n, len(given.cpus))]
	}
	b.settings.CPUs = want.cpus // where there is no cpuset, by affinity
	var missing []string
	b.group, missing = newGroup(b.name, want)
	b.settings.Missing = append(b.settings.Missing, missing...)
	if b.group == nil {
		return
	}
	b.settings.CgroupVersion = b.group.version
	if b.group.quota {
		b.settings.CPUQuota, b.settings.CPUPeriod = want.quota, want.period
	}
	if b.group.memory {
		b.settings.MemoryMB = b.opts.MemoryMB
	}
}

// isolate makes the namespaces, or what can be done without them.
func (b *Box) isolate() error {
	err := b.startWatchdog()
	if err == nil {
		b.settings.Namespaces, b.settings.Isolated = true, b.opts.Isolated
		return nil
	}
	if os.Geteuid() != 0 {
		err = errors.New("they need root")
	}
	b.missing("own namespaces", err)
	if b.opts.Isolated {
		b.missing("own network", errors.New("it needs namespaces; ports of the subject are the host's"))
	}
	if len(b.opts.Hosts) > 0 {
		b.missing("names in /etc/hosts", errors.New("they need namespaces"))
	}
	if len(b.opts.Copies) > 0 {
		b.missing("private copies", errors.New("they need namespaces"))
	}
	if err := b.copies.remove(); err != nil {
		return err
	}
	b.copies = nil
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		b.missing("reaping of orphans", err)
	}
	b.spawner = newSpawner()
	return nil
}

func (b *Box) startWatchdog() error {
	if os.Geteuid() != 0 {
		return unix.EPERM
	}
	w := &watching{network: b.opts.Isolated, hosts: hostsFile(b.opts.Hosts)}
	if len(b.opts.Copies) > 0 {
		var err error
		if b.copies, err = newCopies(b.name, b.opts.Copies); err != nil {
			return err
		}
		w.covers, w.files, w.dirs = b.copies.covers, b.copies.files(), []string{b.copies.dir}
	}
	if b.group != nil {
		w.cgroups = b.group.dirs
	}
	var err error
	b.dog, err = startWatchdog(w, b.null)
	return err
}

// hostsFile is the host's own file with names added in front; nil for none.
func hostsFile(names map[string]string) []byte {
	if len(names) == 0 {
		return nil
	}
	own, err := os.ReadFile("/etc/hosts")
	if err != nil {
		own = []byte("127.0.0.1 localhost\n")
	}
	lines := make([]string, 0, len(names))
	for name, address := range names {
		lines = append(lines, address+" "+name+"\n")
	}
	slices.Sort(lines)
	return append([]byte(strings.Join(lines, "")), own...)
}

// Copy returns the private copy that covers a file inside the box, as it is
// found outside of it; the file itself where there is none.
func (b *Box) Copy(path string) string {
	if b.copies != nil {
		for _, c := range b.copies.covers {
			if c.over == path {
				return c.from
			}
		}
	}
	return path
}

// Settings tells what the box is, with what it has counted up to now.
func (b *Box) Settings() Settings {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.count()
	s := b.settings
	s.CPUs, s.Missing = slices.Clone(s.CPUs), slices.Clone(s.Missing)
	return s
}

// count brings the counters up to date; after Close they are final.
func (b *Box) count() {
	if b.group == nil || b.closed {
		return
	}
	c := b.group.counts()
	b.settings.Throttled, b.settings.Periods, b.settings.ThrottledPeriods = c.throttled, c.periods, c.throttledPeriods
	b.settings.OOMKilled = c.oomKills > 0
}

// Close ends everything inside and leaves nothing behind. It may be called
// again, and then returns the same.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.closeErr
	}
	b.count()
	b.closed = true
	var errs []error
	deadline := time.After(closeTimeout)
	await := func(done <-chan struct{}, what string) {
		select {
		case <-done:
		case <-deadline:
			deadline = time.After(0)
			errs = append(errs, fmt.Errorf("%s is still there %v after SIGKILL", what, closeTimeout))
		}
	}
	if b.dog != nil {
		b.dog.kill()
	} else {
		b.killSessions()
	}
	for _, p := range b.held {
		await(p.reaped, fmt.Sprintf("process %d", p.pid))
		p.output.close()
		await(p.done, fmt.Sprintf("the output of process %d", p.pid))
		p.forget()
	}
	if b.dog != nil {
		await(b.dog.gone, "the box's first process")
		b.dog.close()
	}
	if b.spawner != nil {
		b.spawner.stop()
	}
	errs = append(errs, b.group.remove(), b.copies.remove(), b.null.Close())
	if err := errors.Join(errs...); err != nil {
		b.closeErr = fmt.Errorf("end the box: %w", err)
	}
	return b.closeErr
}
