package capture

import (
	"cmp"
	"encoding/binary"
	"slices"
	"unsafe"

	"github.com/initprof/initprof/bpf"
)

// replacedReturns lists, by TID, the calls whose return address a return probe
// replaced on the stack by its own.
func replacedReturns(records []byte) map[uint32][]bpf.InitprofEventCall {
	calls := map[uint32][]bpf.InitprofEventCall{}
	for data := aligned(records); len(data) > 0; {
		h, _, err := body[bpf.InitprofEventHeader](data)
		if err != nil || int(h.Size) < int(unsafe.Sizeof(*h)) || int(h.Size) > len(data) {
			break // whoever decodes it will say so
		}
		if bpf.InitprofEventKind(h.Kind) == bpf.InitprofEventKindEVENT_CALL {
			if c, _, err := body[bpf.InitprofEventCall](data[:h.Size]); err == nil && c.ReturnAddress != 0 {
				calls[h.Tid] = append(calls[h.Tid], *c)
			}
		}
		data = data[h.Size:]
	}
	for _, list := range calls {
		slices.SortStableFunc(list, func(x, y bpf.InitprofEventCall) int { return cmp.Compare(x.H.KtimeNs, y.H.KtimeNs) })
	}
	return calls
}

// putBack gives a copied stack the return addresses of the calls that were open
// when it was taken. Of two at one place, a tail call, the outer one returns.
func (u *unwinding) putBack(e *copied, memory []byte) {
	at := e.head.H.KtimeNs
	placed := map[uint64]bool{}
	for _, c := range u.returns[e.head.H.Tid] {
		if c.H.KtimeNs > at {
			break
		}
		offset := c.ReturnSlot - e.head.Start
		if c.EndNs != 0 && c.EndNs < at || placed[c.ReturnSlot] || offset > uint64(len(memory)) || uint64(len(memory))-offset < 8 {
			continue
		}
		placed[c.ReturnSlot] = true
		binary.LittleEndian.PutUint64(memory[offset:], c.ReturnAddress)
	}
}
