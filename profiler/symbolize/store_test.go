package symbolize

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/trace"
	"github.com/initprof/initprof/profiler/unwind"
)

func openFile(path string, _ *trace.Mapping) (io.ReaderAt, io.Closer, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	return f, f, nil
}

// mappingOf returns a mapping of an object's code as the kernel would make it
// with the given load bias.
func mappingOf(o *Object, path string, pid int, at int64, bias uint64) *trace.Mapping {
	for _, s := range o.segments {
		if s.Exec {
			pad := s.Address & 4095
			return &trace.Mapping{
				Header: trace.Header{Time: at, PID: pid}, Path: path, Prot: trace.ProtRead | trace.ProtExec,
				Start: bias + s.Address - pad, Limit: bias + (s.Address+s.MemSize+4095)&^4095, Offset: s.Offset - pad,
			}
		}
	}
	return nil
}

func stackEvent(pid int, at int64, user, kernel []uint64) trace.Event {
	return &trace.Sample{Header: trace.Header{Time: at, PID: pid, TID: pid}, Stack: trace.Stack{User: user, Kernel: kernel}}
}

// A store that was written and read names what the collector named, without
// the objects.
func TestStoreNamesTheSameElsewhere(t *testing.T) {
	path := buildGo(t, goBuild{program: "goprog", flags: []string{"-buildmode=pie", "-ldflags=-s -w"}})
	o := openObject(t, path)
	entry, size, ok := o.LookupFunc("main.generic[go.shape.int]")
	if !ok {
		entry, size, ok = o.LookupFunc("main.(*walker).physical")
	}
	if !ok {
		t.Fatal("no function")
	}
	const bias = 0x7f0000000000
	kernel, err := parseKallsyms(strings.NewReader("ffffffff81000000 T _text\nffffffff81000100 t do_nap\nffffffffc0000000 t late\t[mod]\n"))
	if err != nil {
		t.Fatal(err)
	}
	kernel.BuildID = "abcd"
	events := []trace.Event{
		mappingOf(o, path, 7, 10, bias),
		stackEvent(7, 20, []uint64{bias + entry, bias + entry + size/2, 0x1234}, []uint64{0xffffffff81000101, 0xffffffff81000100}),
		&trace.Fork{Header: trace.Header{Time: 30, PID: 7}, ChildPID: 8, ChildTID: 8},
		stackEvent(8, 40, []uint64{bias + entry}, nil),
	}
	store, summary, err := Collect(context.Background(), events, Options{Open: openFile, Kernel: kernel})
	if err != nil {
		t.Fatal(err)
	}
	if summary.Addresses != 4 || summary.Named != 4 || len(summary.Warnings) > 0 {
		t.Errorf("summary %+v", summary)
	}
	dir := filepath.Join(t.TempDir(), "symbols")
	if err := store.Write(dir); err != nil {
		t.Fatal(err)
	}
	read, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	before, after := store.Resolver(events), read.Resolver(events)
	for _, q := range []struct {
		pid          int
		at           int64
		address      uint64
		kernel, back bool
		module       string
		frames       bool
	}{
		{7, 20, bias + entry, false, false, path, true},
		{7, 20, bias + entry + size/2, false, true, path, true},
		{8, 40, bias + entry, false, false, path, true},
		{7, 20, 0x1234, false, true, "", false},
		{7, 20, bias + entry + 1, false, false, path, false},
		{7, 20, 0xffffffff81000101, true, false, KernelModule, true},
		{7, 20, 0xffffffff81000100, true, true, KernelModule, true},
	} {
		l := before.Resolve(q.pid, q.at, q.address, q.kernel, q.back)
		if l.Module != q.module || len(l.Frames) > 0 != q.frames {
			t.Errorf("%#x: %+v", q.address, l)
		}
		if q.module == path && (l.BuildID != o.Info.BuildID || l.Address >= bias) {
			t.Errorf("%#x: %+v, want build ID %s", q.address, l, o.Info.BuildID)
		}
		if diff := cmp.Diff(l, after.Resolve(q.pid, q.at, q.address, q.kernel, q.back)); diff != "" {
			t.Errorf("%#x (-before +after writing):\n%s", q.address, diff)
		}
	}
}

func TestOpenStoreSaysWhatIsWrong(t *testing.T) {
	store := NewStore()
	m := store.moduleFor("aa", "aa", []Segment{{Offset: 1, Exec: true}})
	store.add(m, map[uint64][]Frame{5: {{"f", "f.c", 3}}})
	write := func() string {
		dir := t.TempDir()
		if err := store.Write(dir); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	dir := write()
	if err := os.Truncate(filepath.Join(dir, "aa.zst"), 12); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(dir); s == nil || err == nil || !strings.Contains(err.Error(), "module aa") {
		t.Errorf("truncated module: %v, %v", s, err)
	}
	dir = write()
	if err := os.WriteFile(filepath.Join(dir, "index.zst"), []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNotStore) {
		t.Errorf("foreign index: %v", err)
	}
	if _, err := Open(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty directory: %v", err)
	}
}

func TestSpacesFollowExecAndRemap(t *testing.T) {
	mapping := func(pid int, at int64, start, limit uint64, path string) *trace.Mapping {
		return &trace.Mapping{Header: trace.Header{Time: at, PID: pid}, Start: start, Limit: limit, Path: path}
	}
	events := []trace.Event{
		mapping(1, 10, 0x1000, 0x5000, "/holder"),
		&trace.Syscall{Header: trace.Header{Time: 20, PID: 1}, End: 40, Path: "/new"},
		mapping(1, 25, 0x1000, 0x2000, "/new"),
		&trace.Exec{Header: trace.Header{Time: 30, PID: 1}, VDSO: 0x9000},
		mapping(1, 50, 0x1800, 0x2800, "/lib"),
		&trace.Fork{Header: trace.Header{Time: 60, PID: 1}, ChildPID: 2},
		mapping(1, 70, 0x1000, 0x3000, "/later"),
	}
	s := trace.NewSpaces(events)
	for _, q := range []struct {
		pid     int
		at      int64
		address uint64
		want    string
	}{
		{1, 15, 0x1500, "/holder"},
		{1, 20, 0x1500, "/holder"}, // the stack of the execve itself
		{1, 26, 0x1500, "/new"},
		{1, 31, 0x1500, "/new"},
		{1, 31, 0x3000, ""}, // the old program's memory is gone
		{1, 31, 0x9010, VDSOModule},
		{1, 49, 0x1900, "/new"},
		{1, 51, 0x1900, "/lib"},
		{1, 49, 0x2500, "/lib"}, // not mapped by then: the next one
		{2, 65, 0x1900, "/lib"},
		{2, 99, 0x1900, "/lib"}, // the parent's later mappings are not the child's
		{1, 99, 0x1900, "/later"},
		{3, 99, 0x1900, ""},
	} {
		got := ""
		if m := s.Mapping(q.pid, q.at, q.address); m != nil {
			got = m.Path
		}
		if got != q.want {
			t.Errorf("process %d at %d: %#x is in %q, want %q", q.pid, q.at, q.address, got, q.want)
		}
	}
}

func TestKernelNamesAreThoseOfKallsyms(t *testing.T) {
	k, err := ReadKernel()
	if errors.Is(err, ErrKernelRestricted) {
		unavailable(t, "%v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/kallsyms")
	if err != nil {
		t.Fatal(err)
	}
	at := map[string]map[string]bool{}
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if strings.ContainsAny(f[1], "tTwW") {
			if at[f[0]] == nil {
				at[f[0]] = map[string]bool{}
			}
			at[f[0]][f[2]] = true
		}
	}
	checked := 0
	for address, names := range at {
		if loaded(names) {
			continue
		}
		a, _, _ := hexPrefix([]byte(address))
		if name := k.Name(a); !names[name] {
			t.Errorf("%s is %q, kallsyms says %v", address, name, names)
		}
		checked++
	}
	t.Logf("%d addresses", checked)
	if k.BuildID == "" {
		t.Log("no kernel build ID")
	}
}

// loaded reports whether a name is of a BPF program, which others may load and
// unload at any time.
func loaded(names map[string]bool) bool {
	for name := range names {
		if strings.HasPrefix(name, "bpf_") {
			return true
		}
	}
	return false
}

func TestKernelThatHidesItsAddresses(t *testing.T) {
	_, err := parseKallsyms(strings.NewReader("0000000000000000 T _text\n0000000000000000 t do_nap\n"))
	if !errors.Is(err, ErrKernelRestricted) {
		t.Error(err)
	}
}

func TestVDSO(t *testing.T) {
	image, err := unwind.ReadVDSO()
	if err != nil {
		unavailable(t, "%v", err)
	}
	o, err := OpenObject(readerAt(image))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"amd64": "__vdso_clock_gettime", "arm64": "__kernel_clock_gettime"}[runtime.GOARCH]
	address, _, ok := o.LookupFunc(want)
	if !ok {
		t.Fatalf("%s not found", want)
	}
	const base = 0x7ffff7fc0000
	events := []trace.Event{
		&trace.Exec{Header: trace.Header{Time: 1, PID: 1}, VDSO: base},
		stackEvent(1, 5, []uint64{base + address + 1}, nil),
	}
	store, _, err := Collect(context.Background(), events, Options{VDSO: image})
	if err != nil {
		t.Fatal(err)
	}
	l := store.Resolver(events).Resolve(1, 5, base+address+1, false, false)
	if l.Module != VDSOModule || !strings.HasSuffix(l.Function(), "clock_gettime") {
		t.Errorf("%+v", l)
	}
}
