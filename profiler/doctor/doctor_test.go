package doctor_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/doctor"
)

// skip is for what a machine may lack; CI lacks nothing.
func skip(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

func open(path string) (doctor.ReaderAtCloser, error) { return os.Open(path) }

func examine(t *testing.T, path string) *doctor.Report {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	r, err := doctor.Examine(f, path, doctor.Options{Open: open})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func run(t *testing.T, stdin, name string, args ...string) {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		skip(t, "%s is not installed", name)
	}
	cmd := exec.Command(path, args...)
	cmd.Stdin = strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
}

// compile builds a C program with a compiler and flags.
func compile(t *testing.T, compiler, source string, flags ...string) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "program")
	run(t, source, compiler, append([]string{"-x", "c", "-o", out, "-"}, flags...)...)
	return out
}

// built are the Go programs of this run, by how they were built: linking one
// takes seconds.
var built = map[string]string{}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, program := range built {
		_ = os.RemoveAll(filepath.Dir(program))
	}
	os.Exit(code)
}

// goProgram builds a Go program that uses net/http.
func goProgram(t *testing.T, env []string, flags ...string) string {
	t.Helper()
	key := fmt.Sprint(env, flags)
	if program := built[key]; program != "" {
		return program
	}
	dir, err := os.MkdirTemp("", "doctor")
	if err != nil {
		t.Fatal(err)
	}
	built[key] = filepath.Join(dir, "program")
	for name, text := range map[string]string{
		"go.mod":  "module example.com/doctor\ngo 1.22\n",
		"main.go": "package main\nimport \"net/http\"\nfunc main() { _, _ = http.Get(\"http://127.0.0.1:1\") }\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", append(append([]string{"build", "-o", "program"}, flags...), ".")...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0"), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	return built[key]
}

// A verdict is what a change's ID has in a report.
func verdict(r *doctor.Report, id string) doctor.Change {
	for _, c := range r.Changes {
		if c.ID == id {
			return c
		}
	}
	return doctor.Change{}
}

const (
	hello = "#include <stdio.h>\n#include <stdlib.h>\nint main(void) { puts(getenv(\"HOME\")); return 0; }\n"
	// 5,000 pointers into itself make 5,000 relative relocations if it is
	// position independent.
	pointers = "int a[5000];\n#define P(i) &a[i], &a[i+1], &a[i+2], &a[i+3], &a[i+4],\n#define Q(i) P(i) P(i+5) P(i+10) P(i+15) P(i+20)\n" +
		"#define R(i) Q(i) Q(i+25) Q(i+50) Q(i+75)\n#define S(i) R(i) R(i+100) R(i+200) R(i+300) R(i+400)\n" +
		"int *table[] = { S(0) S(500) S(1000) S(1500) S(2000) S(2500) S(3000) S(3500) S(4000) S(4490) };\nint main(int n, char **v) { return *table[n]; }\n"
)

// TestVerdicts: programs are built so that each verdict is known.
func TestVerdicts(t *testing.T) {
	tests := []struct {
		name   string
		build  func(t *testing.T) string
		id     string
		want   doctor.Verdict
		reason string
		try    string // part of the command
	}{
		{
			"lazy", func(t *testing.T) string { return compile(t, "gcc", hello, "-Wl,-z,lazy") },
			"H7", doctor.Try, "2 symbols of the program", `LD_BIND_NOW: "1"`,
		},
		{
			"now", func(t *testing.T) string { return compile(t, "gcc", hello, "-Wl,-z,now") },
			"H7", doctor.Inert, "linked with -z now", "",
		},
		{
			"static", func(t *testing.T) string { return compile(t, "gcc", hello, "-static") },
			"H7", doctor.Inert, "no dynamic loader", "",
		},
		{
			"musl", func(t *testing.T) string { return compile(t, "musl-gcc", hello) },
			"H7", doctor.Inert, "musl's loader binds every symbol at start", "",
		},
		{
			"musl's allocator", func(t *testing.T) string { return compile(t, "musl-gcc", hello) },
			"H16", doctor.Inert, "one arena", "",
		},
		{
			"glibc's allocator", func(t *testing.T) string { return compile(t, "gcc", hello) },
			"H16", doctor.Try, "glibc's malloc", "glibc.malloc.arena_max=1",
		},
		{"jemalloc", func(t *testing.T) string {
			return compile(t, "gcc", hello, "-static-libgcc", "-Wl,-Bstatic,-ljemalloc_pic,-Bdynamic", "-lm", "-lstdc++", "-lpthread", "-Wl,-u,mallctl")
		}, "H16", doctor.Try, "jemalloc reads MALLOC_CONF", `MALLOC_CONF: "narenas:1"`},
		{
			"a shared jemalloc", func(t *testing.T) string { return compile(t, "gcc", hello, "-Wl,--no-as-needed", "-ljemalloc") },
			"H16", doctor.Try, "jemalloc reads MALLOC_CONF", "",
		},
		{"jemalloc with a prefix", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \"\\0/etc/_rjem_malloc.conf\", b[] = \"the link named /etc/malloc.conf\";\n"+hello+"const void *keep[] = {a, b};\n")
		}, "H16", doctor.Try, "jemalloc reads _RJEM_MALLOC_CONF", `_RJEM_MALLOC_CONF: "narenas:1"`},
		{"tokio", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \"unreachableTOKIO_WORKER_THREADSno\";\n"+hello+"const void *keep[] = {a};\n")
		}, "H15", doctor.Try, "TOKIO_WORKER_THREADS", `TOKIO_WORKER_THREADS: "1"`},
		{"crates twice", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \"/root/.cargo/registry/src/index.crates.io-1949cf8c6b5b557f/syn-1.0.109/src/a.rs/c/registry/src/index.crates.io-1949cf8c6b5b557f/syn-2.0.1/src/b.rs\";\n"+hello+"const void *keep[] = {a};\n")
		}, "H12", doctor.Applies, "syn 1.0.109, 2.0.1", "cargo tree"},
		{"PEM blocks", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \""+strings.Repeat(`-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n`, 25)+"\";\n"+hello+"const void *keep[] = {a};\n")
		}, "H1", doctor.Inert, "25 PEM blocks", ""},
		{"trust anchors", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \"0ISRG Root X1..GTS Root R1..Amazon Root CA 1..GlobalSign Root CA..\";\n"+hello+"const void *keep[] = {a};\n")
		}, "H1", doctor.Inert, "4 of 8 well-known subjects", ""},
		{"certificates of the system", func(t *testing.T) string {
			return compile(t, "gcc", "const char a[] = \"SSL_CERT_FILE\";\n"+hello+"const void *keep[] = {a};\n")
		}, "H1", doctor.Try, "read at run time", "SSL_CERT_FILE"},
		{"not compressed", func(t *testing.T) string { return compile(t, "gcc", hello) }, "H10", doctor.Inert, "not packed", ""},
		{"level 3", func(t *testing.T) string {
			return compile(t, "gcc", hello, "-march=x86-64-v3", "-mneeded", "-Wa,-mx86-used-note=yes", "-Wl,-z,x86-64-v3")
		}, "H8", doctor.Inert, "x86-64-v3", ""},
		{
			"Go's level", func(t *testing.T) string { return goProgram(t, []string{"GOARCH=amd64", "GOAMD64=v1"}) },
			"H8", doctor.Applies, "GOAMD64=v1", "GOAMD64=v2",
		},
		{
			"Go for Graviton", func(t *testing.T) string { return goProgram(t, []string{"GOARCH=arm64", "GOARM64=v8.2,lse"}) },
			"H8", doctor.Inert, "GOARM64=v8.2,lse", "",
		},
		{"Go's binding", func(t *testing.T) string { return goProgram(t, nil) }, "H7", doctor.Inert, "no dynamic loader", ""},
		{"Go's roots", func(t *testing.T) string { return goProgram(t, nil, "-ldflags=-s -w") }, "H1", doctor.Try, "crypto/x509 reads", "SSL_CERT_DIR"},
		{"Go's collector", func(t *testing.T) string { return goProgram(t, nil) }, "H16", doctor.Try, "collector", `GOGC: "off"`},
		{"Go's threads", func(t *testing.T) string { return goProgram(t, nil) }, "H15", doctor.Try, "GOMAXPROCS", `GOMAXPROCS: "1"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := verdict(examine(t, tt.build(t)), tt.id)
			if c.Verdict != tt.want || !strings.Contains(c.Reason, tt.reason) || !strings.Contains(c.Command, tt.try) {
				t.Errorf("%s is %s: %s\n%s\nwant %s with %q and %q", tt.id, c.Verdict, c.Reason, c.Command, tt.want, tt.reason, tt.try)
			}
			if c.Verdict == doctor.Try && c.Command == "" {
				t.Error("nothing to try it by")
			}
		})
	}
}

// TestRelocations: 5,000 pointers are told as such, packed or not, and none
// where the program has a fixed address.
func TestRelocations(t *testing.T) {
	find := func(r *doctor.Report) doctor.Change { return verdict(r, "") }
	r := examine(t, compile(t, "gcc", pointers, "-pie", "-fPIE"))
	if c := find(r); c.Verdict != doctor.Applies || r.Loader.Relative < 5000 || r.Loader.Relative > 5010 {
		t.Errorf("PIE: %d relative, %+v", r.Loader.Relative, c)
	}
	r = examine(t, compile(t, "gcc", pointers, "-pie", "-fPIE", "-Wl,-z,pack-relative-relocs"))
	if c := find(r); c.Verdict != doctor.Inert || r.Loader.RELR < 5000 || r.Loader.Relative > 10 {
		t.Errorf("RELR: %d relative, %d RELR, %+v", r.Loader.Relative, r.Loader.RELR, c)
	}
	r = examine(t, compile(t, "gcc", pointers, "-no-pie", "-fno-pie"))
	if c := find(r); c.Verdict != doctor.Inert || r.Loader.Relative != 0 {
		t.Errorf("fixed address: %d relative, %+v", r.Loader.Relative, c)
	}
	r = examine(t, goProgram(t, nil, "-buildmode=pie"))
	if c := find(r); c.Verdict != doctor.Applies || r.Loader.Relative < 10000 || !strings.Contains(c.Command, "-buildmode=exe") {
		t.Errorf("Go PIE: %d relative, %+v", r.Loader.Relative, c)
	}
}

// TestGoProgram: packages and probes of a stripped Go program.
func TestGoProgram(t *testing.T) {
	r := examine(t, goProgram(t, []string{"GOARCH=amd64"}, "-ldflags=-s -w"))
	if r.Binary.Language != "go" || !r.Binary.Stripped || r.Binary.Linkage != "static" || r.Stacks.FramePointers != "yes" {
		t.Errorf("%+v, %+v", r.Binary, r.Stacks)
	}
	has := false
	for _, p := range r.Packages {
		has = has || p.Path == "net/http"
	}
	if !has || len(r.Packages) < 30 {
		t.Errorf("%d packages, net/http among them: %t", len(r.Packages), has)
	}
	for _, name := range []string{"main.main", "runtime.doInit1", "runtime.schedinit"} {
		found := false
		for _, p := range r.Probes {
			if p.Name == name {
				found = found || p.Status == "possible" && p.Offset != 0
			}
		}
		if !found {
			t.Errorf("%s cannot be probed cheaply: %+v", name, r.Probes)
		}
	}
	if len(r.Warnings) != 0 {
		t.Errorf("warnings: %q", r.Warnings)
	}
}

// TestFramePointers: the same code with and without them.
func TestFramePointers(t *testing.T) {
	source := "#include <stdio.h>\n#define F(n) __attribute__((noinline)) int f##n(int a) { puts(\"\"); return a + n; }\n" +
		"F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11) F(12) F(13) F(14) F(15)\n" +
		"int main(void) { return f0(f1(f2(f3(f4(f5(f6(f7(f8(f9(f10(f11(f12(f13(f14(f15(1)))))))))))))))); }\n"
	for flag, want := range map[string]string{"-fno-omit-frame-pointer": "yes", "-fomit-frame-pointer": "no"} {
		r := examine(t, compile(t, "gcc", source, "-O1", flag))
		if r.Stacks.FramePointers != want || !r.Stacks.CFI {
			t.Errorf("%s: %+v, want frame pointers %s, with .eh_frame", flag, r.Stacks, want)
		}
	}
}

// TestRust: rustc's default for Linux is full RELRO, so that H7 changes nothing.
func TestRust(t *testing.T) {
	if _, err := exec.LookPath("rustc"); err != nil {
		t.Skip("rustc is not installed")
	}
	program := filepath.Join(t.TempDir(), "program")
	run(t, "fn main() { println!(\"{:?}\", std::env::args().collect::<Vec<_>>()); }", "rustc", "-O", "-C", "strip=symbols", "-o", program, "-")
	r := examine(t, program)
	c := verdict(r, "H7")
	if r.Binary.Language != "rust" || r.Loader.RELRO != "full" || c.Verdict != doctor.Inert || !strings.Contains(c.Reason, "rustc's Linux targets") {
		t.Errorf("%+v, RELRO %s, %+v", r.Binary, r.Loader.RELRO, c)
	}
}

// TestCgo: a Go program with cgo has a dynamic loader, and its packages all the
// same.
func TestCgo(t *testing.T) {
	r := examine(t, goProgram(t, []string{"CGO_ENABLED=1"}, "-ldflags=-s -w"))
	c := verdict(r, "H7")
	if r.Binary.Linkage != "dynamic" || c.Verdict != doctor.Try || len(r.Packages) < 30 {
		t.Errorf("%s, %d packages, %+v", r.Binary.Linkage, len(r.Packages), c)
	}
}

// TestLoaderProbes: a dynamic program's loader is this host's.
func TestLoaderProbes(t *testing.T) {
	r := examine(t, compile(t, "gcc", hello))
	for _, p := range r.Probes {
		if p.Name == "_dl_fixup" && strings.Contains(p.In, "ld-linux") && p.Status == "possible" && p.Offset != 0 {
			return
		}
	}
	t.Errorf("_dl_fixup cannot be probed: %+v", r.Probes)
}

// TestUPX: a program that the real packer packed is recognised, and of what it
// hides nothing is told.
func TestUPX(t *testing.T) {
	upx, _ := filepath.Abs("../../build/loaders/upx")
	if _, err := os.Stat(filepath.Join(upx, "upx-ucl")); err != nil {
		skip(t, "no UPX: make loaders fetches it")
	}
	packed := filepath.Join(t.TempDir(), "packed")
	cmd := exec.Command(filepath.Join(upx, "upx-ucl"), "-q", "-1", "-o", packed, goProgram(t, []string{"GOARCH=amd64"}, "-ldflags=-s -w"))
	cmd.Env = append(os.Environ(), "LD_LIBRARY_PATH="+upx)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	r := examine(t, packed)
	if !strings.HasPrefix(r.Binary.Packer, "UPX 3.") || r.Loader != nil || r.Stacks != nil || r.Content != nil {
		t.Errorf("%+v", r)
	}
	if c := verdict(r, "H10"); c.Verdict != doctor.Applies || !strings.Contains(c.Command, "upx -d") {
		t.Errorf("H10: %+v", c)
	}
	if c := verdict(r, "H7"); c.Verdict != doctor.Unclear || !strings.Contains(c.Reason, "packed") {
		t.Errorf("H7: %+v", c)
	}
}

// TestJSON: every list is there even if it is empty, and what is not known is
// absent.
func TestJSON(t *testing.T) {
	b, err := json.Marshal(examine(t, compile(t, "gcc", hello, "-static")))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"schema":"initprof/doctor/v1"`, `"warnings":[]`, `"needed":[]`, `"probes":[`} {
		if !bytes.Contains(b, []byte(want)) {
			t.Errorf("no %s in %s", want, b)
		}
	}
	for _, absent := range []string{`"packer"`, `"interpreter"`, `"packages"`, "null"} {
		if bytes.Contains(b, []byte(absent)) {
			t.Errorf("%s in %s", absent, b)
		}
	}
}

func TestNoProgram(t *testing.T) {
	for _, text := range []string{"", "#!/bin/sh\n", "\x7fELF", "\x7fELF\x02\x01\x01" + strings.Repeat("\xff", 57)} {
		if _, err := doctor.Examine(strings.NewReader(text), "x", doctor.Options{}); err == nil {
			t.Errorf("%q is a program", text)
		}
	}
}

// TestHugeFile: a file that claims and has 64 GB, of holes, is read as far as
// its bounds.
func TestHugeFile(t *testing.T) {
	program, err := os.ReadFile(compile(t, "gcc", hello))
	if err != nil {
		t.Fatal(err)
	}
	const huge = 64 << 30
	binary.LittleEndian.PutUint64(program[0x28:], 0) // no section headers
	binary.LittleEndian.PutUint16(program[0x3c:], 0)
	for i := range int(binary.LittleEndian.Uint16(program[0x38:])) { // every PT_LOAD
		header := program[64+56*i:]
		if binary.LittleEndian.Uint32(header) == 1 {
			binary.LittleEndian.PutUint64(header[32:], huge)
			binary.LittleEndian.PutUint64(header[40:], huge)
		}
	}
	path := filepath.Join(t.TempDir(), "huge")
	if err := os.WriteFile(path, program, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, huge); err != nil {
		t.Fatal(err)
	}
	if r := examine(t, path); !slices.ContainsFunc(r.Warnings, func(w string) bool { return strings.Contains(w, "the rest was not searched") }) {
		t.Errorf("warnings %q", r.Warnings)
	}
}

// FuzzExamine changes a program at two places: an error or a report, never a
// panic, in bounded time.
func FuzzExamine(f *testing.F) {
	file, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Skip("no /bin/true")
	}
	f.Add(uint32(0x28), uint64(1<<62), uint32(0x38), uint64(0xffff))
	for i := range 8 {
		f.Add(uint32(64+56*i+8), uint64(1<<40), uint32(64+56*i+32), uint64(1<<50))
	}
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64) {
		changed := bytes.Clone(file)
		for at, v := range map[uint32]uint64{at1: v1, at2: v2} {
			for i := range 8 {
				if at := int(at) + i; at < len(changed) {
					changed[at] = byte(v >> (8 * i))
				}
			}
		}
		r, err := doctor.Examine(bytes.NewReader(changed), "x", doctor.Options{})
		if err != nil {
			return
		}
		for _, c := range r.Changes {
			if c.Verdict == "" || c.Reason == "" {
				t.Errorf("%+v", c)
			}
		}
	})
}
