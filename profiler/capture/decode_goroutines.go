package capture

import (
	"errors"
	"fmt"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/trace"
)

// ErrLayout is wrapped by the error of a recording whose goroutines were read at
// the wrong places. They are left out; all else is there.
var ErrLayout = errors.New("goroutines are left out")

// mainGoroutine is the ID of the goroutine that runs runtime.main, in all
// versions of Go.
const mainGoroutine = 1

func (d *decoder) goroutine(h *bpf.InitprofEventHeader, head trace.Header, record []byte) error {
	e, tail, err := body[bpf.InitprofEventGoroutine](record)
	if err != nil {
		return err
	}
	stack, err := stackOf(h, tail)
	if err != nil {
		return err
	}
	if d.goroutines == nil {
		return nil // nothing tells what it means
	}
	g := &trace.Goroutine{
		Header: head, G: e.G, ID: e.Goid, From: trace.GoStatus(e.From), To: trace.GoStatus(e.To), Seen: e.Seen != 0,
		Parent: e.Parent, CreatedPC: e.Gopc, StartPC: e.Startpc, Stack: stack,
	}
	if g.To == trace.GoWaiting {
		g.Reason = d.goroutines.WaitReason(e.Reason)
	}
	return d.add(g)
}

// checkGoroutines tells whether the layout of runtime.g is the program's: its
// main goroutine has ID 1, no parent, and starts in runtime.main. Without that
// nothing read by the layout can be trusted.
func (d *decoder) checkGoroutines(events []trace.Event) error {
	seen := false
	ids := map[uint64]uint64{} // of the goroutines that started in runtime.main, by g
	for _, e := range events {
		g, ok := e.(*trace.Goroutine)
		if !ok {
			continue
		}
		seen = true
		if g.StartPC != 0 && d.startsMain(g) && g.Parent == 0 {
			ids[g.G] = 0
		}
		if id, ok := ids[g.G]; ok && id == 0 && g.ID != 0 {
			ids[g.G] = g.ID
			if g.ID == mainGoroutine {
				return nil
			}
		}
	}
	if !seen {
		return nil
	}
	return fmt.Errorf("%w: no goroutine %d that starts in runtime.main was seen, so the places in runtime.g, by %s, are not this program's",
		ErrLayout, mainGoroutine, d.goroutines.Source)
}

func (d *decoder) startsMain(g *trace.Goroutine) bool {
	for _, m := range d.mappings[uint32(g.PID)] {
		if m.Start <= g.StartPC && g.StartPC < m.Limit && m.Prot&trace.ProtExec != 0 &&
			g.StartPC-m.Start+m.Offset == d.goroutines.Main {
			return true
		}
	}
	return false
}

func isGoroutine(e trace.Event) bool {
	_, ok := e.(*trace.Goroutine)
	return ok
}
