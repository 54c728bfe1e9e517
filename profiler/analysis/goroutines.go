package analysis

import (
	"cmp"
	"fmt"
	"path"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/ledger"
	"github.com/initprof/initprof/profiler/stat"
	"github.com/initprof/initprof/profiler/trace"
)

// Goroutine is a goroutine of the subject inside the window. RunningNS is the
// sum of OnCPUNS, RunqueueNS and FaultNS; with RunnableNS, SyscallNS and all
// waits it is the part of the goroutine's life that lies in the window.
//
// Over several cold starts it is the n-th of its function and go statement,
// and the figures are means per cold start. Those without the goroutine count
// as 0.
type Goroutine struct {
	ID         uint64      `json:"id,omitzero"`        // absent over several cold starts, save the main one's
	Kind       string      `json:"kind"`               // one of the Kind constants
	Parent     uint64      `json:"parent"`             // ID of the creator; 0: none, or several cold starts
	CreatedBy  string      `json:"created_by"`         // function (file:line) of the go statement
	Function   string      `json:"function"`           //
	ReadyBy    string      `json:"ready_by,omitempty"` // what ended most of its waiting
	RunningNS  int64       `json:"running_ns"`
	OnCPUNS    int64       `json:"on_cpu_ns"`
	RunnableNS int64       `json:"runnable_ns"` // waiting for the Go scheduler
	RunqueueNS int64       `json:"runqueue_ns"` // its thread waiting for a CPU
	FaultNS    int64       `json:"fault_ns"`
	SyscallNS  int64       `json:"syscall_ns"`
	Waiting    []WaitedFor `json:"waiting"`
}

// WaitedFor is what a goroutine was parked for.
type WaitedFor struct {
	Reason  string `json:"reason"`
	NS      int64  `json:"ns"`
	ReadyBy string `json:"ready_by,omitempty"` // what ended most of it
}

// Kinds of goroutines.
const (
	KindMain      = "main"
	KindUser      = "user"
	KindGC        = "gc"        // marks, sweeps, scavenges, or starts it
	KindFinalizer = "finalizer" // runs finalizers and cleanups
	KindRuntime   = "runtime"   // any other that the runtime started for itself
)

// How goroutines were watched.
const (
	GoroutinesFull  = "full"
	GoroutinesCheap = "cheap"
)

// GoroutineKind tells a goroutine's kind by its first function.
func GoroutineKind(function string) string {
	name, ok := strings.CutPrefix(function, "runtime.")
	if !ok {
		return KindUser
	}
	switch {
	case name == "main":
		return KindMain
	case strings.HasPrefix(name, "gcBgMarkWorker"), strings.HasPrefix(name, "gcenable."), name == "bgsweep", name == "bgscavenge", name == "forcegchelper":
		return KindGC
	case name == "runfinq", name == "runFinalizers", strings.HasPrefix(name, "runCleanups"), strings.Contains(name, "cleanupQueue"):
		return KindFinalizer
	}
	return KindRuntime
}

// goroutineSums holds totals of goroutines over cold starts.
type goroutineSums struct {
	known bool // some cold start tells of goroutines
	cheap bool
	all   map[goroutineKey]*goroutineTotals
	// Of cheap mode: time on a CPU of threads that ran goroutines, and the part
	// of it that is a goroutine's.
	onCPU, seen int64
}

// goroutineKey names a goroutine alike over cold starts, in which IDs differ.
type goroutineKey struct {
	function, createdBy string
	ordinal             int // among those of the same cold start
}

type goroutineTotals struct {
	id, parent uint64
	states     [trace.GoStateCount]int64 // waiting is in waits
	waits      map[string]int64
	ended      map[string]map[string]int64 // waiting time by reason and what ended it
}

func newGoroutineSums() goroutineSums { return goroutineSums{all: map[goroutineKey]*goroutineTotals{}} }

func (s *goroutineSums) add(c ColdStart) {
	if c.Goroutines == "" {
		return
	}
	s.known = true
	s.cheap = s.cheap || c.Goroutines == GoroutinesCheap
	from, to := c.Phases.Start, c.Phases.End
	seen := map[goroutineKey]int{}
	threads := map[*trace.Thread]bool{}
	peers := ledger.NewPeers(ledger.Input{Timeline: c.Timeline, Phases: c.Phases, Goroutines: true})
	for _, g := range c.Timeline.Goroutines {
		key := goroutineKey{function: StartFunction(c.Names, g), createdBy: createdBy(c.Names, g)}
		var t *goroutineTotals
		for i := range g.Between(from, to) {
			if t == nil {
				seen[key]++
				key.ordinal = seen[key]
				t = s.totals(key)
				t.id, t.parent = g.ID, g.Parent
			}
			threads[i.Thread] = i.Thread != nil
			if i.State != trace.GoWaits {
				t.states[i.State] += i.NS()
				continue
			}
			t.waits[i.Reason] += i.NS()
			if i.Ready != nil {
				by := readyBy(c.Names, peers, g, i.Ready)
				if t.ended[i.Reason] == nil {
					t.ended[i.Reason] = map[string]int64{}
				}
				t.ended[i.Reason][by] += i.NS()
			}
		}
		if t != nil && s.cheap {
			for i := range g.Between(from, to) {
				if i.Thread != nil {
					s.seen += onCPU(i.Thread, i.Start, i.End)
				}
			}
		}
	}
	if s.cheap {
		for t, ran := range threads {
			if ran {
				s.onCPU += onCPU(t, from, to)
			}
		}
	}
}

func onCPU(t *trace.Thread, from, to int64) (ns int64) {
	for i := range t.Between(from, to) {
		if i.State.OnCPU() {
			ns += i.NS()
		}
	}
	return ns
}

func (s *goroutineSums) totals(key goroutineKey) *goroutineTotals {
	t := s.all[key]
	if t == nil {
		t = &goroutineTotals{waits: map[string]int64{}, ended: map[string]map[string]int64{}}
		s.all[key] = t
	}
	return t
}

const unknownFunction = "[unknown]"

// StartFunction names the first function of a goroutine.
func StartFunction(names Names, g *trace.GoroutineLife) string {
	if names == nil || g.StartPC == 0 {
		return unknownFunction
	}
	l := names.Resolve(g.PID, g.Start, g.StartPC, false, false)
	return cmp.Or(l.Function(), unknownFunction)
}

func createdBy(names Names, g *trace.GoroutineLife) string {
	if g.CreatedPC == 0 || g.Parent == 0 && g.ID == 1 { // the main one is made by assembly
		return ""
	}
	if names == nil {
		return unknownFunction
	}
	l := names.Resolve(g.PID, g.Start, g.CreatedPC, false, true)
	if len(l.Frames) == 0 {
		return unknownFunction
	}
	f := l.Frames[0]
	if f.File == "" {
		return f.Function
	}
	return fmt.Sprintf("%s (%s:%d)", f.Function, path.Base(f.File), f.Line)
}

// readyBy says what made a goroutine runnable: a goroutine by its function, the
// environment by what it answered.
func readyBy(names Names, peers *ledger.Peers, g *trace.GoroutineLife, r *trace.Ready) string {
	by := r.By
	if by == nil {
		switch peer := peers.Of(g, r); {
		case peer.Goroutine != nil:
			by = peer.Goroutine
		case peer.Thread != nil:
			return "thread " + peer.Thread.Label()
		case peer.Request != "":
			return "environment: answer of " + peer.Request
		case peer.Timer:
			return trace.ReadyByTimer.String()
		default:
			return r.Source.String()
		}
	}
	return "goroutine " + StartFunction(names, by)
}

// report divides the totals, so that the sums of each goroutine hold.
func (s *goroutineSums) report(n int64, single bool) []Goroutine {
	out := []Goroutine{}
	for key, t := range s.all {
		g := Goroutine{Kind: GoroutineKind(key.function), CreatedBy: key.createdBy, Function: key.function, Waiting: []WaitedFor{}}
		if single || g.Kind == KindMain {
			g.ID, g.Parent = t.id, t.parent
		}
		reasons := sortedByValue(t.waits)
		parts := slices.Clone(t.states[:])
		for _, r := range reasons {
			parts = append(parts, t.waits[r])
		}
		ns := stat.Divide(parts, n)
		g.OnCPUNS, g.RunqueueNS, g.FaultNS = ns[trace.GoOnCPU], ns[trace.GoQueued], ns[trace.GoFault]
		g.RunningNS = g.OnCPUNS + g.RunqueueNS + g.FaultNS
		g.SyscallNS, g.RunnableNS = ns[trace.GoInSyscall], ns[trace.GoCanRun]
		for i, r := range reasons {
			if r != trace.NotSeen {
				g.Waiting = append(g.Waiting, WaitedFor{r, ns[len(t.states)+i], greatest(t.ended[r])})
			}
		}
		total := map[string]int64{}
		for _, ended := range t.ended {
			for by, ns := range ended {
				total[by] += ns
			}
		}
		g.ReadyBy = greatest(total)
		out = append(out, g)
	}
	slices.SortFunc(out, func(x, y Goroutine) int {
		return cmp.Or(cmp.Compare(y.RunningNS+y.SyscallNS, x.RunningNS+x.SyscallNS),
			cmp.Compare(x.Function, y.Function), cmp.Compare(x.CreatedBy, y.CreatedBy), cmp.Compare(x.ID, y.ID))
	})
	return out
}

// greatest returns the key of the greatest value, empty if there is none.
func greatest(m map[string]int64) string {
	if keys := sortedByValue(m); len(keys) > 0 {
		return keys[0]
	}
	return ""
}

// sortedByValue returns the keys, the greatest value first.
func sortedByValue(m map[string]int64) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y string) int { return cmp.Or(cmp.Compare(m[y], m[x]), cmp.Compare(x, y)) })
	return keys
}

// caveats say what cheap mode cannot see.
func (s *goroutineSums) caveats(n int64) []string {
	if !s.cheap {
		return nil
	}
	all, missed := mean(s.onCPU, n), mean(max(0, s.onCPU-s.seen), n)
	return []string{fmt.Sprintf("goroutines were watched cheaply, at events of the kernel alone: their waits, what made them ready, "+
		"and those that ran between two events are not seen; %d µs of %d µs on the CPUs lie between events of different goroutines",
		missed/1000, all/1000)}
}
