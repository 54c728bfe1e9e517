package capture

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
)

// ErrMalformed is wrapped by errors about records that break the layout of
// bpf/src/events.h.
var ErrMalformed = errors.New("malformed record")

// recordAlignment is what every record's size is a multiple of.
const recordAlignment = 8

// Decode turns the records of one cold start into events, ordered by time. It
// returns what could be decoded together with an error that wraps ErrMalformed
// where a record breaks the layout; what follows such a record is given up.
func (r *Raw) Decode() ([]trace.Event, error) {
	d := decoder{
		points: r.Points, goroutines: r.Goroutines, texts: map[uint32]text{}, callTexts: map[callKey]string{},
		mappings: map[uint32][]*trace.Mapping{},
	}
	data := aligned(r.Records)
	var err error
	for len(data) > 0 {
		var size int
		if size, err = d.record(data); err != nil {
			err = fmt.Errorf("at byte %d of %d: %w", len(r.Records)-len(data), len(r.Records), err)
			break
		}
		data = data[size:]
	}
	slices.SortStableFunc(d.events, func(a, b trace.Event) int {
		switch at, bt := a.Head().Time, b.Head().Time; {
		case at < bt:
			return -1
		case at > bt:
			return 1
		}
		return 0
	})
	events := d.nameProbed()
	if d.goroutines != nil {
		if refused := d.checkGoroutines(events); refused != nil {
			events = slices.DeleteFunc(events, isGoroutine)
			err = errors.Join(err, refused)
		}
	}
	return events, err
}

// aligned returns data itself, or a copy of it where it does not begin at an
// address that the records' integers can be read from.
func aligned(data []byte) []byte {
	if len(data) == 0 || uintptr(unsafe.Pointer(unsafe.SliceData(data)))%recordAlignment == 0 {
		return data
	}
	words := make([]uint64, (len(data)+recordAlignment-1)/recordAlignment)
	fresh := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), len(data))
	copy(fresh, data)
	return fresh
}

// text is what an EVENT_PATH or EVENT_REQUEST said of the call that its thread
// is in; the call's own record follows when it returns.
type text struct {
	kind  uint8
	nr    uint32
	value string
}

// callKey tells a function call apart: a thread enters one at a time.
type callKey struct {
	tid   uint32
	entry uint64
}

type decoder struct {
	points     []Point
	goroutines *probe.Goroutines
	events     []trace.Event
	texts      map[uint32]text // by TID
	callTexts  map[callKey]string
	probed     []probedEvent
	mappings   map[uint32][]*trace.Mapping // by PID, in the order of the records
}

// probedEvent is an event that only its address tells apart, until all mappings are known.
type probedEvent struct {
	event trace.Event
	ip    uint64
}

// body reads the fixed part of a record.
func body[T any](record []byte) (*T, []byte, error) {
	var zero T
	size := int(unsafe.Sizeof(zero))
	if len(record) < size {
		return nil, nil, fmt.Errorf("%w: %d bytes for %T, want at least %d", ErrMalformed, len(record), zero, size)
	}
	return (*T)(unsafe.Pointer(unsafe.SliceData(record))), record[size:], nil
}

// record decodes the record at the head of data and returns its size.
func (d *decoder) record(data []byte) (int, error) {
	h, _, err := body[bpf.InitprofEventHeader](data)
	if err != nil {
		return 0, err
	}
	size := int(h.Size)
	if size < int(unsafe.Sizeof(*h)) || size > len(data) || size%recordAlignment != 0 {
		return 0, fmt.Errorf("%w: size %d of kind %d with %d bytes left", ErrMalformed, size, h.Kind, len(data))
	}
	if err := d.decode(h, data[:size]); err != nil {
		return 0, err
	}
	return size, nil
}

func (d *decoder) decode(h *bpf.InitprofEventHeader, record []byte) error {
	head := trace.Header{Time: int64(h.KtimeNs), CPU: int(h.Cpu), PID: int(h.Tgid), TID: int(h.Tid)}
	switch bpf.InitprofEventKind(h.Kind) {
	case bpf.InitprofEventKindEVENT_SYSCALL:
		return d.syscall(h, head, record)
	case bpf.InitprofEventKindEVENT_PATH, bpf.InitprofEventKindEVENT_REQUEST:
		e, tail, err := body[bpf.InitprofEventText](record)
		if err != nil {
			return err
		}
		s, err := textOf(h, tail)
		if err != nil {
			return err
		}
		d.texts[h.Tid] = text{kind: h.Kind, nr: e.Nr, value: s}
		return nil
	case bpf.InitprofEventKindEVENT_SWITCH:
		e, tail, err := body[bpf.InitprofEventSwitch](record)
		if err != nil {
			return err
		}
		stack, err := stackOf(h, tail)
		if err != nil {
			return err
		}
		return d.add(&trace.Switch{
			Header: head, State: trace.SwitchState(min(e.State, uint32(trace.SwitchDead))),
			Comm: comm(e.Comm), NextPID: int(e.NextTgid), NextTID: int(e.NextTid), NextComm: comm(e.NextComm), Stack: stack,
		})
	case bpf.InitprofEventKindEVENT_WAKING:
		e, _, err := body[bpf.InitprofEventWaking](record)
		if err != nil {
			return err
		}
		return d.add(&trace.Waking{
			Header: head, TargetPID: int(e.TargetTgid), TargetTID: int(e.TargetTid),
			Context: trace.WakeContext(min(e.Context, uint32(trace.WakeHardirq))), Comm: comm(e.Comm),
		})
	case bpf.InitprofEventKindEVENT_FORK:
		e, _, err := body[bpf.InitprofEventFork](record)
		if err != nil {
			return err
		}
		return d.add(&trace.Fork{Header: head, ChildPID: int(e.ChildTgid), ChildTID: int(e.ChildTid)})
	case bpf.InitprofEventKindEVENT_EXEC:
		e, tail, err := body[bpf.InitprofEventExec](record)
		if err != nil {
			return err
		}
		path, err := textOf(h, tail)
		if err != nil {
			return err
		}
		return d.add(&trace.Exec{
			Header: head, OldTID: int(e.OldTid), Path: path,
			Entry: e.Entry, Base: e.Base, ProgramHdrs: e.ProgramHdrs, VDSO: e.Vdso,
		})
	case bpf.InitprofEventKindEVENT_EXIT:
		e, _, err := body[bpf.InitprofEventExit](record)
		if err != nil {
			return err
		}
		return d.add(&trace.Exit{Header: head, Code: int(e.Code), GroupDead: e.GroupDead != 0})
	case bpf.InitprofEventKindEVENT_FAULT:
		e, tail, err := body[bpf.InitprofEventFault](record)
		if err != nil {
			return err
		}
		stack, err := stackOf(h, tail)
		if err != nil {
			return err
		}
		return d.add(&trace.Fault{
			Header: head, End: int64(e.EndNs), Address: e.Address, Major: e.Major != 0, Kernel: e.InKernel != 0, Stack: stack,
		})
	case bpf.InitprofEventKindEVENT_SAMPLE:
		e, tail, err := body[bpf.InitprofEventSample](record)
		if err != nil {
			return err
		}
		stack, err := stackOf(h, tail)
		if err != nil {
			return err
		}
		return d.add(&trace.Sample{Header: head, Kernel: e.InKernel != 0, Stack: stack})
	case bpf.InitprofEventKindEVENT_MARK:
		return d.mark(h, head, record)
	case bpf.InitprofEventKindEVENT_CALL:
		return d.call(h, head, record)
	case bpf.InitprofEventKindEVENT_CALL_TEXT:
		_, tail, err := body[bpf.InitprofEventText](record)
		if err != nil {
			return err
		}
		d.callTexts[callKey{h.Tid, h.KtimeNs}], err = textOf(h, tail)
		return err
	case bpf.InitprofEventKindEVENT_MAPPING:
		return d.mapping(h, head, record)
	case bpf.InitprofEventKindEVENT_GOROUTINE:
		return d.goroutine(h, head, record)
	}
	return fmt.Errorf("%w: unknown kind %d", ErrMalformed, h.Kind)
}

func (d *decoder) add(e trace.Event) error {
	d.events = append(d.events, e)
	return nil
}

func (d *decoder) syscall(h *bpf.InitprofEventHeader, head trace.Header, record []byte) error {
	e, tail, err := body[bpf.InitprofEventSyscall](record)
	if err != nil {
		return err
	}
	stack, err := stackOf(h, tail)
	if err != nil {
		return err
	}
	s := &trace.Syscall{Header: head, End: int64(e.EndNs), Number: int(e.Nr), Return: e.Ret, Args: e.Args, Stack: stack}
	if t, ok := d.texts[h.Tid]; ok {
		delete(d.texts, h.Tid)
		if t.nr == e.Nr {
			if bpf.InitprofEventKind(t.kind) == bpf.InitprofEventKindEVENT_PATH {
				s.Path = t.value
			} else {
				s.Request = parseRequest(t.value)
			}
		}
	}
	return d.add(s)
}

func parseRequest(line string) *trace.Request {
	for i := range len(line) {
		if line[i] == ' ' {
			return &trace.Request{Method: line[:i], Path: line[i+1:]}
		}
	}
	return &trace.Request{Method: line}
}

func (d *decoder) mark(h *bpf.InitprofEventHeader, head trace.Header, record []byte) error {
	e, tail, err := body[bpf.InitprofEventMark](record)
	if err != nil {
		return err
	}
	name, err := textOf(h, tail)
	if err != nil {
		return err
	}
	m := &trace.Mark{Header: head, Name: name, ID: e.Id, Value: e.Value, Spent: int64(e.Spent)}
	switch bpf.InitprofMarkKind(e.Kind) {
	case bpf.InitprofMarkKindMARK_CHECKPOINT:
		m.Kind = trace.MarkCheckpoint
	case bpf.InitprofMarkKindMARK_SPAN_BEGIN:
		m.Kind = trace.MarkSpanBegin
	case bpf.InitprofMarkKindMARK_SPAN_END:
		m.Kind = trace.MarkSpanEnd
	case bpf.InitprofMarkKindMARK_ADDRESS:
		d.probed = append(d.probed, probedEvent{m, e.Ip})
	default: // the subject passed a kind that this version does not know
		return nil
	}
	return d.add(m)
}

func (d *decoder) mapping(h *bpf.InitprofEventHeader, head trace.Header, record []byte) error {
	e, tail, err := body[bpf.InitprofEventMapping](record)
	if err != nil {
		return err
	}
	path, err := textOf(h, tail)
	if err != nil {
		return err
	}
	if int(e.BuildIdSize) > len(e.BuildId) || e.Limit < e.Start {
		return fmt.Errorf("%w: mapping with a build ID of %d bytes, from %#x to %#x", ErrMalformed, e.BuildIdSize, e.Start, e.Limit)
	}
	m := &trace.Mapping{
		Header: head, Start: e.Start, Limit: e.Limit, Offset: e.Offset, Prot: e.Prot,
		Path: path, BuildID: hex.EncodeToString(e.BuildId[:e.BuildIdSize]),
	}
	d.mappings[h.Tgid] = append(d.mappings[h.Tgid], m)
	return d.add(m)
}

func (d *decoder) call(h *bpf.InitprofEventHeader, head trace.Header, record []byte) error {
	e, tail, err := body[bpf.InitprofEventCall](record)
	if err != nil {
		return err
	}
	stack, err := stackOf(h, tail)
	if err != nil {
		return err
	}
	key := callKey{h.Tid, h.KtimeNs}
	c := &trace.FunctionCall{
		Header: head, End: int64(e.EndNs), Args: e.Args, Return: e.Ret, Text: d.callTexts[key],
		Base: e.ObjectBase, Dynamic: e.ObjectDynamic, Minor: int(e.MinorFaults), Major: int(e.MajorFaults), Stack: stack,
	}
	delete(d.callTexts, key)
	d.probed = append(d.probed, probedEvent{c, e.Ip})
	return d.add(c)
}

func textOf(h *bpf.InitprofEventHeader, tail []byte) (string, error) {
	if int(h.TextSize) > len(tail) {
		return "", fmt.Errorf("%w: %d bytes of text in %d", ErrMalformed, h.TextSize, len(tail))
	}
	return string(tail[:h.TextSize]), nil
}

// stackOf reads the frames behind the fixed part. The slices stay valid without
// the record: a recording's bytes are let go after decoding.
func stackOf(h *bpf.InitprofEventHeader, tail []byte) (trace.Stack, error) {
	n := int(h.UserFrames) + int(h.KernelFrames)
	if n*8 > len(tail) {
		return trace.Stack{}, fmt.Errorf("%w: %d frames in %d bytes", ErrMalformed, n, len(tail))
	}
	if n == 0 {
		return trace.Stack{}, nil
	}
	words := slices.Clone(unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(tail))), n))
	return trace.Stack{
		User:      words[:h.UserFrames:h.UserFrames],
		Kernel:    words[h.UserFrames:],
		Caller:    h.Caller,
		Truncated: trace.Truncation(min(h.Truncation, uint8(len(trace.Truncations)-1))),
	}, nil
}

func comm(c [16]int8) string {
	b := make([]byte, 0, len(c))
	for _, v := range c {
		if v == 0 {
			break
		}
		b = append(b, byte(v))
	}
	return string(b)
}
