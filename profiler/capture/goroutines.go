package capture

import (
	"errors"

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
	close func() error
}

// AttachGoroutines watches the goroutines of a subject from now on, instead of
// those of the last call. A nil plan watches none, and why says so in Probes.
func (t *Tracer) AttachGoroutines(plan *probe.Goroutines, why error) {
	if t.goroutines.close != nil {
		_ = t.goroutines.close() // detaching cannot be helped
	}
	t.goroutines = goroutines{}
	if t.opts.NoGoroutines {
		return
	}
	p := Probe{Name: probeGoroutines}
	if t.opts.CheapGoroutines {
		p.Name = probeGoroutinesCheap
	}
	if why == nil && plan != nil {
		why = t.watchGoroutines(*plan)
	}
	if why != nil {
		p.Reason = why.Error()
	}
	t.goroutines.probe = []Probe{p}
}

func (t *Tracer) watchGoroutines(plan probe.Goroutines) error {
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
	if !t.opts.CheapGoroutines {
		if err := t.attachTransitions(plan.Path, plan.Offset); err != nil {
			return err
		}
	}
	t.goroutines.plan = &plan
	return nil
}

// attachTransitions puts the one uprobe on the subject's scheduler.
func (t *Tracer) attachTransitions(path string, offset uint64) error {
	executable, err := link.OpenExecutable(path)
	if err != nil {
		return err
	}
	if multi := t.collection.Programs["goroutine_multi"]; multi != nil && !t.marks.withoutMulti {
		l, err := executable.UprobeMulti(nil, multi, &link.UprobeMultiOptions{Addresses: []uint64{offset}})
		if err == nil {
			t.goroutines.close = l.Close
			t.watchMisses(multi)
			return nil
		}
		// Kernels before 6.6 load the program and refuse only here.
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		t.marks.withoutMulti = true
	}
	single, err := t.program("goroutine_single")
	if err != nil {
		return err
	}
	l, err := executable.Uprobe("", single, &link.UprobeOptions{Address: offset})
	if err != nil {
		return err
	}
	t.goroutines.close = l.Close
	t.watchMisses(single)
	return nil
}
