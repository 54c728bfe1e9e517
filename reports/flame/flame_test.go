package flame

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", path, diff)
	}
}

func stack(frames ...Frame) []Frame { return frames }

func goFrame(name string) Frame { return Frame{name, "/opt/extensions/datadog-agent", KindGo} }
func runtimeFrame(name string) Frame {
	return Frame{name, "/opt/extensions/datadog-agent", KindGoRuntime}
}
func kernelFrame(name string) Frame { return Frame{name, "[kernel]", KindKernel} }

// register is the phase of a Go extension in which it builds a client and
// registers.
var register = []Sample{
	{Stack: stack(goFrame("crypto/x509.parseCertificate"), goFrame("crypto/x509.ParseCertificate"), goFrame("crypto/x509.(*CertPool).AppendCertsFromPEM"), goFrame("crypto/x509.loadSystemRoots"), goFrame("crypto/x509.initSystemRoots"), goFrame("main.newClient"), goFrame("main.main"), runtimeFrame("runtime.main"), runtimeFrame("runtime.goexit")), Value: 9_340_117, Count: 9},
	{Stack: stack(goFrame("encoding/asn1.parseField"), goFrame("crypto/x509.parseCertificate"), goFrame("crypto/x509.ParseCertificate"), goFrame("crypto/x509.(*CertPool).AppendCertsFromPEM"), goFrame("crypto/x509.loadSystemRoots"), goFrame("crypto/x509.initSystemRoots"), goFrame("main.newClient"), goFrame("main.main"), runtimeFrame("runtime.main"), runtimeFrame("runtime.goexit")), Value: 2_104_991, Count: 2},
	{Stack: stack(kernelFrame("filemap_get_pages"), kernelFrame("filemap_read"), kernelFrame("vfs_read"), kernelFrame("ksys_read"), kernelFrame("do_syscall_64"), goFrame("internal/runtime/syscall.Syscall6"), goFrame("syscall.Read"), goFrame("os.ReadFile"), goFrame("crypto/x509.loadSystemRoots"), goFrame("crypto/x509.initSystemRoots"), goFrame("main.newClient"), goFrame("main.main"), runtimeFrame("runtime.main"), runtimeFrame("runtime.goexit")), Value: 1_870_003, Count: 2},
	{Stack: stack(kernelFrame("clear_page_erms"), kernelFrame("do_anonymous_page"), kernelFrame("handle_mm_fault"), kernelFrame("exc_page_fault"), runtimeFrame("runtime.memclrNoHeapPointers"), runtimeFrame("runtime.mallocgc"), goFrame("crypto/x509.ParseCertificate"), goFrame("crypto/x509.(*CertPool).AppendCertsFromPEM"), goFrame("crypto/x509.loadSystemRoots"), goFrame("crypto/x509.initSystemRoots"), goFrame("main.newClient"), goFrame("main.main"), runtimeFrame("runtime.main"), runtimeFrame("runtime.goexit")), Value: 1_003_777, Count: 1},
	{Stack: stack(runtimeFrame("runtime.gcDrain"), runtimeFrame("runtime.gcBgMarkWorker"), runtimeFrame("runtime.goexit")), Value: 1_204_400, Count: 1},
	{Stack: stack(goFrame("net/http.(*Transport).dialConn"), goFrame("net/http.(*Transport).roundTrip"), goFrame("net/http.(*Client).Do"), goFrame("main.register"), goFrame("main.main"), runtimeFrame("runtime.main"), runtimeFrame("runtime.goexit")), Value: 801_001, Count: 1},
	{Stack: stack(Frame{"_dl_relocate_object", "/lib64/ld-linux-x86-64.so.2", KindLoader}, Frame{"dl_main", "/lib64/ld-linux-x86-64.so.2", KindLoader}, Frame{"_dl_start", "/lib64/ld-linux-x86-64.so.2", KindLoader}), Value: 612_345, Count: 1},
	{Stack: stack(Frame{"", "/opt/extensions/datadog-agent", KindUnknown}, Frame{"memcpy", "/lib64/libc.so.6", KindLibrary}, Frame{"ddwaf::parser::parse<std::string>(\"x\" & 1)", "/opt/lib", KindNative}), Value: 1, Count: 1},
}

func render(t *testing.T, samples []Sample, opts Options) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Render(&out, samples, opts); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestRender(t *testing.T) {
	golden(t, "register.svg", render(t, register, Options{
		Title: "register", Subtitle: "initprof-extension", Noun: "on-CPU time", ColdStarts: 25,
	}))
	golden(t, "counts.svg", render(t, []Sample{
		{Stack: stack(goFrame("os.Open"), goFrame("main.main")), Value: 3, Count: 3},
		{Stack: stack(goFrame("main.main")), Value: 1},
		{Value: 2, Count: 2},
	}, Options{Title: "syscalls", Unit: Count, Noun: "system calls", Fragment: true}))
	golden(t, "empty.svg", render(t, nil, Options{
		Title: "next", Subtitle: "initprof-extension", Empty: "no tick of the 999 Hz clock hit a phase of 41 µs",
	}))
	golden(t, "hostile.svg", render(t, hostile, Options{
		Title: "</title><script>alert(1)</script>", Subtitle: "]]> & \x00\x1b[31m\n", Samples: `"><x`,
	}))
}

func TestFolded(t *testing.T) {
	var out bytes.Buffer
	if err := Folded(&out, append(register, hostile...)); err != nil {
		t.Fatal(err)
	}
	golden(t, "register.folded", out.Bytes())
}

var hostile = []Sample{
	{Stack: stack(Frame{Name: "<script>alert('1')</script>", Kind: KindNative}, Frame{Name: "]]><script>alert(2)</script>"}), Value: 5},
	{Stack: stack(Frame{Name: "a;b\nc\x00\u202e", Module: "\"><img src=x onerror=alert(3)>"}), Value: 4},
	{Stack: stack(Frame{Name: "\xff\xfe bad", Kind: 200}), Value: 3},
	{Stack: stack(Frame{Name: ""}, Frame{Name: "漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字漢字"}), Value: 2},
	{Stack: stack(Frame{Name: "&amp;"}), Value: 0},
}
