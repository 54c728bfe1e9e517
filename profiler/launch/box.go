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

// ErrClosed is returned by the methods of a Box after Close.
var ErrClosed = errors.New("the box is closed")

// closeTimeout bounds how long Close waits for the kernel to end the processes.
const closeTimeout = 5 * time.Second

// defaultPeriod is the kernel's own default (kernel/sched/fair.c,
// sched_cfs_bandwidth): Lambda does not publish its period.
const defaultPeriod = 100 * time.Millisecond

// defaultVisibleCPUs is what a Lambda environment shows below about 3 GB.
const defaultVisibleCPUs = 2

// Options say what a Box is like. The zero value has own PID and mount
// namespaces, the host's network, two visible CPUs, and no quota.
type Options struct {
	Isolated    bool          // own network namespace, in which only lo exists
	User        *User         // of the processes; nil: the user of initprof
	VisibleCPUs int           // cpuset: the first so many CPUs; 0 means 2
	CPUQuota    float64       // CPUs' worth of time per period; 0 means no quota
	CPUPeriod   time.Duration // of the quota; 0 means 100 ms
	MemoryMB    int           // limit of all processes together, no swap beside it; 0 means none
	NoLimits    bool          // no cgroup at all: all CPUs, no quota, no limit

	// Hosts are added to /etc/hosts inside: name → address. The name
	// sandbox.localdomain → 127.0.0.1 is always there.
	Hosts map[string]string

	// Copies are files that are bound over by private copies, whose pages
	// nobody else keeps in memory; see ResidualPages. They need namespaces.
	Copies []string
}

// Missing is a part of the environment that this host does not allow.
type Missing struct {
	What   string // "namespaces", "cgroup", "cpuset", "cpu quota", "memory limit", …
	Reason string
}

// Settings are what a Box is, as opposed to what was asked for.
type Settings struct {
	Namespaces bool // own PID and mount namespaces, a watchdog in them
	Isolated   bool // own network namespace
	User       User

	CgroupVersion int // 1, 2; 0: no cgroup
	CPUs          []int
	CPUQuota      float64       // 0: none
	CPUPeriod     time.Duration // 0: none
	MemoryBytes   int64         // 0: no limit

	Periods          uint64 // of the quota, so far, in which something ran
	ThrottledPeriods uint64
	Throttled        time.Duration // time for which processes were kept from running, so far
	OOMKills         uint64        // processes killed for the memory limit, so far

	Missing []Missing // what was asked for and cannot be had here
}

// Box is an execution environment: what Lambda calls a sandbox's inside. Its
// methods may be called from several goroutines.
type Box struct {
	name     string
	options  Options
	settings Settings
	dog      *watchdog // nil: a plain box
	group    *group    // nil: no cgroup
	guard    *guard    // of a plain box
	spawner  *spawner  // of a plain box
	copies   *copies
	null     *os.File
	opened   time.Time

	mu        sync.Mutex
	closed    bool
	closeErr  error
	processes []*Process
}

var boxes atomic.Int64

// New makes a box. What the host does not allow is no error, but stands in
// Settings().Missing. The context bounds only the making.
func New(ctx context.Context, opts Options) (*Box, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := opts.check(); err != nil {
		return nil, err
	}
	started()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	b := &Box{
		name: fmt.Sprintf("%s%d-%d", boxPrefix, os.Getpid(), boxes.Add(1)), options: opts, null: null, opened: time.Now(),
	}
	b.settings.User = *currentUser()
	if opts.User != nil {
		b.settings.User = *opts.User
	}
	b.limit()
	if err := b.isolate(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (o *Options) check() error {
	switch {
	case o.VisibleCPUs < 0:
		return fmt.Errorf("visible CPUs: %d is negative", o.VisibleCPUs)
	case o.CPUQuota < 0:
		return fmt.Errorf("CPU quota: %v is negative", o.CPUQuota)
	case o.CPUPeriod != 0 && (o.CPUPeriod < time.Millisecond || o.CPUPeriod > time.Second):
		return fmt.Errorf("CPU period: %v is not within 1ms and 1s", o.CPUPeriod)
	case o.MemoryMB < 0:
		return fmt.Errorf("memory: %d MB is negative", o.MemoryMB)
	case o.User != nil && os.Geteuid() != 0 && int(o.User.UID) != os.Geteuid():
		return fmt.Errorf("running the subject as %s needs root", o.User)
	}
	for name, address := range o.Hosts {
		if strings.ContainsAny(name+address, " \t\r\n#") || name == "" || address == "" {
			return fmt.Errorf("hosts entry %q → %q: neither may be empty or hold spaces", name, address)
		}
	}
	for _, path := range o.Copies {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("private copy of %q: the path must be absolute", path)
		}
	}
	return nil
}

func (b *Box) lacks(what string, reason error) {
	b.settings.Missing = append(b.settings.Missing, Missing{what, reason.Error()})
}

// limit makes the cgroup.
func (b *Box) limit() {
	b.settings.CPUs = started().cpus
	if b.options.NoLimits {
		return
	}
	want := limits{period: b.options.CPUPeriod, quota: b.options.CPUQuota, memory: int64(b.options.MemoryMB) << 20}
	if want.period == 0 {
		want.period = defaultPeriod
	}
	visible := b.options.VisibleCPUs
	if visible == 0 {
		visible = defaultVisibleCPUs
	}
	if len(b.settings.CPUs) < visible {
		b.lacks("cpuset", fmt.Errorf("%d CPUs asked for, the host lets initprof use %d", visible, len(b.settings.CPUs)))
	}
	want.cpus = b.settings.CPUs[:min(visible, len(b.settings.CPUs))]
	b.settings.CPUs = slices.Clone(want.cpus) // at least by affinity

	var missing []Missing
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
		b.settings.MemoryBytes = want.memory
	}
}

// isolate makes the namespaces, or what is left to do without them.
func (b *Box) isolate() error {
	err := b.startWatchdog()
	if err == nil {
		b.settings.Namespaces, b.settings.Isolated = true, b.options.Isolated
		return nil
	}
	if os.Geteuid() != 0 {
		err = fmt.Errorf("they need root (%w)", err)
	}
	b.lacks("namespaces", err)
	if b.options.Isolated {
		b.lacks("isolated network", errors.New("it needs namespaces; the subject's ports are the host's"))
	}
	if len(b.options.Copies) > 0 {
		b.lacks("private copies", errors.New("they need namespaces"))
	}
	if err := b.copies.remove(); err != nil {
		return err
	}
	b.copies = nil
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		b.lacks("subreaper", err)
	}
	b.spawner = newSpawner()
	b.guard, err = startGuard()
	if err != nil {
		b.lacks("guard", err)
	}
	return nil
}

func (b *Box) startWatchdog() error {
	if os.Geteuid() != 0 {
		return unix.EPERM
	}
	w := &watching{network: b.options.Isolated, hosts: hostsFile(b.options.Hosts)}
	if len(b.options.Copies) > 0 {
		var err error
		if b.copies, err = newCopies(b.name, b.options.Copies); err != nil {
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

// hostsFile is /etc/hosts inside: ours first, then the host's.
func hostsFile(more map[string]string) []byte {
	var text strings.Builder
	text.WriteString("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.0.1\tsandbox.localdomain sandbox\n")
	names := make([]string, 0, len(more))
	for name := range more {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		fmt.Fprintf(&text, "%s\t%s\n", more[name], name)
	}
	host, err := os.ReadFile("/etc/hosts")
	if err == nil && len(host) < 1<<20 {
		text.Write(host)
	}
	return []byte(text.String())
}

// Settings tells what the box is, with the throttling so far.
func (b *Box) Settings() Settings {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.readGroup()
	s := b.settings
	s.CPUs, s.Missing = slices.Clone(s.CPUs), slices.Clone(s.Missing)
	return s
}

// readGroup brings the counters up to date; after Close they are final.
func (b *Box) readGroup() {
	if b.group == nil || b.closed {
		return
	}
	counts := b.group.counts()
	b.settings.Periods, b.settings.ThrottledPeriods = counts.periods, counts.throttledPeriods
	b.settings.Throttled, b.settings.OOMKills = counts.throttled, counts.oomKills
}

// Close ends everything inside and takes the box away. It returns an error when
// something could not be removed. Later calls return what the first returned.
func (b *Box) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return b.closeErr
	}
	b.readGroup()
	b.closed = true
	var errs []error
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	await := func(done <-chan struct{}, what string) {
		select {
		case <-done:
		case <-timeout.C:
			timeout.Reset(0)
			errs = append(errs, fmt.Errorf("%s is still there %v after SIGKILL", what, closeTimeout))
		}
	}
	if b.dog != nil {
		b.dog.kill()
	} else {
		b.killSessions()
	}
	for _, p := range b.processes {
		await(p.reaped, fmt.Sprintf("process %d", p.pid))
	}
	if b.dog != nil {
		await(b.dog.gone, "the watchdog")
		b.dog.close()
	}
	for _, p := range b.processes {
		p.closeOutput()
		await(p.done, fmt.Sprintf("the output of process %d", p.pid))
		p.closePidfd()
	}
	if b.spawner != nil {
		b.spawner.stop()
	}
	b.guard.dismiss()
	errs = append(errs, b.group.remove(), b.copies.remove(), b.null.Close())
	b.closeErr = errors.Join(errs...)
	return b.closeErr
}
