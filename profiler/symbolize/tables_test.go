package symbolize

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/trace"
)

// objdump knows the stubs of a PLT too.
func TestPLTStubsAreThoseOfObjdump(t *testing.T) {
	for _, flags := range [][]string{{"-pie"}, {"-no-pie", "-Wl,-z,lazy"}, {"-pie", "-fcf-protection=full", "-Wl,-z,ibtplt"}} {
		path := buildC(t, "chain.c", flags...)
		o := openObject(t, path)
		n := 0
		for line := range strings.Lines(output(t, "objdump", "-d", "--section=.plt", "--section=.plt.sec", "--section=.plt.got", path)) {
			var address uint64
			var label string
			if _, err := fmt.Sscanf(line, "%x <%s", &address, &label); err != nil || !strings.Contains(label, "@plt>:") {
				continue
			}
			want := strings.TrimSuffix(label, ">:")
			if strings.HasPrefix(want, "*ABS*") {
				continue
			}
			n++
			if frames := o.Frames(address + 4); len(frames) != 1 || frames[0].Function != want {
				t.Errorf("%v: %#x is %v, objdump says %s", flags, address, frames, want)
			}
		}
		if n == 0 {
			t.Errorf("%v: objdump lists %d stubs", flags, n)
		}
	}
}

// miniDebugInfo makes what Fedora's find-debuginfo does: a stripped program
// with its static functions' symbols in an xz-compressed section.
func miniDebugInfo(t testing.TB, xzFlags ...string) (stripped, full string) {
	t.Helper()
	full = buildC(t, "chain.c", "-pie")
	dir := t.TempDir()
	mini := filepath.Join(dir, "mini")
	stripped = filepath.Join(dir, "stripped")
	output(t, "objcopy", "--only-keep-debug", "--strip-debug", full, mini)
	packed := output(t, "xz", append(append([]string{"--stdout", "--format=xz"}, xzFlags...), mini)...)
	if err := os.WriteFile(mini+".xz", []byte(packed), 0o600); err != nil {
		t.Fatal(err)
	}
	output(t, "objcopy", "--strip-all", full, stripped+".0")
	output(t, "objcopy", "--add-section", ".gnu_debugdata="+mini+".xz", stripped+".0", stripped)
	return stripped, full
}

func TestMiniDebugInfoNamesStaticFunctions(t *testing.T) {
	for _, flags := range [][]string{nil, {"-9e", "--check=sha256"}, {"--check=none", "--block-size=4096"}} {
		stripped, full := miniDebugInfo(t, flags...)
		o, want := openObject(t, stripped), openObject(t, full)
		for _, name := range []string{"local_leaf", "global_middle", "main"} {
			address, size, ok := want.LookupFunc(name)
			if !ok {
				t.Fatal(name)
			}
			frames := o.Frames(address + size/2)
			if len(frames) != 1 || frames[0].Function != name {
				t.Errorf("xz %v: %s is %v: %v", flags, name, frames, o.Err())
			}
		}
		if err := o.HasSymbols(); err != nil {
			t.Error(err)
		}
	}
}

func TestXZIsBounded(t *testing.T) {
	stripped, _ := miniDebugInfo(t)
	o := openObject(t, stripped)
	packed, err := o.sectionBytes(o.section(".gnu_debugdata", 0))
	if err != nil {
		t.Fatal(err)
	}
	for n := range 40 { // the dictionary's size of each code in turn
		b := bytes.Clone(packed)
		i := bytes.Index(b, []byte{0x21, 0x01})
		b[i+2] = byte(n)
		_, err := unpackXZ(b)
		if n > 28 && err == nil {
			t.Errorf("a dictionary of code %d was accepted", n)
		}
	}
	if _, err := unpackXZ(packed[:len(packed)/2]); err == nil {
		t.Error("half a stream was accepted")
	}
}

func FuzzXZ(f *testing.F) {
	stripped, _ := miniDebugInfo(f)
	o := openObject(f, stripped)
	packed, err := o.sectionBytes(o.section(".gnu_debugdata", 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(packed)
	f.Fuzz(func(t *testing.T, b []byte) {
		if out, err := unpackXZ(b); err == nil && len(out) > maxDebugData {
			t.Error(len(out))
		}
	})
}

// addr2line -i reads the same DWARF by another library: inlined calls and lines
// of C and C++ agree at every instruction of the program's own functions.
func TestDWARFFramesAreThoseOfAddr2line(t *testing.T) {
	for _, test := range []struct {
		source string
		flags  []string
		names  string // of functions that must be seen inlined
	}{
		{"chain.c", []string{"-pie"}, "inlined"},
		{"chain.c", []string{"-no-pie", "-gdwarf-4", "-gz=zlib"}, "inlined"},
		{"names.cc", nil, ""},
	} {
		path := buildC(t, test.source, test.flags...)
		o := openObject(t, path)
		var addresses []uint64
		for _, f := range o.Functions() {
			if f.Name == "main" || f.Name == "global_middle" || f.Name == "weak_outer" || strings.HasPrefix(f.Name, "store::") {
				for a := f.Address; a < f.Address+f.Size; a++ {
					addresses = append(addresses, a)
				}
			}
		}
		args := []string{"-a", "-i", "-f", "-e", path}
		for _, a := range addresses {
			args = append(args, fmt.Sprintf("%#x", a))
		}
		want := map[uint64][]string{}
		var at uint64
		lines := strings.Split(output(t, "addr2line", args...), "\n")
		for i := 0; i+1 < len(lines); {
			if strings.HasPrefix(lines[i], "0x") {
				if _, err := fmt.Sscanf(lines[i], "0x%x", &at); err != nil {
					t.Fatal(err)
				}
				i++
				continue
			}
			place, _, _ := strings.Cut(lines[i+1], " (discriminator")
			want[at] = append(want[at], Demangle(lines[i])+" "+filepath.Clean(place))
			i += 2
		}
		bad, inlined, seen := 0, 0, false
		for _, a := range addresses {
			var got []string
			frames := o.Frames(a)
			for i, f := range frames {
				got = append(got, fmt.Sprintf("%s %s:%d", f.Function, filepath.Clean(f.File), f.Line))
				seen = seen || f.Function == test.names && i < len(frames)-1
			}
			if len(got) > 1 {
				inlined++
			}
			if strings.Join(got, "\n") != strings.Join(want[a], "\n") {
				if bad++; bad < 4 {
					t.Errorf("%s %#x:\n%s\naddr2line says:\n%s", test.source, a, strings.Join(got, "\n"), strings.Join(want[a], "\n"))
				}
			}
		}
		if bad > 0 || inlined == 0 || test.names != "" && !seen {
			t.Errorf("%s: %d of %d addresses differ, %d inlined", test.source, bad, len(addresses), inlined)
		}
		t.Logf("%s %v: %d addresses, %d inlined", test.source, test.flags, len(addresses), inlined)
	}
}

// Separate debug files are found by build ID and by debug link, and one that
// does not belong is not taken.
func TestSeparateDebugFiles(t *testing.T) {
	full := buildC(t, "chain.c", "-pie")
	want := openObject(t, full)
	address, _, _ := want.LookupFunc("local_leaf")
	dir, debug := t.TempDir(), t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	id := want.Info.BuildID
	byID := filepath.Join(debug, ".build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(byID), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "objcopy", "--only-keep-debug", full, byID)
	output(t, "objcopy", "--strip-all", full, at("by-id"))
	output(t, "objcopy", "--only-keep-debug", full, at("link.debug"))
	output(t, "objcopy", "--strip-all", "--remove-section=.note.gnu.build-id", "--add-gnu-debuglink="+at("link.debug"), full, at("by-link"))
	other := t.TempDir()
	output(t, "cp", at("by-link"), filepath.Join(other, "by-link"))
	output(t, "objcopy", "--only-keep-debug", buildC(t, "names.cc"), filepath.Join(other, "link.debug"))
	for path, found := range map[string]bool{at("by-id"): true, at("by-link"): true, filepath.Join(other, "by-link"): false} {
		o := openObject(t, path)
		m := mappingOf(o, path, 1, 1, 0)
		c := NewCollector(Options{Open: openFile, DebugDir: debug})
		frames := c.frames(o, m, []uint64{address})[address]
		if found != (len(frames) == 1 && frames[0].Function == "local_leaf" && frames[0].Line > 0) {
			t.Errorf("%s: %v", path, frames)
		}
	}
}

// The subject's own view of the debug files comes before the host's, and a
// file is opened once for all cold starts.
func TestDebugFileIsThatOfTheSubjectAndReadOnce(t *testing.T) {
	full := buildC(t, "chain.c", "-pie")
	want := openObject(t, full)
	id := want.Info.BuildID
	root := t.TempDir() // the subject's
	const inside = "/usr/lib/debug"
	debug := filepath.Join(root, inside, ".build-id", id[:2], id[2:]+".debug")
	if err := os.MkdirAll(filepath.Dir(debug), 0o755); err != nil {
		t.Fatal(err)
	}
	output(t, "objcopy", "--only-keep-debug", full, debug)
	output(t, "objcopy", "--strip-all", full, filepath.Join(root, "program"))
	opened := map[string]int{}
	c := NewCollector(Options{Open: func(path string, m *trace.Mapping) (io.ReaderAt, io.Closer, error) {
		f, err := os.Open(filepath.Join(root, path))
		if err != nil {
			return nil, nil, err
		}
		opened[path]++
		return f, f, nil
	}})
	defer func() { _ = c.Close() }()
	subject := openObject(t, filepath.Join(root, "program"))
	for at, name := range []string{"local_leaf", "global_middle", "main"} {
		address, _, _ := want.LookupFunc(name)
		events := []trace.Event{mappingOf(subject, "/program", 1, int64(10*at+1), 0), stackEvent(1, int64(10*at+2), []uint64{address}, nil)}
		summary, err := c.Collect(t.Context(), events)
		if err != nil || summary.Named != 1 {
			t.Errorf("%s: %+v %v", name, summary, err)
		}
		l := c.Store().Resolver(events).Resolve(1, int64(10*at+2), address, false, false)
		if diff := cmp.Diff(want.Frames(address), l.Frames); diff != "" || l.Frames[0].Line == 0 {
			t.Errorf("%s: %s", name, diff)
		}
	}
	if n := opened[filepath.Join(inside, ".build-id", id[:2], id[2:]+".debug")]; n != 1 {
		t.Errorf("the debug file was opened %d times: %v", n, opened)
	}
}

// The stubs and functions of an arm64 program, by the cross tools.
func TestARM64StubsAreThoseOfObjdump(t *testing.T) {
	compiler, err := exec.LookPath("aarch64-linux-gnu-gcc")
	if err != nil {
		t.Skip("aarch64-linux-gnu-gcc is not installed")
	}
	for _, flags := range [][]string{nil, {"-mbranch-protection=standard", "-Wl,-z,force-bti"}} {
		path := filepath.Join(t.TempDir(), "chain")
		cmd := exec.Command(compiler, append(append([]string{"-O2", "-fno-builtin", "-o", path}, flags...), "testdata/c/chain.c")...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o := openObject(t, path)
		n := 0
		for line := range strings.Lines(output(t, "aarch64-linux-gnu-objdump", "-d", "--section=.plt", path)) {
			var address uint64
			var label string
			if _, err := fmt.Sscanf(line, "%x <%s", &address, &label); err != nil || !strings.HasSuffix(label, "@plt>:") {
				continue
			}
			n++
			if frames := o.Frames(address + 4); len(frames) != 1 || frames[0].Function != strings.TrimSuffix(label, ">:") {
				t.Errorf("%v: %#x is %v, objdump says %s", flags, address, frames, label)
			}
		}
		if n < 4 || o.Info.Machine != "arm64" {
			t.Errorf("%v: objdump lists %d stubs, machine %s", flags, n, o.Info.Machine)
		}
		for _, f := range o.Functions() {
			if strings.HasPrefix(f.Name, "$") {
				t.Errorf("%q is no function", f.Name)
			}
		}
	}
}

// A Rust program is told as one, and its generic code is named with the calls
// inlined into it.
func TestRustProgram(t *testing.T) {
	compiler, err := exec.LookPath("rustc")
	if err != nil {
		t.Skip("rustc is not installed")
	}
	for _, mangling := range []string{"", "v0"} {
		path := filepath.Join(t.TempDir(), "table")
		args := []string{"-O", "-g", "-o", path, "testdata/rust/table.rs"}
		if mangling != "" {
			args = append(args, "-C", "symbol-mangling-version="+mangling)
		}
		if out, err := exec.Command(compiler, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		o := openObject(t, path)
		if language, version := o.Language(); language != LanguageRust || version == "" {
			t.Errorf("%s %s", language, version)
		}
		found := false
		for _, f := range o.Functions() {
			if !strings.HasSuffix(f.Name, "::insert") || !strings.Contains(f.Name, "store::Table") {
				continue
			}
			for a := f.Address; a < f.Address+f.Size; a++ {
				names := ""
				for _, frame := range o.Frames(a) {
					names += frame.Function + ":" + fmt.Sprint(frame.Line) + " "
				}
				found = found || strings.Contains(names, "::push:11 ") && strings.Contains(names, "::insert:8 ")
			}
		}
		if !found {
			t.Errorf("mangling %q: push is not seen inlined into insert", mangling)
		}
		stripped := path + ".stripped"
		output(t, "objcopy", "--strip-all", path, stripped)
		s := openObject(t, stripped)
		if language, _ := s.Language(); language != LanguageRust || !s.Info.Stripped {
			t.Errorf("stripped: %s %+v", language, s.Info)
		}
		if err := SymbolsMatch(s, o); err != nil {
			t.Error(err)
		}
	}
}
