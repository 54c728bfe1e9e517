package cli_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

// The generated program calls 200 functions of five libraries, and each library
// 20 of the next one.
const (
	libraries   = 5
	perLibrary  = 59 // functions of a library beside its relay, which calls the next one's
	fromProgram = 39
)

// bound is a symbol, the object that needed it and the one that gave it.
type bound struct{ object, target, symbol string }

func compareBound(x, y bound) int {
	return cmp.Or(cmp.Compare(x.object, y.object), cmp.Compare(x.symbol, y.symbol), cmp.Compare(x.target, y.target))
}

// openDir is a directory that subjects, which run as other users, can read and
// write.
func openDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		if err := os.Chmod(at, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	return dir
}

// gcc compiles in dir, or skips without a compiler.
func gcc(t *testing.T, dir string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("gcc"); err != nil && os.Getenv("INITPROF_FORBID_SKIP") == "" {
		t.Skip("needs gcc")
	}
	c := exec.Command("gcc", args...)
	c.Dir = dir
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
}

func writeFile(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// extensionC compiles an extension from what it declares and does before /next;
// the functions of subjects/c/lambda.h serve it.
func extensionC(t *testing.T, dir, name, declarations, deed string, flags ...string) string {
	t.Helper()
	header, err := filepath.Abs("../../testdata/subjects/c/lambda.h")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, name+".c"), "#define _GNU_SOURCE\n#include \""+header+"\"\n"+declarations+`
int main(int argc, char **argv) {
	int fd = lambda_connect();
	lambda_register(fd, argv[0]);
	`+deed+`
	return lambda_next_loop(fd);
}
`)
	gcc(t, dir, append([]string{"-O1", "-Wno-unused-result", "-o", name, name + ".c"}, flags...)...)
	return filepath.Join(dir, name)
}

// manySymbols compiles the program and gives what it binds.
func manySymbols(t *testing.T, dir, name string, flags ...string) (string, []bound) {
	t.Helper()
	path := filepath.Join(dir, name)
	library := func(k int) string { return fmt.Sprintf("lib%s%d.so", name, k%libraries) }
	var all []bound
	declare, call := "#include <dlfcn.h>\n", ""
	link := append([]string{"-L" + dir, "-Wl,-rpath," + dir}, flags...)
	for k := range libraries {
		var c strings.Builder
		for i := range perLibrary {
			fmt.Fprintf(&c, "int g_%d_%d(void) { return %d; }\n", k, i, i)
		}
		next := (k + 1) % libraries
		body := ""
		for i := fromProgram; i < perLibrary; i++ {
			fmt.Fprintf(&c, "int g_%d_%d(void);\n", next, i)
			body += fmt.Sprintf("n += g_%d_%d(); ", next, i)
			all = append(all, bound{filepath.Join(dir, library(k)), filepath.Join(dir, library(next)), fmt.Sprintf("g_%d_%d", next, i)})
		}
		fmt.Fprintf(&c, "int relay_%d(void) { int n = 0; %s return n; }\nint end_%d;\n", k, body, k)
		writeFile(t, filepath.Join(dir, library(k)+".c"), c.String())
		gcc(t, dir, append([]string{"-O0", "-shared", "-fPIC", "-o", library(k), library(k) + ".c"}, flags...)...)
		functions := []string{fmt.Sprintf("relay_%d", k)}
		for i := range fromProgram {
			functions = append(functions, fmt.Sprintf("g_%d_%d", k, i))
		}
		for _, f := range functions {
			declare += "int " + f + "(void);\n"
			call += "n += " + f + "();\n"
			all = append(all, bound{path, filepath.Join(dir, library(k)), f})
		}
		link = append(link, "-l:"+library(k))
	}
	return extensionC(t, dir, name, declare, "int n = 0;\n"+call+"if (n < 0) return 1;\ndlsym(RTLD_DEFAULT, \"end_0\");", link...), all
}

// recordBinding records one cold start and gives its report.
func recordBinding(t *testing.T, dir string, flags []string, command ...string) *analysis.Report {
	t.Helper()
	run := filepath.Join(dir, "run.initprof")
	args := append([]string{"record", "-q", "-n", "1", "--untraced", "0", "-o", run}, flags...)
	if code, _, errOut := initprof(append(append(args, "--"), command...)...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	r := report(t, run)
	if r.Binding == nil {
		t.Fatal("the report has no binding")
	}
	for _, one := range r.Runs {
		if one.LostEvents == nil || *one.LostEvents != 0 {
			t.Errorf("cold start %d lost events", one.Index)
		}
	}
	return r
}

// boundIn lists the symbols of a report that were bound in a mode, one for each
// time.
func boundIn(t *testing.T, r *analysis.Report, mode string) (all []bound) {
	t.Helper()
	for _, s := range r.Binding.Symbols {
		if s.Mode != mode {
			continue
		}
		if s.Count != math.Trunc(s.Count) {
			t.Errorf("%s: bound %v times in one cold start", s.Name, s.Count)
		}
		for range int(s.Count) {
			all = append(all, bound{s.Object, s.Target, s.Name})
		}
	}
	slices.SortFunc(all, compareBound)
	return all
}

// difference lists what stands in one of two sorted lists alone, up to a few.
func difference(got, want []bound) (lines []string) {
	got, want = slices.Clone(got), slices.Clone(want)
	slices.SortFunc(got, compareBound)
	slices.SortFunc(want, compareBound)
	for len(got)+len(want) > 0 && len(lines) < 12 {
		order := -1
		switch {
		case len(got) == 0:
			order = 1
		case len(want) > 0:
			order = compareBound(got[0], want[0])
		}
		if order < 0 {
			lines = append(lines, fmt.Sprintf("+%v", got[0]))
		}
		if order > 0 {
			lines = append(lines, fmt.Sprintf("-%v", want[0]))
		}
		if order <= 0 {
			got = got[1:]
		}
		if order >= 0 {
			want = want[1:]
		}
	}
	return lines
}

// Every symbol that a program binds lazily is named, with the object that
// needed it and the one that gave it, as the loader itself tells; bound
// eagerly, they are the same ones.
func TestLazyBindingIsWhatTheLoaderSays(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path, want := manySymbols(t, dir, "lazy", "-Wl,-z,lazy")
	if len(want) != 300 {
		t.Fatalf("the program binds %d symbols, not 300", len(want))
	}
	ours := func(all []bound) (ours []bound) {
		for _, b := range all {
			if strings.HasPrefix(b.symbol, "g_") || strings.HasPrefix(b.symbol, "relay_") {
				ours = append(ours, b)
			}
		}
		return ours
	}

	log := filepath.Join(dir, "lazy-log")
	r := recordBinding(t, dir, debugLoader(log), path)
	lazily := boundIn(t, r, "lazy")
	if d := difference(ours(lazily), want); d != nil {
		t.Errorf("bound lazily, where + is too much and - is lacking:\n%s", strings.Join(d, "\n"))
	}
	truth := readLoaderLog(t, log, "end_0")
	if d := difference(lazily, truth.lazy); d != nil {
		t.Errorf("against LD_DEBUG=bindings:\n%s", strings.Join(d, "\n"))
	}
	if n := r.Binding.Lazy.Count; n != float64(len(truth.lazy)) {
		t.Errorf("%v symbols bound lazily, the loader says %d", n, len(truth.lazy))
	}
	for _, s := range r.Binding.Symbols {
		if s.Mode == "lazy" && (s.NS == nil || *s.NS <= 0 || s.Phase == "") {
			t.Fatalf("%+v has no duration or phase", s)
		}
	}
	for _, o := range r.Binding.Objects {
		if !strings.HasPrefix(o.Path, dir) {
			continue
		}
		n := len(slices.DeleteFunc(slices.Clone(truth.lazy), func(b bound) bool { return b.object != o.Path }))
		if o.Mode != "lazy" || o.BoundLazily != float64(n) {
			t.Errorf("%s: %s, bound lazily %v, want %d", o.Path, o.Mode, o.BoundLazily, n)
		}
	}

	now, wantNow := manySymbols(t, dir, "now", "-Wl,-z,now")
	for _, c := range []struct {
		name, path string
		flags      []string
		want       []bound
	}{
		{"-z now", now, nil, wantNow},
		{"LD_BIND_NOW=1", path, []string{"--env", "LD_BIND_NOW=1"}, want},
	} {
		r := recordBinding(t, dir, c.flags, c.path)
		// With -z now, the C library itself still binds as it was built to.
		for _, b := range boundIn(t, r, "lazy") {
			if strings.HasPrefix(b.object, dir) || c.flags != nil {
				t.Errorf("%s: %v was bound lazily", c.name, b)
			}
		}
		// Which object gave a symbol is not known of eager binding.
		wanted := slices.Clone(c.want)
		for i := range wanted {
			wanted[i].target = ""
		}
		if d := difference(ours(boundIn(t, r, "eager")), wanted); d != nil {
			t.Errorf("%s: bound eagerly:\n%s", c.name, strings.Join(d, "\n"))
		}
		for _, o := range r.Binding.Objects {
			if strings.HasPrefix(o.Path, dir) && (o.Mode != "eager" || o.BoundLazily != 0 || o.NeverBound == nil || *o.NeverBound != 0) {
				t.Errorf("%s: %+v", c.name, o)
			}
		}
	}
}

// pythonExtension imports what binds and opens much, looks end up by dlsym, and
// asks for an event.
const pythonExtension = `
import ssl, ctypes, socket, os
libc = ctypes.CDLL(None)
host, port = os.environ["AWS_LAMBDA_RUNTIME_API"].rsplit(":", 1)
s = socket.create_connection((host, int(port)))
def ask(method, path, headers, body):
    s.sendall(("%s %s HTTP/1.1\r\nHost: x\r\n%sContent-Length: %d\r\n\r\n%s" % (method, path, headers, len(body), body)).encode())
    return s.recv(65536).decode()
a = ask("POST", "/2020-01-01/extension/register", "Lambda-Extension-Name: python3\r\n", '{"events":["INVOKE","SHUTDOWN"]}')
i = [l.split(":", 1)[1].strip() for l in a.split("\r\n") if l.lower().startswith("lambda-extension-identifier:")][0]
libc.gnu_get_libc_release
while "SHUTDOWN" not in ask("GET", "/2020-01-01/extension/event/next", "Lambda-Extension-Identifier: %s\r\n" % i, ""):
    pass
`

// A large program that the distribution built, with every object that it opens
// and every symbol that it looks up while it runs.
func TestPythonIsWhatTheLoaderSays(t *testing.T) {
	needRoot(t)
	python, err := filepath.EvalSymlinks("/usr/bin/python3")
	if err != nil {
		t.Skip("needs /usr/bin/python3")
	}
	dir := openDir(t)
	log := filepath.Join(dir, "log")
	r := recordBinding(t, dir, debugLoader(log), python, "-c", pythonExtension)
	truth := readLoaderLog(t, log, "gnu_get_libc_release")
	// dlsym looks symbols up as lazy binding does: what it found is told apart by
	// name alone.
	for _, s := range r.Dlsyms {
		for range int(s.Count) {
			i := slices.IndexFunc(truth.lazy, func(b bound) bool { return b.symbol == s.Name })
			if i < 0 && s.OK && s.Name != "gnu_get_libc_release" {
				t.Errorf("dlsym found %s, of which the loader says nothing", s.Name)
			}
			if i >= 0 && s.OK {
				truth.lazy = slices.Delete(truth.lazy, i, i+1)
			}
		}
	}
	if d := difference(boundIn(t, r, "lazy"), truth.lazy); d != nil {
		t.Errorf("against LD_DEBUG=bindings:\n%s", strings.Join(d, "\n"))
	}
	var opened []string
	for _, d := range r.Dlopens {
		for range int(d.Count) {
			opened = append(opened, d.Path)
		}
	}
	slices.Sort(opened)
	slices.Sort(truth.opened)
	if !slices.Equal(opened, truth.opened) || len(opened) < 3 {
		t.Errorf("dlopens %q, the loader says %q", opened, truth.opened)
	}
	t.Logf("%d symbols bound lazily; the loader says %d; %d dlopens", len(boundIn(t, r, "lazy")), len(truth.lazy), len(opened))
}
