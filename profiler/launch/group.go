package launch

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/cgroups/v3"
	"github.com/containerd/cgroups/v3/cgroup1"
	"github.com/containerd/cgroups/v3/cgroup2"
	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// group is the cgroup of a box, of either version.
type group interface {
	add(pid int) error
	counts() (throttled time.Duration, oomKilled bool)
	remove() error
}

const (
	groupPrefix = "initprof-"
	cfsPeriod   = 100 * time.Millisecond // the kernel's default, and Lambda's as far as it can be seen
	groupRoot   = "/sys/fs/cgroup"
)

var groups atomic.Int64

// newGroup makes the cgroup of a box. Limits that cannot be had are listed in
// the settings.
func newGroup(opts Options, s Settings) (group, Settings) {
	name := fmt.Sprintf("%s%d-%d", groupPrefix, os.Getpid(), groups.Add(1))
	cpus, err := visibleCPUs(opts.CPUs)
	if err != nil {
		s.Missing = append(s.Missing, fmt.Sprintf("limits: %v", err))
		return nil, s
	}
	if cgroups.Mode() == cgroups.Unified {
		g, err := newGroup2(name, opts, cpus)
		if err != nil {
			s.Missing = append(s.Missing, fmt.Sprintf("limits: %v", err))
			return nil, s
		}
		s.CgroupVersion = 2
		return g, limits(s, opts, cpus)
	}
	g, missing := newGroup1(name, opts, cpus)
	s.Missing = append(s.Missing, missing...)
	if g == nil {
		return nil, s
	}
	s.CgroupVersion = 1
	return g, limits(s, opts, cpus)
}

func limits(s Settings, opts Options, cpus []int) Settings {
	s.CPUs, s.MemoryMB = cpus, opts.MemoryMB
	if opts.CPUQuota > 0 {
		s.CPUQuota, s.CPUPeriod = opts.CPUQuota, cfsPeriod
	}
	return s
}

// visibleCPUs are the first n that this process may use; all of them for 0.
func visibleCPUs(n int) ([]int, error) {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return nil, fmt.Errorf("ask for the allowed CPUs: %w", err)
	}
	var cpus []int
	for cpu := range 1024 {
		if set.IsSet(cpu) && (n == 0 || len(cpus) < n) {
			cpus = append(cpus, cpu)
		}
	}
	return cpus, nil
}

func cpuList(cpus []int) string {
	list := make([]string, len(cpus))
	for i, cpu := range cpus {
		list[i] = strconv.Itoa(cpu)
	}
	return strings.Join(list, ",")
}

// quota returns quota and period in µs.
func quota(cpus float64) (int64, uint64) {
	period := uint64(cfsPeriod / time.Microsecond)
	return int64(cpus * float64(period)), period
}

type group1 struct {
	cgroup cgroup1.Cgroup
	name   string
}

func newGroup1(name string, opts Options, cpus []int) (group, []string) {
	var missing []string
	resources := &specs.LinuxResources{CPU: &specs.LinuxCPU{Cpus: cpuList(cpus)}}
	if opts.CPUQuota > 0 {
		q, p := quota(opts.CPUQuota)
		resources.CPU.Quota, resources.CPU.Period = &q, &p
	}
	if opts.MemoryMB > 0 {
		limit := int64(opts.MemoryMB) << 20
		resources.Memory = &specs.LinuxMemory{Limit: &limit}
	}
	hierarchy := func() ([]cgroup1.Subsystem, error) {
		all, err := cgroup1.Default()
		if err != nil {
			return nil, err
		}
		var wanted []cgroup1.Subsystem
		for _, s := range all {
			switch s.Name() {
			case cgroup1.Cpu, cgroup1.Cpuset, cgroup1.Memory:
				wanted = append(wanted, s)
			}
		}
		return wanted, nil
	}
	c, err := cgroup1.New(cgroup1.StaticPath("/"+name), resources, cgroup1.WithHierarchy(hierarchy))
	if err != nil {
		return nil, []string{fmt.Sprintf("limits: %v", err)}
	}
	have := map[cgroup1.Name]bool{}
	for _, s := range c.Subsystems() {
		have[s.Name()] = true
	}
	for _, want := range []cgroup1.Name{cgroup1.Cpu, cgroup1.Cpuset, cgroup1.Memory} {
		if !have[want] {
			missing = append(missing, fmt.Sprintf("limit of %s: this kernel has no such controller", want))
		}
	}
	return &group1{cgroup: c, name: name}, missing
}

func (g *group1) add(pid int) error {
	return g.cgroup.AddProc(uint64(pid))
}

func (g *group1) counts() (time.Duration, bool) {
	stat := keyed(filepath.Join(groupRoot, "cpu", g.name, "cpu.stat"))
	oom := keyed(filepath.Join(groupRoot, "memory", g.name, "memory.oom_control"))
	return time.Duration(stat["throttled_time"]), oom["oom_kill"] > 0
}

func (g *group1) remove() error {
	// The kernel lets go of a dead process's cgroup a moment after its end.
	return retry(g.cgroup.Delete)
}

type group2 struct {
	manager *cgroup2.Manager
	path    string
}

func newGroup2(name string, opts Options, cpus []int) (group, error) {
	resources := &cgroup2.Resources{CPU: &cgroup2.CPU{Cpus: cpuList(cpus)}}
	if opts.CPUQuota > 0 {
		q, p := quota(opts.CPUQuota)
		resources.CPU.Max = cgroup2.NewCPUMax(&q, &p)
	}
	if opts.MemoryMB > 0 {
		limit := int64(opts.MemoryMB) << 20
		resources.Memory = &cgroup2.Memory{Max: &limit}
	}
	m, err := cgroup2.NewManager(groupRoot, "/"+name, resources)
	if err != nil {
		return nil, err
	}
	return &group2{manager: m, path: filepath.Join(groupRoot, name)}, nil
}

func (g *group2) add(pid int) error { return g.manager.AddProc(uint64(pid)) }

func (g *group2) counts() (time.Duration, bool) {
	stat := keyed(filepath.Join(g.path, "cpu.stat"))
	events := keyed(filepath.Join(g.path, "memory.events"))
	return time.Duration(stat["throttled_usec"]) * time.Microsecond, events["oom_kill"] > 0
}

func (g *group2) remove() error { return retry(g.manager.Delete) }

// keyed reads a file of "key number" lines. What cannot be read is zero.
func keyed(path string) map[string]uint64 {
	values := map[string]uint64{}
	b, err := os.ReadFile(path)
	if err != nil {
		return values
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if v, err := strconv.ParseUint(value, 10, 64); err == nil {
			values[key] = v
		}
	}
	return values
}

func retry(f func() error) (err error) {
	for wait := time.Millisecond; wait < 2*time.Second; wait *= 2 {
		if err = f(); err == nil || errors.Is(err, os.ErrNotExist) {
			return nil
		}
		time.Sleep(wait)
	}
	return err
}

// CleanStale removes the cgroups of initprof processes that died before they
// could. It returns how many it removed.
func CleanStale() int {
	removed := 0
	var dirs []string
	for _, pattern := range []string{groupRoot + "/" + groupPrefix + "*", groupRoot + "/*/" + groupPrefix + "*"} {
		found, _ := filepath.Glob(pattern) // the pattern is well-formed
		dirs = append(dirs, found...)
	}
	for _, dir := range dirs {
		owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), groupPrefix), "-")
		pid, err := strconv.Atoi(owner)
		if err != nil || unix.Kill(pid, 0) != unix.ESRCH {
			continue
		}
		if os.Remove(dir) == nil {
			removed++
		}
	}
	return removed
}
