package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	stats1 "github.com/containerd/cgroups/v3/cgroup1/stats"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// boxPrefix begins the name of every cgroup and directory of a box; the PID of
// initprof and a number follow.
const boxPrefix = "initprof-"

const cgroupRoot = "/sys/fs/cgroup"

// limits are what a box's cgroup is to enforce.
type limits struct {
	cpus   []int
	quota  float64 // 0: none
	period time.Duration
	memory int64 // bytes; 0: none
}

func (l *limits) quotaMicroseconds() int64 {
	return max(int64(l.quota*float64(l.period.Microseconds())), 1000) // the kernel's minimum
}

// group is the cgroup of a box: one directory in cgroup v2, one for each
// controller in v1.
type group struct {
	version       int
	name          string
	dirs          []string
	lock          *os.File   // flock on the first directory: the owner lives
	joins         []*os.File // v1: tasks files
	dir2, procs2  *os.File   // v2
	quota, memory bool       // in force
	manager       *cgroup2.Manager
}

// counters are what a cgroup has counted.
type counters struct {
	periods, throttledPeriods uint64
	throttled                 time.Duration
	oomKills                  uint64
}

// newGroup makes the cgroup with as many of the limits as the host allows. It
// returns nil when none can be had at all.
func newGroup(name string, want limits) (*group, []string) {
	switch cgroups.Mode() {
	case cgroups.Unavailable:
		return nil, []string{"limits: " + cgroupRoot + " is not mounted"}
	case cgroups.Unified:
		return newGroup2(cgroupRoot, name, want)
	default: // the controllers of a hybrid hierarchy are in v1
		return newGroup1(cgroupRoot, name, want)
	}
}

// newGroup1 makes one directory in each controller that is needed.
func newGroup1(root, name string, want limits) (*group, []string) {
	g := &group{version: 1, name: name}
	var missing []string
	path := "/" + name
	add := func(what string, controller cgroup1.Name, create func() error) bool {
		err := g.addController(filepath.Join(root, string(controller)), create)
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: cgroup v1 controller %s: %v", what, controller, err))
		}
		return err == nil
	}
	if want.quota > 0 {
		quota, period := want.quotaMicroseconds(), uint64(want.period.Microseconds())
		g.quota = add("cpu quota", cgroup1.Cpu, func() error {
			return cgroup1.NewCpu(root).Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Quota: &quota, Period: &period}})
		})
	}
	add("visible CPUs", cgroup1.Cpuset, func() error {
		return cgroup1.NewCpuset(root).Create(path, &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpuList(want.cpus)}})
	})
	if want.memory > 0 {
		g.memory = add("memory limit", cgroup1.Memory, func() error {
			err := cgroup1.NewMemory(root).Create(path, &specs.LinuxResources{Memory: &specs.LinuxMemory{Limit: &want.memory}})
			if err == nil {
				// Without swap accounting there is no such file, and no harm.
				_ = os.WriteFile(filepath.Join(root, "memory", name, "memory.memsw.limit_in_bytes"),
					[]byte(strconv.FormatInt(want.memory, 10)), 0)
			}
			return err
		})
	}
	if len(g.dirs) == 0 {
		return nil, missing
	}
	return g, missing
}

// addController makes the group in one v1 hierarchy; on failure nothing of it
// remains.
func (g *group) addController(hierarchy string, create func() error) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(hierarchy, &fs); err != nil || fs.Type != unix.CGROUP_SUPER_MAGIC {
		return errors.New("not mounted at " + hierarchy)
	}
	dir := filepath.Join(hierarchy, g.name)
	if err := g.mkdir(dir); err != nil {
		return err
	}
	err := create()
	var tasks *os.File
	if err == nil {
		tasks, err = os.OpenFile(filepath.Join(dir, "tasks"), os.O_WRONLY, 0)
	}
	if err != nil {
		g.dirs = g.dirs[:len(g.dirs)-1]
		if len(g.dirs) == 0 {
			_ = g.lock.Close()
			g.lock = nil
		}
		return errors.Join(err, os.Remove(dir))
	}
	g.joins = append(g.joins, tasks)
	return nil
}

// mkdir makes a directory of the group and locks the first one.
func (g *group) mkdir(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	if g.lock == nil {
		lock, err := lockDir(dir, 0)
		if err != nil {
			return errors.Join(err, os.Remove(dir))
		}
		g.lock = lock
	}
	g.dirs = append(g.dirs, dir)
	return nil
}

// lockDir takes the lock that says that a directory's owner lives; how is 0 to
// wait for others that look at it, or LOCK_NB. The kernel releases it whatever
// ends the owner.
func lockDir(dir string, how int) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|how); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return f, nil
}

// newGroup2 makes the directory in the unified hierarchy, at its root: only
// there may a group have neighbours that are processes.
func newGroup2(root, name string, want limits) (*group, []string) {
	g := &group{version: 2, name: name}
	fail := func(err error) (*group, []string) {
		return nil, []string{"limits: cgroup v2: " + err.Error()}
	}
	dir := filepath.Join(root, name)
	if err := g.mkdir(dir); err != nil {
		return fail(err)
	}
	var err error
	if g.manager, err = cgroup2.Load("/"+name, cgroup2.WithMountpoint(root)); err == nil {
		if g.dir2, err = os.Open(dir); err == nil {
			g.procs2, err = os.OpenFile(filepath.Join(dir, "cgroup.procs"), os.O_WRONLY, 0)
		}
	}
	if err != nil {
		return fail(errors.Join(err, g.remove()))
	}
	var missing []string
	set := func(what, controller string, r *cgroup2.Resources) bool {
		err := g.manager.ToggleControllers([]string{controller}, cgroup2.Enable)
		// What counts is whether the controller is there: the write also fails
		// where it may not be enabled but is.
		if err == nil || g.has(controller) {
			err = g.manager.Update(r)
		}
		if err != nil {
			missing = append(missing, fmt.Sprintf("%s: cgroup v2 controller %s: %v", what, controller, err))
		}
		return err == nil
	}
	set("visible CPUs", "cpuset", &cgroup2.Resources{CPU: &cgroup2.CPU{Cpus: cpuList(want.cpus)}})
	if want.quota > 0 {
		quota, period := want.quotaMicroseconds(), uint64(want.period.Microseconds())
		g.quota = set("cpu quota", "cpu", &cgroup2.Resources{CPU: &cgroup2.CPU{Max: cgroup2.NewCPUMax(&quota, &period)}})
	}
	if want.memory > 0 {
		g.memory = set("memory limit", "memory", &cgroup2.Resources{Memory: &cgroup2.Memory{Max: &want.memory}})
		if g.memory {
			_ = os.WriteFile(filepath.Join(dir, "memory.swap.max"), []byte("0"), 0) // absent without swap accounting
		}
	}
	return g, missing
}

// has tells whether a v2 controller is active in the group.
func (g *group) has(controller string) bool {
	active, err := g.manager.Controllers()
	if err != nil {
		return false
	}
	for _, c := range active {
		if c == controller {
			return true
		}
	}
	return false
}

// counts reads the counters; what cannot be read is 0.
func (g *group) counts() (c counters) {
	if g.version == 2 {
		m, err := g.manager.StatFiltered(cgroup2.StatCPU | cgroup2.StatMemoryEvents)
		if err != nil {
			return c
		}
		c.periods, c.throttledPeriods = m.CPU.GetNrPeriods(), m.CPU.GetNrThrottled()
		c.throttled = time.Duration(m.CPU.GetThrottledUsec()) * time.Microsecond
		c.oomKills = m.MemoryEvents.GetOomKill()
		return c
	}
	path := "/" + g.name
	if g.quota {
		m := stats1.Metrics{CPU: &stats1.CPUStat{Throttling: &stats1.Throttle{}}}
		if cgroup1.NewCpu(cgroupRoot).Stat(path, &m) == nil {
			t := m.CPU.Throttling
			c.periods, c.throttledPeriods, c.throttled = t.Periods, t.ThrottledPeriods, time.Duration(t.ThrottledTime)
		}
	}
	if g.memory {
		m := stats1.Metrics{}
		if cgroup1.NewMemory(cgroupRoot, cgroup1.OptionalSwap()).Stat(path, &m) == nil {
			c.oomKills = m.MemoryOomControl.GetOomKill()
		}
	}
	return c
}

// remove takes the directories away, once their processes are gone: the kernel
// takes its time to let go of the last one.
func (g *group) remove() error {
	if g == nil {
		return nil
	}
	for _, f := range append(g.joins, g.dir2, g.procs2) {
		if f != nil {
			_ = f.Close()
		}
	}
	var errs []error
	for _, dir := range g.dirs {
		errs = append(errs, removeGroup(dir))
	}
	if g.lock != nil {
		_ = g.lock.Close()
	}
	g.dirs = nil
	return errors.Join(errs...)
}

func removeGroup(dir string) error {
	wait := 100 * time.Microsecond
	for deadline := time.Now().Add(2 * time.Second); ; {
		err := unix.Rmdir(dir)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) || time.Now().After(deadline) {
			return fmt.Errorf("remove the cgroup %s: %w", dir, err)
		}
		time.Sleep(wait)
		wait = min(2*wait, 20*time.Millisecond)
	}
}
