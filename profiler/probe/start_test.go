package probe

import (
	"debug/elf"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// elfObject is an Object on debug/elf: its symbols are looked up only if named.
type elfObject struct {
	nameless
	*elf.File
	named bool
}

func (o elfObject) LookupFunc(name string) (address, size uint64, ok bool) {
	symbols, _ := o.Symbols()
	for _, s := range symbols {
		if o.named && s.Name == name && elf.ST_TYPE(s.Info) == elf.STT_FUNC {
			return s.Value, s.Size, true
		}
	}
	return 0, 0, false
}

func (o elfObject) segment(address uint64) *elf.Prog {
	for _, p := range o.Progs {
		if p.Type == elf.PT_LOAD && address >= p.Vaddr && address-p.Vaddr < p.Filesz {
			return p
		}
	}
	return nil
}

func (o elfObject) FileOffset(address uint64) (uint64, error) {
	if p := o.segment(address); p != nil {
		return address - p.Vaddr + p.Off, nil
	}
	return 0, errors.New("not in the file")
}

func (o elfObject) ReadAddress(address, n uint64) ([]byte, error) {
	p := o.segment(address)
	if p == nil {
		return nil, errors.New("not in the file")
	}
	b := make([]byte, min(n, p.Filesz-(address-p.Vaddr)))
	_, err := p.ReadAt(b, int64(address-p.Vaddr))
	return b, err
}

// lacking skips a test for lack of a tool, and fails it where CI forbids that.
func lacking(t *testing.T, tool string) {
	t.Helper()
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatalf("%s is not installed", tool)
	}
	t.Skipf("%s is not installed", tool)
}

func compile(t *testing.T, compiler, source string, flags ...string) (f *elf.File, path string) {
	t.Helper()
	if _, err := exec.LookPath(compiler); err != nil {
		lacking(t, compiler)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.c"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(compiler, append([]string{"-O2", "-o", "a", "a.c"}, flags...)...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	path = filepath.Join(dir, "a")
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f, path
}

// Where no symbol tells, main is found at the address that the symbol has.
func TestMainIsFoundWithoutSymbols(t *testing.T) {
	for _, arch := range []struct{ name, compiler string }{{"amd64", "gcc"}, {"arm64", "aarch64-linux-gnu-gcc"}} {
		for _, flag := range []string{"-pie", "-no-pie", "-static", "-static-pie"} {
			t.Run(arch.name+flag, func(t *testing.T) {
				f, _ := compile(t, arch.compiler, "int main(void) { return 0; }", flag)
				point := func(named bool) Point {
					plan := For(Program{Object: elfObject{File: f, named: named}, Entry: f.Entry, Arch: arch.name})
					at := slices.IndexFunc(plan.Points, func(p Point) bool { return p.Kind == Main })
					if at < 0 {
						t.Fatalf("%+v", plan)
					}
					return plan.Points[at]
				}
				if want, got := point(true), point(false); got != want {
					t.Errorf("%+v, want %+v", got, want)
				}
			})
		}
	}
}

func TestMainIsNotGuessed(t *testing.T) {
	for _, arch := range []string{"amd64", "arm64"} {
		f, _ := compile(t, map[string]string{"amd64": "gcc", "arm64": "aarch64-linux-gnu-gcc"}[arch],
			"void _start(void) { for (;;); }", "-nostdlib", "-static")
		plan := For(Program{Object: elfObject{File: f}, Entry: f.Entry, Arch: arch})
		if len(plan.Points) != 0 || len(plan.Missing) != 1 || !strings.HasPrefix(plan.Missing[0], "main:") {
			t.Errorf("%s: %+v", arch, plan)
		}
	}
}

// nameless is what the objects of these tests have nothing of.
type nameless struct{}

func (nameless) FuncName(uint64) string                  { return "" }
func (nameless) GoText() (address, size uint64, ok bool) { return 0, 0, false }
func (nameless) HeadersAddress() (uint64, bool)          { return 0, false }
func (nameless) SDTNotes() (notes []byte, base uint64)   { return nil, 0 }

func (nameless) Frameless(uint64) bool { return false }

// fileOf is an object of one segment.
type fileOf struct {
	nameless
	b []byte
}

func (o fileOf) LookupFunc(string) (address, size uint64, ok bool) { return 0, 0, false }
func (o fileOf) FileOffset(a uint64) (uint64, error) {
	if a < uint64(len(o.b)) {
		return a, nil
	}
	return 0, errors.New("not in the file")
}

func (o fileOf) ReadAddress(a, n uint64) ([]byte, error) {
	if a >= uint64(len(o.b)) {
		return nil, errors.New("not in the file")
	}
	return o.b[a:min(uint64(len(o.b)), a+n)], nil
}

func FuzzMainFromStart(f *testing.F) {
	f.Add([]byte("\x5e\x48\x89\xe2\x48\x8d\x3d\x00\x00\x00\x00\xff\x15"), true)
	f.Add([]byte("\x00\x00\x00\x90\x00\x00\x00\x91"), false)
	f.Fuzz(func(t *testing.T, code []byte, amd64 bool) {
		p := Program{Object: fileOf{b: code}, Arch: "arm64"}
		if amd64 {
			p.Arch = "amd64"
		}
		if address, ok := p.mainFromStart(); ok && address >= uint64(len(code)) {
			t.Errorf("main at %#x of %d bytes", address, len(code))
		}
	})
}
