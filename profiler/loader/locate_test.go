package loader_test

import (
	"bytes"
	"debug/elf"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/probe"
)

// fetched is what testdata/loaders/fetch leaves.
const fetched = "../../build/loaders"

// skip is for what a machine may lack; CI lacks nothing.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// systemLoader is this machine's.
func systemLoader(t *testing.T) string {
	t.Helper()
	for _, p := range []string{"/lib64/ld-linux-x86-64.so.2", "/lib/ld-linux-aarch64.so.1"} {
		if _, err := os.Stat(p); err == nil {
			return p
		}
	}
	skip(t, "no glibc loader on this machine")
	return ""
}

func locate(t *testing.T, path string, opts loader.Options) *loader.Loader {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	l, err := loader.Locate(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// symbols are the functions of a file's .symtab, as debug/elf reads it.
func symbols(t *testing.T, path string) map[string]uint64 {
	t.Helper()
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	all, err := f.Symbols()
	if err != nil {
		t.Fatal(err)
	}
	named := map[string]uint64{}
	for _, s := range all {
		if elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			named[s.Name] = s.Value
		}
	}
	return named
}

// truth is where a debug file has the functions that Locate looks for.
func truth(t *testing.T, debug string) map[string]uint64 {
	t.Helper()
	all := symbols(t, debug)
	want := map[string]uint64{}
	for _, name := range loader.FunctionNames[loader.Glibc] {
		names := []string{name}
		switch name {
		case "_dl_relocate_object":
			names = []string{"_dl_relocate_object_no_relro", name}
		case "call_init":
			names = []string{name, "call_init.part.0"}
		}
		for _, n := range names {
			if a, ok := all[n]; ok {
				want[name] = a
				break
			}
		}
	}
	return want
}

// TestPatternsAgreeWithDebugSymbols: in each stripped loader, every function is
// recognised by its code alone, and lies where the distribution's debug file of
// the same build ID has it.
func TestPatternsAgreeWithDebugSymbols(t *testing.T) {
	type pair struct{ name, file, debug string }
	var pairs []pair
	system := systemLoader(t)
	id := locate(t, system, loader.Options{}).BuildID
	if f, err := loader.OpenDebug("", id); err == nil {
		pairs = append(pairs, pair{"system", system, f.Name()})
		f.Close()
	}
	dirs, _ := filepath.Glob(filepath.Join(fetched, "*-*64"))
	for _, d := range dirs {
		if _, err := os.Stat(filepath.Join(d, "ld.so.debug")); err == nil {
			pairs = append(pairs, pair{filepath.Base(d), filepath.Join(d, "ld.so"), filepath.Join(d, "ld.so.debug")})
		}
	}
	if len(dirs) == 0 {
		skip(t, "no loaders of other releases: make loaders fetches them")
	}
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			l := locate(t, p.file, loader.Options{PatternsOnly: true})
			got := map[string]uint64{}
			for _, f := range l.Functions {
				if !f.Found() {
					t.Errorf("%s: %s", f.Name, f.Reason)
					continue
				}
				got[f.Name] = f.Address
				if f.Source == loader.FromSymbols && f.Name != "_dl_debug_state" {
					t.Errorf("%s was found in %s, not by its code", f.Name, f.Source)
				}
			}
			if diff := cmp.Diff(truth(t, p.debug), got); diff != "" {
				t.Errorf("addresses (-debug file +pattern):\n%s", diff)
			}
			if len(l.Warnings) != 0 {
				t.Errorf("warnings: %q", l.Warnings)
			}
		})
	}
}

// TestDebugFileIsPreferred: with the debug file at hand, addresses come from it,
// and another build's is refused.
func TestDebugFileIsPreferred(t *testing.T) {
	dirs, _ := filepath.Glob(filepath.Join(fetched, "*-amd64", "ld.so.debug"))
	if len(dirs) < 2 {
		skip(t, "no loaders of other releases: make loaders fetches them")
	}
	open := func(path string) *os.File {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	file := filepath.Join(filepath.Dir(dirs[0]), "ld.so")
	l := locate(t, file, loader.Options{Debug: open(dirs[0])})
	f := l.Function("_dl_fixup")
	if f.Source != loader.FromDebugFile || len(f.Calls) == 0 || len(l.Warnings) != 0 {
		t.Errorf("_dl_fixup = %+v, warnings %q; want it from the debug file, with its calls", f, l.Warnings)
	}
	l = locate(t, file, loader.Options{Debug: open(dirs[1])})
	f = l.Function("_dl_fixup")
	if f.Source != loader.FromPattern || len(l.Warnings) != 1 || !strings.Contains(l.Warnings[0], "another build") {
		t.Errorf("with another build's debug file: _dl_fixup from %s, warnings %q", f.Source, l.Warnings)
	}
}

// TestPointsAreCheap: also in loaders without a debug file every function is
// found. On amd64 every function but _dl_debug_state, a lone ret,
// has an entry that the kernel emulates; on arm64 the calls and returns are
// branches, which it simulates.
func TestPointsAreCheap(t *testing.T) {
	files := []string{systemLoader(t)}
	for _, pattern := range []string{filepath.Join(fetched, "*-*64", "ld.so"), "/usr/aarch64-linux-gnu/lib/ld-linux-*.so.1"} {
		more, _ := filepath.Glob(pattern)
		files = append(files, more...)
	}
	for _, file := range files {
		l := locate(t, file, loader.Options{PatternsOnly: true})
		for _, f := range l.Functions {
			if !f.Found() {
				t.Errorf("%s: %s: %s", file, f.Name, f.Reason)
			}
			if l.Arch == "amd64" && f.Name != "_dl_debug_state" && !f.Entry.Cost.Cheap() {
				t.Errorf("%s: a probe of %s at +%d is %v", file, f.Name, f.Entry.Address-f.Address, f.Entry.Cost)
			}
			for _, p := range append(f.Calls, f.Returns...) {
				if p.Cost != probe.Emulated {
					t.Errorf("%s: %s: a branch at %#x is %v", file, f.Name, p.Address, p.Cost)
				}
			}
			if l.Arch == "arm64" && f.Name == "_dl_fixup" && (len(f.Calls) != 1 || len(f.Returns) == 0) {
				t.Errorf("%s: _dl_fixup has %d calls and %d returns", file, len(f.Calls), len(f.Returns))
			}
		}
	}
}

// TestMusl: musl's loader keeps its stages in .dynsym.
func TestMusl(t *testing.T) {
	files, _ := filepath.Glob(filepath.Join(fetched, "*-*64", "musl.so"))
	if len(files) == 0 {
		skip(t, "no musl: make loaders fetches it")
	}
	for _, file := range files {
		l := locate(t, file, loader.Options{})
		if l.Kind != loader.Musl {
			t.Errorf("%s is of kind %s", file, l.Kind)
		}
		f, err := elf.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		dynamic, err := f.DynamicSymbols()
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{}
		for _, s := range dynamic {
			want[s.Name] = s.Value
		}
		for _, name := range loader.FunctionNames[loader.Musl] {
			if got := l.Function(name); got.Address != want[name] || !got.Found() {
				t.Errorf("%s: %s at %#x (%s), .dynsym has it at %#x", file, name, got.Address, got.Reason, want[name])
			}
		}
		_ = f.Close()
	}
}

// TestAmbiguityIsRefused changes one of the three resolvers of an amd64 loader
// to call another function, and takes a message away.
func TestAmbiguityIsRefused(t *testing.T) {
	file, err := os.ReadFile(systemLoader(t))
	if err != nil {
		t.Fatal(err)
	}
	l, err := loader.Locate(bytes.NewReader(file), loader.Options{PatternsOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if l.Arch != "amd64" {
		skip(t, "arm64 has one resolver")
	}
	fixup := l.Function("_dl_fixup")
	if len(fixup.Calls) < 2 {
		t.Fatalf("%d resolvers", len(fixup.Calls))
	}
	changed := bytes.Clone(file)
	changed[fixup.Calls[0].Offset+1]++
	message := bytes.Index(changed, []byte("\nrelocation processing"))
	changed[message+1] = 'R'
	l, err = loader.Locate(bytes.NewReader(changed), loader.Options{PatternsOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	if f := l.Function("_dl_fixup"); f.Found() || !strings.HasPrefix(f.Reason, "ambiguous: ") {
		t.Errorf("_dl_fixup with contradicting resolvers: %+v", f)
	}
	if f := l.Function("_dl_relocate_object"); f.Found() || !strings.Contains(f.Reason, "is not in the file") {
		t.Errorf("_dl_relocate_object without its message: %+v", f)
	}
	if f := l.Function("_dl_open"); !f.Found() {
		t.Errorf("_dl_open is lost too: %s", f.Reason)
	}
}

// TestUnknownLoader: a program that is no loader has no functions and says so.
func TestUnknownLoader(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := locate(t, self, loader.Options{})
	if f := l.Function("_dl_fixup"); l.Kind != loader.Unknown || len(l.Functions) != 0 || f.Found() || f.Reason == "" {
		t.Errorf("a Go program is of kind %s, with _dl_fixup = %+v", l.Kind, f)
	}
	if _, err := loader.Locate(strings.NewReader("#!/bin/sh\n"), loader.Options{}); err == nil {
		t.Error("a script is a loader")
	}
}

func TestParseArgs(t *testing.T) {
	tests := []struct {
		text string
		want []loader.Arg
	}{
		{"-8@%r12 8@%rbp 8@24(%rbx)", []loader.Arg{
			{Size: -8, Text: "%r12", Kind: loader.Register, Reg: "r12"},
			{Size: 8, Text: "%rbp", Kind: loader.Register, Reg: "rbp"},
			{Size: 8, Text: "24(%rbx)", Kind: loader.Memory, Reg: "rbx", Offset: 24},
		}},
		{"-8@x20 8@x21 8@[x19, 24] 8@[sp]", []loader.Arg{
			{Size: -8, Text: "x20", Kind: loader.Register, Reg: "x20"},
			{Size: 8, Text: "x21", Kind: loader.Register, Reg: "x21"},
			{Size: 8, Text: "[x19, 24]", Kind: loader.Memory, Reg: "x19", Offset: 24},
			{Size: 8, Text: "[sp]", Kind: loader.Memory, Reg: "sp"},
		}},
		{"-4@$0 -4@-1 4@-20(%rbp) 8@(%rax,%rbx,8)", []loader.Arg{
			{Size: -4, Text: "$0", Kind: loader.Constant},
			{Size: -4, Text: "-1", Kind: loader.Constant, Offset: -1},
			{Size: 4, Text: "-20(%rbp)", Kind: loader.Memory, Reg: "rbp", Offset: -20},
			{Size: 8, Text: "(%rax,%rbx,8)"},
		}},
		{"", nil},
	}
	for _, tt := range tests {
		if diff := cmp.Diff(tt.want, loader.ParseArgs(tt.text)); diff != "" {
			t.Errorf("ParseArgs(%q) (-want +got):\n%s", tt.text, diff)
		}
	}
}
