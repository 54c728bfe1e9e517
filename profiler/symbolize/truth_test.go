package symbolize

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/testdata/subjects"
)

// llvmFrame is one frame as llvm-symbolizer prints it.
type llvmFrame struct {
	FunctionName, FileName string
	Line                   int
}

// llvmFrames asks llvm-symbolizer for the frames of addresses, innermost first.
func llvmFrames(t testing.TB, path string, addresses []uint64) [][]llvmFrame {
	t.Helper()
	var input bytes.Buffer
	for _, a := range addresses {
		fmt.Fprintf(&input, "%#x\n", a)
	}
	cmd := exec.Command(needTool(t, "llvm-symbolizer"), "--output-style=JSON", "--no-demangle", "--obj="+path)
	cmd.Stdin = &input
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", cmd, err)
	}
	var all [][]llvmFrame
	for line := range bytes.Lines(out) {
		var answer struct{ Symbol []llvmFrame }
		if err := json.Unmarshal(line, &answer); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		all = append(all, answer.Symbol)
	}
	if len(all) != len(addresses) {
		t.Fatalf("%d answers to %d addresses", len(all), len(addresses))
	}
	return all
}

// describe leaves the file of a line 0 out: the compiler says then that the
// code belongs to no line, and tools differ in whether they show the file.
func describe(function, file string, line int) string {
	if line == 0 {
		return function
	}
	file = filepath.Clean(file)
	return fmt.Sprintf("%s %s:%d", function, file, line)
}

// spread returns addresses all over the functions of an object.
func spread(o *Object, each uint64, skip func(Function) bool) (addresses []uint64) {
	for i, f := range o.Functions() {
		if f.Size == 0 || skip != nil && skip(f) {
			continue
		}
		for j := range min(each, f.Size) {
			addresses = append(addresses, f.Address+(f.Size*(uint64(i)%5+5*j))/(5*each))
		}
	}
	return addresses
}

// knownTo leaves out what llvm-symbolizer does not know: it takes a stub of the
// PLT, which no table lists, for a part of the function before it.
func knownTo(f Function) bool {
	return !strings.HasSuffix(f.Name, pltSuffix) && f.Name != "_init" && f.Name != "_fini"
}

// agree fails the test for addresses whose frames are not llvm-symbolizer's.
// Functions of equal code are folded into one by the linker, and each tool
// takes one of their names: there the name of the outermost frame is free.
func agree(t *testing.T, path string, each uint64) {
	t.Helper()
	o := openObject(t, path)
	folded := map[uint64]int{} // names of each function's address
	for line := range strings.Lines(output(t, "nm", "--defined-only", path)) {
		var address uint64
		if _, err := fmt.Sscanf(line, "%x", &address); err == nil {
			folded[address]++
		}
	}
	addresses := spread(o, each, func(f Function) bool { return !knownTo(f) })
	many := func(i int) bool {
		s, ok := o.table().find(addresses[i])
		return ok && folded[s.address] > 1
	}
	bad, inlined, free := 0, 0, 0
	for i, want := range llvmFrames(t, path, addresses) {
		frames := o.Frames(addresses[i])
		if len(frames) > 1 {
			inlined++
		}
		var a, b []string
		for _, f := range frames {
			a = append(a, describe(f.Function, f.File, f.Line))
		}
		for _, f := range want {
			b = append(b, describe(Demangle(f.FunctionName), f.FileName, f.Line))
		}
		if len(a) == len(b) && len(a) > 0 && a[len(a)-1] != b[len(b)-1] && many(i) {
			free++
			a, b = a[:len(a)-1], b[:len(b)-1]
		}
		if strings.Join(a, "\n") != strings.Join(b, "\n") {
			if bad++; bad < 4 {
				t.Errorf("%#x:\n%s\nllvm-symbolizer says:\n%s", addresses[i], strings.Join(a, "\n"), strings.Join(b, "\n"))
			}
		}
	}
	if bad > 0 || free*50 > len(addresses) {
		t.Errorf("%d of %d addresses differ, %d have another name of the same code", bad, len(addresses), free)
	}
	t.Logf("%d addresses, %d with inlined calls, %d with another name of the same code", len(addresses), inlined, free)
	if len(addresses) < 10 {
		t.Errorf("only %d addresses", len(addresses))
	}
}

// All functions of the Rust extension and of what it is linked with: Rust's two
// manglings, C, assembly; DWARF 4 and 5 in one file.
func TestRustFramesAreThoseOfLLVM(t *testing.T) {
	agree(t, subjects.Build(t, subjects.RustExtension), 4)
}

// Every instruction of C++ in either version of DWARF, packed, and split into a
// file that is not there: then lines and functions remain.
func TestCPPFramesAreThoseOfLLVM(t *testing.T) {
	for _, flags := range []string{"-gdwarf-4", "-gdwarf-5", "-gdwarf-5 -gz=zlib", "-gdwarf-4 -gsplit-dwarf", "-gdwarf-5 -gsplit-dwarf", "-g1", "-fdebug-types-section"} {
		t.Run(flags, func(t *testing.T) {
			path := buildC(t, "names.cc", strings.Fields(flags)...)
			if dwo, _ := filepath.Glob(path + "*.dwo"); strings.Contains(flags, "split") {
				if len(dwo) == 0 {
					t.Fatal("the compiler wrote no .dwo file")
				}
				for _, f := range dwo {
					if err := os.Remove(f); err != nil {
						t.Fatal(err)
					}
				}
			}
			agree(t, path, 1000)
		})
	}
}

// What dwz packs, as Debian does its debug files, names the same.
func TestPackedByDWZ(t *testing.T) {
	path := filepath.Join(t.TempDir(), "packed")
	output(t, "cp", subjects.Build(t, subjects.RustExtension), path)
	output(t, "dwz", path)
	agree(t, path, 1)
}

func TestOldCompression(t *testing.T) {
	full := buildC(t, "chain.c", "-pie")
	path := filepath.Join(t.TempDir(), "zlib-gnu")
	output(t, "objcopy", "--compress-debug-sections=zlib-gnu", full, path)
	if o := openObject(t, path); o.file.Section(".zdebug_info") == nil {
		t.Skip("this objcopy compresses in the new manner only")
	}
	want, got := openObject(t, full), openObject(t, path)
	for _, f := range want.Functions() {
		if diff := cmp.Diff(want.Frames(f.Address), got.Frames(f.Address)); diff != "" {
			t.Errorf("%s: %s", f.Name, diff)
		}
	}
}

// verbose is what binutils leaves in a name: Rust's hashes of a function and of
// a crate, LLVM's number of a clone, the type of a constant.
var verbose = regexp.MustCompile(`(::h[0-9a-f]{16})?(\.llvm\.[0-9]+)?$|\[[0-9a-f]+\]|: (usize|u8|u16|u32|u64|bool)\b`)

// inClosure is an item declared inside a closure, which has the empty name "0":
// the demangler takes it for a part of the length that follows, and gives up or
// loses one of the two.
var inClosure = regexp.MustCompile(`^_R.*C.*0[0-9]`)

// binutils reads both of Rust's manglings by another library.
func TestDemangledNamesAreThoseOfBinutils(t *testing.T) {
	path := subjects.Build(t, subjects.RustExtension)
	names := map[string]bool{}
	for line := range strings.Lines(output(t, "nm", "--defined-only", path)) {
		if f := strings.Fields(line); len(f) == 3 && mangled(f[2]) {
			names[f[2]] = true
		}
	}
	var list []string
	for name := range names {
		list = append(list, name)
	}
	cmd := exec.Command(needTool(t, "c++filt"), "--format=rust")
	cmd.Stdin = strings.NewReader(strings.Join(list, "\n") + "\n")
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	bad, unread := 0, 0
	for i, name := range list {
		got, want := Demangle(name), verbose.ReplaceAllString(want[i], "")
		if got != want && inClosure.MatchString(name) {
			unread++
			continue
		}
		if got != want {
			if bad++; bad < 6 {
				t.Errorf("%s is\n%s, binutils says\n%s", name, got, want)
			}
		}
	}
	t.Logf("%d of %d names differ, %d of items in closures", bad, len(list), unread)
	if len(list) < 1000 || unread > 10 {
		t.Errorf("%d names, %d of items in closures differ", len(list), unread)
	}
}
