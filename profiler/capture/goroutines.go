package capture

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/probe"
)

// Names of the probes of goroutines.
const (
	probeGoroutines      = "goroutines"
	probeGoroutinesCheap = "goroutines (cheap)"
)

// goroutines is what sits in the subject's scheduler.
type goroutines struct {
	plan  *probe.Goroutines // nil: they are not watched
	probe []Probe           // what became of it; empty where nobody asked
	close func() error      // while a cold start is traced
}

// WatchGoroutines watches the goroutines of a subject in the cold starts to
// come, instead of those of the last call. A nil plan watches none, and why
// says so in Probes.
func (t *Tracer) WatchGoroutines(plan *probe.Goroutines, why error) {
	t.goroutines = goroutines{}
	if t.opts.NoGoroutines {
		return
	}
	p := Probe{Name: probeGoroutines}
	if t.opts.CheapGoroutines {
		p.Name = probeGoroutinesCheap
	}
	if why == nil && plan != nil {
		t.goroutines.plan = plan
		if why = t.startGoroutines(); why == nil {
			why = t.stopGoroutines()
		}
	}
	if why != nil {
		t.goroutines.plan = nil
		p.Reason = why.Error()
	}
	t.goroutines.probe = []Probe{p}
}

// startGoroutines attaches for one cold start: a uprobe costs whoever runs the
// same file, and so the untraced cold starts between, and what comes behind /next.
func (t *Tracer) startGoroutines() error {
	plan := t.goroutines.plan
	if plan == nil {
		return t.set(map[string]any{"layout": bpf.InitprofGoLayout{}})
	}
	l := plan.Layout
	out := bpf.InitprofGoLayout{
		Goid: l.ID, Waitreason: l.WaitReason, Parent: l.Parent, Gopc: l.CreatedPC, Startpc: l.StartPC,
		M: l.M, SchedSp: l.SchedSP, SchedPc: l.SchedPC, SchedBp: l.SchedBP, M_procid: l.MThread, M_curg: l.MCurrent, Tls: l.TLS,
	}
	if t.opts.CheapGoroutines {
		if plan.CheapMissing != "" {
			return errors.New(plan.CheapMissing)
		}
		out.Cheap = 1
	}
	if err := t.set(map[string]any{"layout": out}); err != nil {
		return err
	}
	if t.opts.CheapGoroutines {
		return nil
	}
	link, program, err := t.attachTransitions(cmp.Or(plan.File, plan.Path), plan.Offset)
	if err != nil {
		return fmt.Errorf("probe the scheduler of %s: %w", plan.Path, err)
	}
	t.goroutines.close = link.Close
	t.watchMisses(program)
	return nil
}

func (t *Tracer) stopGoroutines() error {
	if t.goroutines.close == nil {
		return nil
	}
	err := t.goroutines.close()
	t.goroutines.close = nil
	return err
}

// attachTransitions puts the one uprobe on the subject's scheduler.
func (t *Tracer) attachTransitions(path string, offset uint64) (link.Link, *ebpf.Program, error) {
	executable, err := link.OpenExecutable(path)
	if err != nil {
		return nil, nil, err
	}
	if multi := t.collection.Programs["goroutine_multi"]; multi != nil && !t.points.withoutMulti {
		l, err := executable.UprobeMulti(nil, multi, &link.UprobeMultiOptions{Addresses: []uint64{offset}})
		if err == nil {
			return l, multi, nil
		}
		// Kernels before 6.6 load the program and refuse only here.
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return nil, nil, err
		}
		t.points.withoutMulti = true
	}
	single, err := t.program("goroutine_single")
	if err != nil {
		return nil, nil, err
	}
	l, err := executable.Uprobe("", single, &link.UprobeOptions{Address: offset})
	return l, single, err
}
