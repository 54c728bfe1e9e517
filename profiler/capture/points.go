package capture

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/probe"
)

// actionPrograms are the stems of the programs' names in bpf/src.
var actionPrograms = map[probe.Action]string{
	probe.RecordMark: "address", probe.RecordCheckpoint: "checkpoint", probe.RecordGo: "go",
	probe.RecordUSDT: "usdt", probe.RecordReturn: returnProgram,
	probe.RecordCall: "call_plain", probe.RecordCallObject: "call_object", probe.RecordCallText0: "call_text0", probe.RecordCallText1: "call_text1",
	probe.RecordCallBinding: "call_binding",
}

const returnProgram = "call_return"

// Point is an instruction of a file that a uprobe sits on.
type Point struct {
	Path string `json:"path"` // the file, as the subject's mappings name it
	File string `json:"-"`    // where it is found to be probed; empty: at Path
	probe.Point
}

// attachedPoints is what sits on the subject's own instructions.
type attachedPoints struct {
	withoutMulti bool // the kernel has no uprobe-multi
	wanted       []Point
	points       []Point // attached ones
	probes       []Probe
	closers      []func() error
}

// WatchPoints has uprobes on points in the cold starts to come, instead of on
// those of the last call. A point that cannot be probed is listed in Probes with
// the reason, once a cold start was armed.
func (t *Tracer) WatchPoints(points []Point) { t.points.wanted = points }

// attachWanted puts uprobes on the points for one cold start: they cost whoever
// runs the same files.
func (t *Tracer) attachWanted() {
	t.points.points, t.points.probes = nil, nil
	type group struct {
		file         string
		action       probe.Action
		returnsApart bool
	}
	var order []group
	groups := map[group][]Point{}
	for _, p := range t.points.wanted {
		g := group{p.File, p.Action, p.ReturnsApart}
		if g.file == "" {
			g.file = p.Path
		}
		if groups[g] == nil {
			order = append(order, g)
		}
		groups[g] = append(groups[g], p)
	}
	for _, g := range order {
		t.attachGroup(g.file, g.action, groups[g])
	}
}

// attachGroup attaches the points of one file together where the kernel can:
// each link costs milliseconds to take off again.
func (t *Tracer) attachGroup(file string, action probe.Action, points []Point) {
	if len(points) > 1 && t.attachPoints(file, action, points) == nil {
		for _, p := range points {
			t.points.add(p, nil)
		}
		return
	}
	for _, p := range points {
		t.points.add(p, t.attachPoints(file, action, []Point{p}))
	}
}

func (a *attachedPoints) add(p Point, err error) {
	entry := Probe{Name: "uprobe " + p.String()}
	if err != nil {
		entry.Reason = err.Error()
	} else {
		a.points = append(a.points, p)
	}
	// A function can have several points, as each of its returns on arm64: what is
	// counted is its calls.
	if !slices.Contains(a.probes, entry) {
		a.probes = append(a.probes, entry)
	}
}

func (t *Tracer) attachPoints(file string, action probe.Action, points []Point) error {
	executable, err := link.OpenExecutable(file)
	if err != nil {
		return err
	}
	if !action.IsCall() || points[0].ReturnsApart {
		return t.attachProgram(executable, actionPrograms[action], false, points)
	}
	// The return first: an entry without its return would stay open, whereas a
	// return without its entry finds nothing.
	before := len(t.points.closers)
	if err := t.attachProgram(executable, returnProgram, true, points); err != nil {
		return err
	}
	if err := t.attachProgram(executable, actionPrograms[action], false, points); err != nil {
		for _, c := range t.points.closers[before:] {
			_ = c()
		}
		t.points.closers = t.points.closers[:before]
		return err
	}
	return nil
}

func (t *Tracer) attachProgram(executable *link.Executable, stem string, onReturn bool, points []Point) error {
	if multi := t.collection.Programs[stem+"_multi"]; multi != nil && !t.points.withoutMulti {
		offsets, cookies := make([]uint64, len(points)), make([]uint64, len(points))
		for i, p := range points {
			offsets[i], cookies[i] = p.Offset, p.Cookie
		}
		attach := executable.UprobeMulti
		if onReturn {
			attach = executable.UretprobeMulti
		}
		l, err := attach(nil, multi, &link.UprobeMultiOptions{Addresses: offsets, Cookies: cookies})
		if err == nil {
			t.points.closers = append(t.points.closers, l.Close)
			return nil
		}
		// Kernels before 6.6 load the program and refuse only here.
		if !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return err
		}
		if len(points) > 1 {
			return err // they are tried one by one
		}
		t.points.withoutMulti = true
	}
	single, err := t.program(stem + "_single")
	if err != nil {
		return err
	}
	attach := executable.Uprobe
	if onReturn {
		attach = executable.Uretprobe
	}
	for _, p := range points {
		l, err := attach("", single, &link.UprobeOptions{Address: p.Offset, Cookie: p.Cookie})
		if err != nil {
			return err
		}
		t.points.closers = append(t.points.closers, l.Close)
	}
	return nil
}

// clearCalls forgets the calls of the last cold start.
func (t *Tracer) clearCalls() error {
	calls := t.collection.Maps["calls"]
	var tids []uint32
	var tid uint32
	var open bpf.InitprofOpenCalls
	for it := calls.Iterate(); it.Next(&tid, &open); {
		tids = append(tids, tid)
	}
	for _, tid := range tids {
		if err := calls.Delete(tid); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			return fmt.Errorf("forget a thread's calls: %w", err)
		}
	}
	return nil
}

// openCalls makes records of the calls of probed functions that had not been
// left at the stop.
func (t *Tracer) openCalls() []byte {
	var records []byte
	var tid uint32
	var open bpf.InitprofOpenCalls
	for it := t.collection.Maps["calls"].Iterate(); it.Next(&tid, &open); {
		for _, c := range open.Calls[:min(int(open.Depth), len(open.Calls))] {
			e := bpf.InitprofEventCall{
				H: bpf.InitprofEventHeader{
					Kind: uint8(bpf.InitprofEventKindEVENT_CALL), Size: uint16(unsafe.Sizeof(bpf.InitprofEventCall{})),
					Tgid: open.Tgid, Tid: tid, KtimeNs: c.KtimeNs,
				},
				Ip: c.Ip, Args: c.Args, ReturnSlot: c.Sp, ReturnAddress: c.ReturnAddress, ObjectBase: c.ObjectBase, ObjectDynamic: c.ObjectDynamic,
			}
			records = append(records, unsafe.Slice((*byte)(unsafe.Pointer(&e)), unsafe.Sizeof(e))...)
		}
	}
	return records
}
