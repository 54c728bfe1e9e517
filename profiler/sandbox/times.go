package sandbox

import (
	"slices"
	"time"
)

// ProcessTimes are the instants of one process, on CLOCK_MONOTONIC in
// nanoseconds; 0 is: not (yet). A call's instant is the one at which its
// request was read from the socket.
type ProcessTimes struct {
	Released   int64 // let go by the caller
	Registered int64 // register came in (extensions)
	FirstNext  int64 // the first next came in: the end of its own INIT
	Exited     int64 // ProcessExited
}

// InvokeTimes are the instants of one invoke.
type InvokeTimes struct {
	RequestID   string
	Sent        int64 // the events were released
	Responded   int64 // the runtime's response or error came in
	RuntimeDone int64 // the runtime asked for next again
	Complete    int64 // the runtime and all invoked extensions asked for next again; 0 if it failed
}

// Times is what the environment saw when.
type Times struct {
	InitStart  int64 // release of the first process
	InitEnd    int64 // the last first next of all extensions and the runtime; where INIT failed, that instant
	Extensions map[string]ProcessTimes
	Runtime    ProcessTimes
	Invokes    []InvokeTimes
	Shutdown   int64 // SHUTDOWN events were released
}

// Init is INIT's duration; 0 while it lasts.
func (t Times) Init() time.Duration {
	if t.InitStart == 0 || t.InitEnd == 0 {
		return 0
	}
	return time.Duration(t.InitEnd - t.InitStart)
}

// Times returns a copy of the instants so far.
func (e *Env) Times() Times {
	e.mu.Lock()
	defer e.mu.Unlock()
	t := Times{
		InitStart:  e.initStart,
		InitEnd:    e.initEnd,
		Extensions: make(map[string]ProcessTimes, len(e.extensions)),
		Runtime:    e.runtime.times,
		Invokes:    slices.Clone(e.invokes),
		Shutdown:   e.shutdown,
	}
	for _, p := range e.extensions {
		t.Extensions[p.name] = p.times
	}
	return t
}

func millisecondsBetween(from, to int64) float64 {
	return milliseconds(time.Duration(to - from))
}
