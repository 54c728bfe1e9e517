package capture

import (
	"fmt"
	"os"
	"strings"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/profiler/probe"
)

// Probe is one thing that was to be attached.
type Probe struct {
	Name   string // such as "sys_enter", "cpu-clock", "checkpoint.mark"
	Reason string // why it is unavailable; empty: it is attached
	Hits   uint64 // runs for the subject, of all cold starts so far; 0 for uprobes, whose hits are events
}

// Probes lists what was to be attached and what became of it.
func (t *Tracer) Probes() []Probe {
	all := append([]Probe(nil), t.probes...)
	all = append(all, t.points.probes...)
	return append(all, t.goroutines.probe...)
}

// Families of probes, as they are counted by the programs.
const (
	probeSyscalls = "raw_syscalls"
	probeSched    = "sched"
	probeFaults   = "page-faults"
	probeClock    = "cpu-clock"
	probeMmap     = "mmap"
)

func (t *Tracer) updateHits(h Hits) {
	for i := range t.probes {
		p := &t.probes[i]
		switch {
		case p.Reason != "":
		case strings.HasPrefix(p.Name, probeSyscalls):
			p.Hits += h.Syscalls
		case p.Name == probeSched:
			p.Hits += h.Sched
		case p.Name == probeFaults:
			p.Hits += h.Faults
		case p.Name == probeClock:
			p.Hits += h.Samples
		}
	}
	for i := range t.goroutines.probe {
		t.goroutines.probe[i].Hits += h.Goroutines
	}
}

// What makes a thread known (the announcement, fork, exec, exit) is
// indispensable; the rest is not.
var indispensable = []string{"sys_enter", "sched_process_fork", "sched_process_exec", "sched_process_exit"}

// attach attaches all that does not depend on the subject.
func (t *Tracer) attach() error {
	if err := t.attachTracing(indispensable...); err != nil {
		return err
	}
	if !t.opts.NoSyscalls {
		t.family(probeSyscalls, t.attachTracing("sys_exit"))
	}
	if !t.opts.NoSched {
		t.family(probeSched, t.attachTracing("sched_switch", "sched_waking"))
		t.family("wake contexts", t.attachTracing("softirq_entry", "softirq_exit", "hrtimer_expire_entry",
			"hrtimer_expire_exit", "irq_handler_entry", "irq_handler_exit"))
	}
	if !t.opts.NoFaults {
		t.family(probeFaults, t.attachFaults())
	}
	if !t.opts.NoSamples {
		t.family(probeClock, t.attachClocks())
	}
	t.family(probeMmap, t.openMmaps())
	return nil
}

// program returns a loaded program, or why the kernel refused it.
func (t *Tracer) program(name string) (*ebpf.Program, error) {
	if p := t.collection.Programs[name]; p != nil {
		return p, nil
	}
	return nil, t.refused[name]
}

// family notes what became of a family of probes.
func (t *Tracer) family(name string, err error) {
	p := Probe{Name: name}
	if err != nil {
		p.Reason = err.Error()
	}
	t.probes = append(t.probes, p)
}

func (t *Tracer) attachTracing(names ...string) error {
	for _, name := range names {
		p, err := t.program(name)
		if err != nil {
			return err
		}
		l, err := link.AttachTracing(link.TracingOptions{Program: p})
		if err != nil {
			return fmt.Errorf("attach %s: %w", name, err)
		}
		t.links = append(t.links, l.Close)
		t.linked = append(t.linked, name)
		t.watchMisses(p)
	}
	return nil
}

// relink attaches again what New found to be attachable.
func (t *Tracer) relink() error {
	names := t.linked
	t.linked = nil
	return t.attachTracing(names...)
}

// unlink takes off all that costs whoever runs on this machine, so that nothing
// is left in the untraced cold starts between and in what comes behind /next.
// Each waits until nobody runs it any more; together they wait once.
func (t *Tracer) unlink() error {
	links := append(t.links, t.points.closers...)
	t.links, t.points.closers = nil, nil
	var g errgroup.Group
	for _, detach := range links {
		g.Go(detach)
	}
	g.Go(t.stopGoroutines)
	return g.Wait()
}

// watchMisses remembers how often the kernel had skipped p up to now.
func (t *Tracer) watchMisses(p *ebpf.Program) {
	t.missed[p] = 0
	if stats, err := p.Stats(); err == nil {
		t.missed[p] = stats.RecursionMisses
	}
}

func (t *Tracer) attachFaults() error {
	// The ends first: an end without a begin is counted, a begin without an end is noise.
	if err := t.attachFault(unix.PERF_COUNT_SW_PAGE_FAULTS_MIN, "fault_minor"); err != nil {
		return err
	}
	if err := t.attachFault(unix.PERF_COUNT_SW_PAGE_FAULTS_MAJ, "fault_major"); err != nil {
		return err
	}
	// Tracepoints of x86 kernels tell of the begin at half the cost.
	if t.collection.Programs["page_fault_user"] != nil && t.attachTracing("page_fault_kernel", "page_fault_user") == nil {
		return nil
	}
	return t.attachFault(unix.PERF_COUNT_SW_PAGE_FAULTS, "fault_begin")
}

// attachFault runs a program at each of perf's software events on each CPU.
func (t *Tracer) attachFault(config uint64, program string) error {
	for _, cpu := range t.opts.CPUs {
		fd, err := t.openSoftware(config, 1, cpu, program)
		if err != nil {
			return err
		}
		t.faults = append(t.faults, fd)
	}
	return nil
}

func (t *Tracer) enableFaults() error {
	for _, fd := range t.faults {
		if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_ENABLE, 0); err != nil {
			return fmt.Errorf("enable page faults: %w", err)
		}
	}
	return nil
}

func (t *Tracer) attachClocks() error {
	period := uint64(1e9) / uint64(t.opts.SampleHz)
	for _, cpu := range t.opts.CPUs {
		fd, err := t.openSoftware(unix.PERF_COUNT_SW_CPU_CLOCK, period, cpu, "sample")
		if err != nil {
			return err
		}
		t.clocks = append(t.clocks, fd)
	}
	return nil
}

// openSoftware opens a disabled software event of one CPU that runs a program.
func (t *Tracer) openSoftware(config, period uint64, cpu int, name string) (int, error) {
	program, err := t.program(name)
	if err != nil {
		return 0, err
	}
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: config, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample: period, Bits: unix.PerfBitDisabled,
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("open a software event on CPU %d: %w", cpu, err)
	}
	t.closers = append(t.closers, func() error { return os.NewSyscallError("close", unix.Close(fd)) })
	if err := unix.IoctlSetInt(fd, unix.PERF_EVENT_IOC_SET_BPF, program.FD()); err != nil {
		return 0, fmt.Errorf("run %s on a software event: %w", name, err)
	}
	return fd, nil
}

func (t *Tracer) openMmaps() error {
	for _, cpu := range t.opts.CPUs {
		m, err := openMmapRing(cpu)
		if err != nil {
			return err
		}
		t.closers = append(t.closers, m.close)
		t.mmaps = append(t.mmaps, m)
	}
	return nil
}

// TrustFramePointers walks the stacks of code that is known to keep frame
// pointers by them, in all cold starts to come. All others are copied, which
// costs more, and unwound.
func (t *Tracer) TrustFramePointers(f probe.Framed) error {
	t.framed = f
	return t.set(map[string]any{
		"framed_program": f.Program, "framed_begin": f.Begin, "framed_size": f.Size,
		"callback_begin": f.CallbackBegin, "callback_size": f.CallbackSize,
		"g_in_thread": f.GInThread,
	})
}
