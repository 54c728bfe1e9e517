package trace

import (
	"fmt"
	"iter"
	"sort"
)

// GoroutineLife is what one goroutine did at each nanosecond from the go
// statement to its end. The intervals tile it, as those of a Thread do.
type GoroutineLife struct {
	ID        uint64 // 0: never told
	Parent    uint64 // ID of its creator, 0 for the main one
	PID       int
	Process   *Process
	StartPC   uint64 // entry of its first function, 0: unknown
	CreatedPC uint64 // return address of the go statement, 0: unknown

	Start, End   int64
	StartUnknown bool // it was there before its first event
	Ended        bool // its end was seen; otherwise End is the timeline's Stop

	Intervals []GoInterval
}

// GoState is what a goroutine does in an interval.
type GoState uint8

// The states of a goroutine. Those in which it is running come first.
const (
	GoOnCPU      GoState = iota // its thread is on a CPU
	GoQueued                    // its thread waits for a CPU
	GoFault                     // its thread is in a page fault
	GoInSyscall                 // in a system call, whatever its thread does there
	GoCanRun                    // waits for the Go scheduler
	GoWaits                     // parked, for the interval's reason
	GoStateCount                // how many there are
)

var goStateNames = [...]string{"on_cpu", "runqueue", "fault", "syscall", "runnable", "waiting"}

// String returns the state's name as it stands in reports.
func (s GoState) String() string {
	if int(s) < len(goStateNames) {
		return goStateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Running reports whether Go's own view of a goroutine in this state is that it runs.
func (s GoState) Running() bool { return s <= GoFault }

// GoInterval is a part of a goroutine's life in one state: [Start, End).
type GoInterval struct {
	Start, End int64
	State      GoState
	Thread     *Thread // that runs it or is in its system call; nil otherwise
	Call       *Call   // in a system call
	Reason     string  // waiting: for what, by Go's own names
	Stack      Stack   // waiting and runnable: where it parked, empty if unknown
	Ready      *Ready  // waiting: what ended it; runnable: what began it; nil if unknown
}

// NS is the interval's length in nanoseconds.
func (i *GoInterval) NS() int64 { return i.End - i.Start }

// Ready is a goroutine made runnable.
type Ready struct {
	Time   int64
	Thread *Thread        // on which it happened
	By     *GoroutineLife // the goroutine that did it; nil: see Source
	Source ReadySource
}

// ReadySource is what made a goroutine runnable.
type ReadySource uint8

// What can make a goroutine runnable.
const (
	ReadyByGoroutine ReadySource = iota // another one, or itself: unlocking, sending, starting it
	ReadyByNetwork                      // its descriptor became ready
	ReadyByTimer
	ReadyByGC
	ReadyByScheduler // it was preempted or came back from a system call without a P
)

var readySources = [...]string{"goroutine", "network", "timer", "gc", "scheduler"}

// String returns the source's name as it stands in reports.
func (s ReadySource) String() string {
	if int(s) < len(readySources) {
		return readySources[s]
	}
	return fmt.Sprintf("source(%d)", uint8(s))
}

// Between yields the intervals within [from, to), clipped to it.
func (g *GoroutineLife) Between(from, to int64) iter.Seq[GoInterval] {
	return func(yield func(GoInterval) bool) {
		i := sort.Search(len(g.Intervals), func(i int) bool { return g.Intervals[i].End > from })
		for ; i < len(g.Intervals) && g.Intervals[i].Start < to; i++ {
			clipped := g.Intervals[i]
			clipped.Start, clipped.End = max(clipped.Start, from), min(clipped.End, to)
			if clipped.Start < clipped.End && !yield(clipped) {
				return
			}
		}
	}
}

// GoNote is that the tracer noted a goroutine's status, which cost the thread on
// which it did.
type GoNote struct {
	Time   int64
	Thread *Thread
	Seen   bool // no change: the thread was looked at (cheap mode)
}

// GoroutineAt returns the goroutine that a thread was running at that time, in
// user mode or in a system call; nil if there was none or it is not known.
func (t *Thread) GoroutineAt(at int64) *GoroutineLife {
	i := sort.Search(len(t.runs), func(i int) bool { return t.runs[i].end > at })
	if i == len(t.runs) || t.runs[i].start > at {
		return nil
	}
	return t.runs[i].life
}

// goRun is a stretch of a thread's life in which it ran one goroutine.
type goRun struct {
	start, end int64
	life       *GoroutineLife
}

// check verifies that the intervals tile the life.
func (g *GoroutineLife) check() error {
	at := g.Start
	for n := range g.Intervals {
		i := &g.Intervals[n]
		if i.Start != at {
			return fmt.Errorf("interval %d begins at %d where the one before it ends at %d", n, i.Start, at)
		}
		if i.End <= i.Start {
			return fmt.Errorf("interval %d at %d is empty", n, i.Start)
		}
		if (i.State.Running() || i.State == GoInSyscall) != (i.Thread != nil) {
			return fmt.Errorf("interval %d at %d is %v with thread %v", n, i.Start, i.State, i.Thread != nil)
		}
		at = i.End
	}
	if at != g.End {
		return fmt.Errorf("intervals end at %d, the goroutine at %d", at, g.End)
	}
	return nil
}
