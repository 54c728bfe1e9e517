package capture

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/profiler/unwind"
)

// tables are the unwinding tables of the objects met so far, which are kept
// from one cold start to the next.
type tables struct {
	mu     sync.Mutex
	loaded map[string]*loadedTable // by build ID, else by path
	vdso   *unwind.Table
}

type loadedTable struct {
	table *unwind.Table // nil: the file cannot be read
	file  *os.File
	uses  int // cold starts since it was used
}

// maxTables bounds the files that are kept open.
const maxTables = 256

// unwindStacks replaces the keys of copied stacks in the records by the frames
// that the copies give, and lets the copies go.
func (t *Tracer) unwindStacks(raw *Raw, c *copies, events []trace.Event) {
	defer t.tables.trim()
	u := unwinding{
		tables: &t.tables, subject: raw.SubjectPID, arch: raw.Arch, copies: c.list,
		spaces: trace.NewSpaces(events), results: make([]unwound, len(c.list)), returns: replacedReturns(raw.Records),
		callers: newCallers(t.framed, events),
	}
	u.run(t.opts.Unwinders)
	raw.Records = u.rewrite(raw.Records)
}

// unwinding is the work on one cold start's copies.
type unwinding struct {
	tables  *tables
	subject int // PID
	arch    string
	spaces  *trace.Spaces
	copies  []copied
	results []unwound                          // of copies
	returns map[uint32][]bpf.InitprofEventCall // by TID: calls whose return addresses were replaced, by time
	callers *callers
}

// unwound is what a copy gave.
type unwound struct {
	frames []uint64
	why    trace.Truncation
	caller uint64 // see trace.Stack.Caller
}

// jobs divides the copies into lists that can be worked on apart: those of a
// thread from a complete one to the next.
func (u *unwinding) jobs() (jobs [][]int) {
	open := map[uint32]int{} // TID → index into jobs
	for i := range u.copies {
		e := &u.copies[i]
		job, ok := open[e.head.H.Tid]
		if !ok || e.complete {
			job = len(jobs)
			jobs = append(jobs, nil)
			open[e.head.H.Tid] = job
		}
		jobs[job] = append(jobs[job], i)
	}
	return jobs
}

func (u *unwinding) run(parallel int) {
	jobs := u.jobs()
	var next atomic.Int64
	var g errgroup.Group
	for range min(parallel, len(jobs)) {
		g.Go(func() error {
			w := worker{unwinding: u, unwinder: unwind.NewUnwinder(), tables: map[*trace.Mapping]*unwind.Table{}}
			for {
				i := int(next.Add(1)) - 1
				if i >= len(jobs) {
					return nil
				}
				w.unwind(jobs[i])
			}
		})
	}
	_ = g.Wait() // nothing fails
}

// worker is one goroutine of the unwinding.
type worker struct {
	*unwinding
	unwinder *unwind.Unwinder
	tables   map[*trace.Mapping]*unwind.Table
	thread   copiedThread
	block    []uint64 // room for frames
}

func (w *worker) unwind(job []int) {
	var stack unwind.Stack
	for _, i := range job {
		e := &w.copies[i]
		memory := w.thread.restore(e)
		w.putBack(e, memory)
		stack = unwind.Stack{
			Memory: unwind.Region{Start: e.head.Start, Bytes: memory, Missing: e.head.Missing},
			Top:    e.head.Top, Goroutine: e.golang,
		}
		takeRegisters(&stack, e.head.Registers[:])
		pid, at := int(e.head.H.Tgid), int64(e.head.H.KtimeNs)
		if cap(w.block)-len(w.block) < unwind.MaxFrames {
			w.block = make([]uint64, 0, 1<<16)
		}
		frames, why, byCFI := w.unwinder.Unwind(w.arch, &stack, func(address uint64) (unwind.Code, bool) {
			m := w.spaces.Mapping(pid, at, address)
			if m == nil || m.Prot&trace.ProtExec == 0 {
				return unwind.Code{}, false
			}
			t := w.table(m)
			if t == nil {
				return unwind.Code{}, true
			}
			c := unwind.Code{Table: t, Address: t.Address(m.Offset, address-m.Start+m.Offset)}
			c.Callback = e.golang != nil && w.callers.callback(e.head.H.Tgid, address)
			return c, true
		}, w.block[len(w.block):])
		w.block = w.block[:len(w.block)+len(frames)]
		result := unwound{frames: frames[:len(frames):len(frames)], why: why}
		if !byCFI {
			result.caller = stack.Caller(w.arch)
		}
		w.results[i] = result
	}
}

func (w *worker) table(m *trace.Mapping) *unwind.Table {
	t, ok := w.tables[m]
	if !ok {
		t = w.unwinding.tables.of(m, w.subject)
		w.tables[m] = t
	}
	return t
}

// rewrite gives the records their frames.
func (u *unwinding) rewrite(records []byte) []byte {
	type key struct{ tid, stack uint32 }
	found := make(map[key]int, len(u.copies))
	room := len(records)
	for i := range u.copies {
		h := &u.copies[i].head.H
		found[key{h.Tid, h.Stack}] = i
		room += len(u.results[i].frames) * 8
	}
	out := make([]byte, 0, room)
	var mixed []byte
	for data := aligned(records); len(data) > 0; {
		h, _, err := body[bpf.InitprofEventHeader](data)
		if err != nil || int(h.Size) < int(unsafe.Sizeof(*h)) || int(h.Size) > len(data) {
			return append(out, data...) // whoever decodes it will say so
		}
		record := data[:h.Size]
		data = data[h.Size:]
		if h.Stack == 0 {
			out = u.callers.insert(out, record)
			continue
		}
		i, ok := found[key{h.Tid, h.Stack}]
		if !ok {
			h.Stack, h.Truncation = 0, uint8(trace.TruncatedLost)
			out = append(out, record...)
			continue
		}
		if u.copies[i].golang == nil {
			out = u.results[i].replace(out, record)
			continue
		}
		mixed = u.results[i].replace(mixed[:0], record) // the leaf may be Go's
		out = u.callers.insert(out, mixed)
	}
	return out
}

// replace appends a record with the frames that its copy gave.
func (r *unwound) replace(out, record []byte) []byte {
	h, _, err := body[bpf.InitprofEventHeader](record)
	fixed := len(record) - 8*(int(h.UserFrames)+int(h.KernelFrames))
	if err != nil || fixed < int(unsafe.Sizeof(*h)) {
		return append(out, record...)
	}
	at := len(out)
	out = append(out, record[:fixed]...)
	kernel := record[fixed+8*int(h.UserFrames):]
	head := (*bpf.InitprofEventHeader)(unsafe.Pointer(&out[at]))
	head.Stack = 0
	if len(r.frames) >= int(h.UserFrames) || r.why == trace.Complete {
		out = append(out, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(r.frames))), 8*len(r.frames))...)
		head = (*bpf.InitprofEventHeader)(unsafe.Pointer(&out[at]))
		head.UserFrames, head.Truncation, head.Caller = uint8(len(r.frames)), uint8(r.why), r.caller
	} else { // the frame pointers led further
		out = append(out, record[fixed:len(record)-len(kernel)]...)
		if h.Truncation == uint8(trace.Complete) { // BPF did not trust it
			head = (*bpf.InitprofEventHeader)(unsafe.Pointer(&out[at]))
			head.Truncation = uint8(r.why)
		}
	}
	out = append(out, kernel...)
	head = (*bpf.InitprofEventHeader)(unsafe.Pointer(&out[at]))
	head.Size = uint16(len(out) - at)
	return out
}

// of returns the table of a mapping's object, nil where there is none.
func (t *tables) of(m *trace.Mapping, subject int) *unwind.Table {
	t.mu.Lock()
	defer t.mu.Unlock()
	if m.Path == trace.VDSO {
		if t.vdso == nil {
			if image, err := unwind.ReadVDSO(); err == nil {
				t.vdso, _ = unwind.OpenTable(strings.NewReader(string(image)))
			}
		}
		return t.vdso
	}
	if !strings.HasPrefix(m.Path, "/") {
		return nil
	}
	key := m.BuildID
	if key == "" {
		key = m.Path
	}
	if t.loaded == nil {
		t.loaded = map[string]*loadedTable{}
	}
	l := t.loaded[key]
	if l == nil {
		l = &loadedTable{}
		t.loaded[key] = l
		if f, err := openMapped(m, subject); err == nil {
			l.file = f
			l.table, _ = unwind.OpenTable(f)
		}
	}
	l.uses = 0
	return l.table
}

// openMapped opens the file of a mapping as its process saw it.
func openMapped(m *trace.Mapping, subject int) (*os.File, error) {
	name, deleted := strings.CutSuffix(m.Path, " (deleted)")
	var errs error
	for _, pid := range []int{m.PID, subject} {
		root := "/proc/" + strconv.Itoa(pid)
		if deleted {
			range_ := strconv.FormatUint(m.Start, 16) + "-" + strconv.FormatUint(m.Limit, 16)
			if f, err := os.Open(filepath.Join(root, "map_files", range_)); err == nil {
				return f, nil
			}
		}
		f, err := os.Open(root + "/root" + name)
		if err == nil {
			return f, nil
		}
		errs = err
	}
	if f, err := os.Open(name); err == nil { // the subject is gone
		return f, nil
	}
	return nil, errs
}

// trim forgets the objects that no cold start met for a while, and those that
// nothing but a path identifies.
func (t *tables) trim() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key, l := range t.loaded {
		l.uses++
		if strings.HasPrefix(key, "/") || l.uses > maxUnused || len(t.loaded) > maxTables {
			_ = l.file.Close()
			delete(t.loaded, key)
		}
	}
}

// maxUnused is for how many cold starts an object is kept that none of them used.
const maxUnused = 16
