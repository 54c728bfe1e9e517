package trace

import (
	"fmt"
	"iter"
	"slices"
	"sort"
)

// Timeline is what each thread of a recorded cold start did at each nanosecond
// from its start to its end. Build makes it; nothing changes it afterwards.
type Timeline struct {
	Arch        string // GOARCH of the recording
	Start, Stop int64  // of the recording: the first event, and where open intervals were closed

	Processes  []*Process // by start
	Threads    []*Thread  // by start
	Calls      []*Call    // of all threads, by Begin
	Faults     []*PageFault
	Samples    []*ThreadSample   // by time
	Marks      []*Mark           // by time
	Execs      []*Exec           // by time
	Exits      []*Exit           // by time
	Functions  []*ThreadFunction // by time
	Goroutines []*GoroutineLife  // by start; empty where none were watched
	GoNotes    []GoNote          // by time

	Repairs Repairs
}

// Repairs counts the places where the events contradict each other or lack an
// edge, so that a timeline had to bridge it. All are 0 in a recording without
// losses.
type Repairs struct {
	Switches int // a thread ran without having been switched in, or the reverse
	Calls    int // a system call whose entry or exit is missing although more followed
	Threads  int // a thread whose start or end is missing
}

// Total is the number of all repairs.
func (r Repairs) Total() int { return r.Switches + r.Calls + r.Threads }

// Process is a thread group. It keeps its identity across exec.
type Process struct {
	PID        int
	ParentPID  int // 0: its fork was not seen
	Start, End int64
	Threads    []*Thread // by start
	Execs      []*Exec

	regions []regionChange
}

// Thread is one thread from its start to its end. The intervals tile its
// lifetime: the first begins at Start, each of the others where the one before
// it ends, the last ends at End.
type Thread struct {
	PID, TID int
	OldTIDs  []int  // before an exec made it the leader of its process
	Name     string // the last one seen
	Ordinal  int    // among the threads of its process, by start, from 0
	Process  *Process
	Creator  *Thread // which cloned or forked it; nil if that was not seen

	Start, End   int64
	StartUnknown bool // it existed before its first event
	Ended        bool // its end was seen; otherwise End is the timeline's Stop

	Intervals []Interval
	Calls     []*Call      // by Begin, never overlapping
	Faults    []*PageFault // by Begin, properly nested

	runs []goRun // by start, apart
}

// State is what a thread does in an interval.
type State uint8

// The states of a thread. Those on a CPU come first.
const (
	StateUser     State = iota // on a CPU, in user mode
	StateKernel                // on a CPU, in a system call (or at its exit, or starting)
	StateFault                 // on a CPU, in a page fault
	StateRunnable              // could run, but waits for a CPU
	StateWaiting               // waits, in a system call, a fault or stopped
)

var stateNames = [...]string{"user", "kernel", "fault", "runnable", "waiting"}

// String returns the state's name as it stands in reports.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// OnCPU reports whether a thread in this state occupies a CPU.
func (s State) OnCPU() bool { return s <= StateFault }

// Interval is a part of a thread's life in one state: [Start, End).
type Interval struct {
	Start, End int64
	State      State

	Syscall *Call      // it is inside of, whatever the state
	Fault   *PageFault // the innermost it is inside of, possibly inside Syscall

	Left   *Switch   // how it left the CPU: runnable and waiting only, nil if that was not seen
	Waker  *Waking   // waiting: what ended it; runnable: what made it so; nil if unknown or preempted
	Behind *Occupant // runnable: who held the CPU, nil if unknown
}

// NS is the interval's length in nanoseconds.
func (i *Interval) NS() int64 { return i.End - i.Start }

// Stack returns the stack nearest to what the interval spends its time on:
// where it left the CPU, or else where it faulted or called. User time has
// none of its own.
func (i *Interval) Stack() Stack {
	if i.Left != nil && !i.Left.Stack.Empty() {
		return i.Left.Stack
	}
	if i.Fault != nil && !i.Fault.Stack.Empty() {
		return i.Fault.Stack
	}
	if i.Syscall != nil {
		return i.Syscall.Stack
	}
	return Stack{}
}

// Occupant is a thread that held a CPU. It need not belong to the subject.
type Occupant struct {
	PID, TID int // 0: the idle thread, which means a wake-up's latency or a throttled group
	Comm     string
	CPU      int
}

// Call is a system call within its thread's life. Begin and Until are Time and
// End of the event, or, where these are not known, the tightest bounds that
// the thread's other events give.
type Call struct {
	*Syscall
	Begin, Until int64
	Thread       *Thread
	File         *Descriptor // it works on or returned, nil if none
	Name         string      // the full path of Path, as far as it can be told
}

// Returned reports whether the call came back, so that Return is its result.
func (c *Call) Returned() bool { return c.End != 0 }

// Failed reports whether the call returned an errno.
func (c *Call) Failed() bool { return c.End != 0 && c.Return < 0 && c.Return >= -4095 }

// PageFault is a fault within its thread's life; Begin and Until are as in Call.
type PageFault struct {
	*Fault
	Begin, Until int64
	Thread       *Thread
	Region       Region // that was touched
}

// ThreadSample is a sample with the thread that it hit.
type ThreadSample struct {
	*Sample
	Thread *Thread
}

// ThreadFunction is the call of a probed function with the thread that made it.
type ThreadFunction struct {
	*FunctionCall
	Thread *Thread
}

// Until is the call's end; of one that was left without a return, at.
func (f *ThreadFunction) Until(at int64) int64 {
	if f.End != 0 {
		return f.End
	}
	return at
}

// At returns the interval that holds time t, nil outside of the thread's life.
func (t *Thread) At(at int64) *Interval {
	i := sort.Search(len(t.Intervals), func(i int) bool { return t.Intervals[i].End > at })
	if i == len(t.Intervals) || t.Intervals[i].Start > at {
		return nil
	}
	return &t.Intervals[i]
}

// Between yields the intervals within [from, to), clipped to it.
func (t *Thread) Between(from, to int64) iter.Seq[Interval] {
	return func(yield func(Interval) bool) {
		i := sort.Search(len(t.Intervals), func(i int) bool { return t.Intervals[i].End > from })
		for ; i < len(t.Intervals) && t.Intervals[i].Start < to; i++ {
			clipped := t.Intervals[i]
			clipped.Start, clipped.End = max(clipped.Start, from), min(clipped.End, to)
			if clipped.Start < clipped.End && !yield(clipped) {
				return
			}
		}
	}
}

// Label names the thread alike over cold starts, in which TIDs differ: its
// name, and from the second of its process on the ordinal of its start.
func (t *Thread) Label() string {
	if t.Ordinal == 0 {
		return t.Name
	}
	return fmt.Sprintf("%s#%d", t.Name, t.Ordinal+1)
}

// SyscallName returns the name of a call in the recording's architecture.
func (tl *Timeline) SyscallName(s *Syscall) string { return SyscallName(tl.Arch, s.Number) }

// Process returns the process with that PID, nil if there is none.
func (tl *Timeline) Process(pid int) *Process {
	for _, p := range tl.Processes {
		if p.PID == pid {
			return p
		}
	}
	return nil
}

// Thread returns the thread that had that TID at that time, or the nearest one
// before it; nil if there is none.
func (tl *Timeline) Thread(tid int, at int64) *Thread {
	var found *Thread
	for _, t := range tl.Threads {
		if t.Start <= at && (t.TID == tid || slices.Contains(t.OldTIDs, tid)) {
			if found == nil || found.End <= at || t.End > at {
				found = t
			}
		}
	}
	return found
}

// Check verifies what every figure rests on: that the intervals of each thread
// tile its lifetime without gap or overlap, that each is in a state its
// context allows, and that calls and faults lie within their thread. An error
// is a mistake of Build, never of a recording.
func (tl *Timeline) Check() error {
	for _, t := range tl.Threads {
		if err := t.check(); err != nil {
			return fmt.Errorf("timeline of thread %d of process %d: %w", t.TID, t.PID, err)
		}
	}
	for _, g := range tl.Goroutines {
		if err := g.check(); err != nil {
			return fmt.Errorf("timeline of goroutine %d of process %d: %w", g.ID, g.PID, err)
		}
	}
	return nil
}

func (t *Thread) check() error {
	if t.End < t.Start {
		return fmt.Errorf("ends at %d before its start at %d", t.End, t.Start)
	}
	at := t.Start
	for n := range t.Intervals {
		i := &t.Intervals[n]
		if i.Start != at {
			return fmt.Errorf("interval %d begins at %d where the one before it ends at %d", n, i.Start, at)
		}
		if i.End <= i.Start {
			return fmt.Errorf("interval %d at %d is empty", n, i.Start)
		}
		if i.State == StateFault && i.Fault == nil {
			return fmt.Errorf("interval %d at %d is in a fault without one", n, i.Start)
		}
		if i.State == StateUser && (i.Fault != nil || i.Syscall != nil) {
			return fmt.Errorf("interval %d at %d is in user mode inside a call or fault", n, i.Start)
		}
		if i.Syscall != nil && (i.Syscall.Begin > i.Start || i.Syscall.Until < i.End) {
			return fmt.Errorf("interval %d at %d exceeds its system call", n, i.Start)
		}
		if i.Fault != nil && (i.Fault.Begin > i.Start || i.Fault.Until < i.End) {
			return fmt.Errorf("interval %d at %d exceeds its fault", n, i.Start)
		}
		at = i.End
	}
	if at != t.End {
		return fmt.Errorf("intervals end at %d, the thread at %d", at, t.End)
	}
	for n, c := range t.Calls {
		if c.Begin < t.Start || c.Until > t.End || c.Until < c.Begin {
			return fmt.Errorf("system call at %d lies outside of the thread", c.Begin)
		}
		if n > 0 && c.Begin < t.Calls[n-1].Until {
			return fmt.Errorf("system call at %d begins inside another", c.Begin)
		}
	}
	return nil
}
