package capture

import (
	"encoding/binary"
	"unsafe"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

// callers adds to stacks walked by frame pointer the caller that they miss:
// that of a function which has no frame, or has not made it yet.
type callers struct {
	framed  probe.Framed
	entries map[uint32]uint64 // PID → AT_ENTRY of the program that keeps frame pointers
	known   map[int64]bool    // address from the entry → it is frameless
}

func newCallers(framed probe.Framed, events []trace.Event) *callers {
	c := &callers{framed: framed, entries: map[uint32]uint64{}, known: map[int64]bool{}}
	if framed.Frameless == nil {
		return c
	}
	for _, e := range events { // in the order of time
		switch e := e.(type) {
		case *trace.Exec:
			if delete(c.entries, uint32(e.PID)); e.Entry-e.ProgramHdrs == framed.Program {
				c.entries[uint32(e.PID)] = e.Entry
			}
		case *trace.Fork:
			if entry, ok := c.entries[uint32(e.PID)]; ok && e.ChildPID != e.PID {
				c.entries[uint32(e.ChildPID)] = entry
			}
		}
	}
	return c
}

// insert appends a record, with the caller of its leaf where that is missing.
func (c *callers) insert(out, record []byte) []byte {
	h, _, err := body[bpf.InitprofEventHeader](record)
	first := len(record) - 8*(int(h.UserFrames)+int(h.KernelFrames))
	if err != nil || h.Caller == 0 || h.UserFrames == 0 || h.UserFrames == 255 || first < int(unsafe.Sizeof(*h)) ||
		!c.frameless(h.Tgid, binary.LittleEndian.Uint64(record[first:]), h.Caller) {
		return append(out, record...)
	}
	if h.UserFrames > 1 && binary.LittleEndian.Uint64(record[first+8:]) == h.Caller {
		return append(out, record...)
	}
	at := len(out)
	out = append(out, record[:first+8]...)
	out = binary.LittleEndian.AppendUint64(out, h.Caller)
	out = append(out, record[first+8:]...)
	fresh := (*bpf.InitprofEventHeader)(unsafe.Pointer(&out[at]))
	fresh.Caller, fresh.UserFrames, fresh.Size = 0, h.UserFrames+1, h.Size+8
	return out
}

// callback tells whether an address is in crosscall2, through which C calls Go.
func (c *callers) callback(pid uint32, address uint64) bool {
	entry, ok := c.entries[pid]
	return ok && address-entry-uint64(c.framed.Begin)-c.framed.CallbackBegin < c.framed.CallbackSize
}

// frameless tells whether code at an address has no frame and caller is code.
func (c *callers) frameless(pid uint32, address, caller uint64) bool {
	entry, ok := c.entries[pid]
	inside := func(address uint64) bool { return address-entry-uint64(c.framed.Begin) < c.framed.Size }
	if !ok || !inside(address) || !inside(caller) {
		return false
	}
	from := int64(address - entry)
	is, ok := c.known[from]
	if !ok {
		is = c.framed.Frameless(from)
		c.known[from] = is
	}
	return is
}
