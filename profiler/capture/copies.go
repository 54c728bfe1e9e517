package capture

import (
	"bytes"
	"encoding/binary"
	"unsafe"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/unwind"
)

// copies holds the copied stacks of a cold start until they are unwound. They
// stay in memory: a stack holds the subject's data. Since two copies of a thread
// differ in their leaf's part only, each is kept as what changed.
type copies struct {
	list    []copied
	threads map[uint32]*copiedThread // by TID
	block   []byte                   // room for what changed
}

// copied is one EVENT_STACK, with the EVENT_GO_STACK that may belong to it.
type copied struct {
	head     bpf.InitprofEventStack
	golang   *unwind.Goroutine
	changed  []byte // the begin of the copy; the rest is as in the thread's last
	complete bool   // changed is all of it
}

// copiedThread is the last copy of a thread's stack.
type copiedThread struct {
	image     [maxStackCopy]byte // it ends where the copy ends
	size      int
	end       uint64
	following int // copies since the last complete one
}

const (
	maxStackCopy = uint64(bpf.InitprofStackLimitsMAX_STACK_COPY)
	copiesBlock  = 4 << 20
	// The copies of a thread between two complete ones are unwound by one
	// goroutine, in their order.
	maxFollowing = 512
	// So many copies, of all threads, can come between the two stacks of one.
	maxBetween = 64
)

// add keeps a record that isCopy, which may be longer than it says.
func (c *copies) add(record []byte) {
	if bpf.InitprofEventKind(record[0]) == bpf.InitprofEventKindEVENT_GO_STACK {
		c.addGo(record)
		return
	}
	head, body, err := body[bpf.InitprofEventStack](record)
	if err != nil || head.Bytes > uint64(len(body)) || head.Bytes > maxStackCopy {
		return // its event will miss it
	}
	body = body[:head.Bytes]
	if c.threads == nil {
		c.threads = map[uint32]*copiedThread{}
	}
	t := c.threads[head.H.Tid]
	if t == nil {
		t = &copiedThread{}
		c.threads[head.H.Tid] = t
	}
	e := copied{head: *head, complete: true}
	changed := len(body)
	end := head.Start + uint64(len(body))
	if t.size > 0 && t.end == end && t.following < maxFollowing {
		changed = len(body) - commonSuffix(body, t.last())
		e.complete = false
		t.following++
	} else {
		t.following = 0
	}
	t.end, t.size = end, len(body)
	copy(t.last(), body[:changed])
	e.changed = c.keep(body[:changed])
	c.list = append(c.list, e)
}

// addGo keeps an EVENT_GO_STACK with the copy of the thread's stack before it.
func (c *copies) addGo(record []byte) {
	head, body, err := body[bpf.InitprofEventGoStack](record)
	if err != nil || head.Bytes > uint64(len(body)) {
		return
	}
	// An interrupt between the two may have copied the same stack for its own event.
	for i := len(c.list) - 1; i >= max(0, len(c.list)-maxBetween); i-- {
		if h := &c.list[i].head.H; h.Tid == head.H.Tid && h.Stack == head.H.Stack {
			c.list[i].golang = &unwind.Goroutine{
				G: head.G, End: head.End,
				Memory: unwind.Region{Start: head.Start, Bytes: c.keep(body[:head.Bytes])},
			}
			return
		}
	}
}

// keep copies bytes that the ring buffer will overwrite.
func (c *copies) keep(b []byte) []byte {
	if len(c.block) < len(b) {
		c.block = make([]byte, max(copiesBlock, len(b)))
	}
	kept := c.block[:len(b):len(b)]
	c.block = c.block[len(b):]
	copy(kept, b)
	return kept
}

// last is the last copy.
func (t *copiedThread) last() []byte { return t.image[len(t.image)-t.size:] }

// restore makes e the last copy of its thread, whose copies must be given in
// their order from a complete one on.
func (t *copiedThread) restore(e *copied) []byte {
	t.size = int(e.head.Bytes)
	copy(t.last(), e.changed)
	return t.last()
}

// commonSuffix returns how many bytes two slices have in common at their ends,
// in words.
func commonSuffix(a, b []byte) int {
	n := min(len(a), len(b))
	a, b = a[len(a)-n:], b[len(b)-n:]
	const step = 256
	at := n
	for at >= step && bytes.Equal(a[at-step:at], b[at-step:at]) {
		at -= step
	}
	for at >= 8 && binary.LittleEndian.Uint64(a[at-8:]) == binary.LittleEndian.Uint64(b[at-8:]) {
		at -= 8
	}
	return n - at
}

// isCopy tells records of stacks from those that a recording holds.
func isCopy(record []byte) bool {
	if len(record) == 0 {
		return false
	}
	kind := bpf.InitprofEventKind(record[0])
	return kind == bpf.InitprofEventKindEVENT_STACK || kind == bpf.InitprofEventKindEVENT_GO_STACK
}

// bytesOf is a value of a record as it lies in memory.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
