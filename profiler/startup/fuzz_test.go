package startup

import (
	"encoding/binary"
	"testing"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

var (
	fuzzFunctions = []string{
		loader.Fixup, loader.Relocate, loader.Init, loader.CallInit, loader.Dlopen, loader.MuslDlopen, loader.MuslDlsym,
		"SSL_CTX_load_verify_file", "arena_get2", "",
	}
	fuzzMarks = []string{doInit, gcEnable, gcStart, gcEnd, mallocInit, loadGoRoots, schedInit, ""}
	// read, open, close, mmap, brk, mremap, munmap, getdents64 of amd64.
	fuzzCalls = []int{0, 2, 3, 9, 12, 25, 11, 217}
	fuzzPaths = []string{"/etc/ssl/certs/a.pem", "/etc/malloc.conf", "/lib/liba.so", "", "/etc/_rjem_malloc.conf", "/proc/self/fd/3"}
)

// oddEvents makes events of bytes, 12 each, with times and values that no
// kernel would give beside usual ones.
func oddEvents(data []byte) (events []trace.Event) {
	for ; len(data) >= 12; data = data[12:] {
		a := data[:12]
		value := func(i int) uint64 { // small ones, near a mapping, or huge
			v := uint64(binary.LittleEndian.Uint16(a[i:]))
			if a[i+1] >= 0xf0 {
				v = v<<48 | v
			}
			return v
		}
		h := trace.Header{Time: int64(value(2)), PID: 10 + int(a[1]&3), TID: 10 + int(a[1]>>2&3)}
		end := int64(value(4))
		switch a[0] % 8 {
		case 0, 1:
			events = append(events, &trace.FunctionCall{
				Header: h, End: end, Name: fuzzFunctions[int(a[1]>>4)%len(fuzzFunctions)],
				Args: [3]uint64{value(6), value(8), value(10)}, Return: value(6), Dynamic: value(8), Base: value(10),
				Text: fuzzPaths[int(a[6])%len(fuzzPaths)], Minor: int(int8(a[10])),
			})
		case 2:
			events = append(events, &trace.Mark{
				Header: h, Kind: trace.MarkKind(a[4] % 8), Name: fuzzMarks[int(a[1]>>4)%len(fuzzMarks)],
				ID: value(6), Value: value(8), Spent: int64(value(10)),
			})
		case 3, 4:
			events = append(events, &trace.Syscall{
				Header: h, End: end, Number: fuzzCalls[int(a[1]>>4)%len(fuzzCalls)], Return: int64(value(6)),
				Args: [6]uint64{value(6), value(8), value(10), value(4)}, Path: fuzzPaths[int(a[10])%len(fuzzPaths)],
				Stack: trace.Stack{User: []uint64{value(8), value(10)}},
			})
		case 5:
			events = append(events, &trace.Fault{Header: h, End: end, Address: value(6), Major: a[8]&1 == 1})
		case 6:
			events = append(events, &trace.Exec{Header: h, OldTID: h.TID, Entry: value(6), Base: value(8)})
		case 7:
			events = append(events, &trace.Exit{Header: h, GroupDead: a[4]&1 == 1})
		}
	}
	return events
}

// FuzzCompute: whatever a recording says, its account has sensible spans.
func FuzzCompute(f *testing.F) {
	f.Add([]byte{}, int64(1), int64(1000))
	f.Add([]byte("\x00\x00\x10\x00\x20\x00\x00\x11\x00\x20\x01\x00\x02\x00\x40\x00\x04\x00\x07\x00\x00\x50\xff\xff"), int64(1), int64(1<<62))
	f.Add([]byte("\x03\x10\x01\x00\x02\x00\x03\x00\x00\x00\x01\x00\x03\x30\x04\x00\x05\x00\x00\xf0\x00\xf0\x00\xff"), int64(-1<<62), int64(1<<62))
	facts := loader.Objects{
		"/bin/program": {PLT: []loader.PLTEntry{{Symbol: "one", Lazy: true}, {Symbol: "two"}}}, "/lib/liba.so": nil,
	}
	where := space{
		{Start: 0x1000, Limit: 0x2000, Path: "/bin/program"},
		{Start: 0x2000, Limit: 0x3000, Path: "/lib/liba.so"},
		{Start: 0x3000, Limit: 0x4000, Path: "[vdso]"},
		{Start: 0x5000, Limit: 0x6000, Path: "/bin/program"},
	}
	f.Fuzz(func(t *testing.T, data []byte, start, end int64) {
		tl, err := trace.Build(oddEvents(data[:min(len(data), 12*500)]), trace.BuildOptions{Arch: "amd64", Stop: max(end, 0)})
		if err != nil {
			t.Skip(err)
		}
		window := &phase.Result{Start: start, End: end, Phases: []phase.Phase{
			{Name: phase.Loader, Start: start, End: start/2 + end/2}, {Name: phase.RuntimeInit, Start: start/2 + end/2, End: end},
		}}
		r := Compute(Input{Timeline: tl, Phases: window, Resolver: where, Facts: facts})
		for _, b := range r.Bindings {
			if b.NS() < 0 {
				t.Errorf("a binding of %d ns", b.NS())
			}
		}
		for _, p := range r.Packages {
			if p.NS() < 0 {
				t.Errorf("a package of %d ns", p.NS())
			}
		}
		for _, c := range r.Certs {
			if c.NS() < 0 {
				t.Errorf("a certificate of %d ns: %+v", c.NS(), c.Span)
			}
		}
		for _, p := range r.Parts {
			if p.NS < 0 {
				t.Errorf("the part %s has %d ns", p.Name, p.NS)
			}
		}
	})
}
