package cli_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

// recordOne records one cold start and gives its report.
func recordOne(t *testing.T, dir string, flags []string, command ...string) *analysis.Report {
	t.Helper()
	run := filepath.Join(dir, "run.initprof")
	args := append([]string{"record", "-q", "-n", "1", "--untraced", "0", "-o", run}, flags...)
	if code, _, errOut := initprof(append(append(args, "--"), command...)...); code != 0 {
		t.Fatalf("exit code %d\n%s", code, errOut)
	}
	return report(t, run)
}

func objectNamed(r *analysis.Report, path string) *analysis.BoundObject {
	for i := range r.Binding.Objects {
		if r.Binding.Objects[i].Path == path {
			return &r.Binding.Objects[i]
		}
	}
	return nil
}

// Relocating an object whose data holds pointers on N pages takes N faults more
// than one without; its constructors take as long as they sleep.
func TestRelocationAndConstructorsPerObject(t *testing.T) {
	needRoot(t)
	const pages = 200
	dir := openDir(t)
	writeFile(t, filepath.Join(dir, "large.c"), fmt.Sprintf(`
#include <time.h>
static int target;
int *table[%d][512] = {[0 ... %d] = {[0 ... 511] = &target}};
__attribute__((constructor)) static void first(void) { struct timespec t = {0, 10000000}; nanosleep(&t, 0); }
__attribute__((constructor)) static void second(void) { struct timespec t = {0, 10000000}; nanosleep(&t, 0); }
int *large(void) { return table[0][0]; }
`, pages, pages-1))
	writeFile(t, filepath.Join(dir, "small.c"), "int small(void) { return 1; }\n")
	for _, name := range []string{"large", "small"} {
		gcc(t, dir, "-shared", "-fPIC", "-o", "lib"+name+".so", name+".c")
	}
	path := extensionC(t, dir, "relocates", "int *large(void); int small(void);", "if (!large() || !small()) return 1;",
		"-L"+dir, "-Wl,-rpath,"+dir, "-llarge", "-lsmall")
	r := recordBinding(t, dir, nil, path)
	large, small := objectNamed(r, filepath.Join(dir, "liblarge.so")), objectNamed(r, filepath.Join(dir, "libsmall.so"))
	if large == nil || small == nil {
		t.Fatalf("the libraries are not among %+v", r.Binding.Objects)
	}
	// Each page that is written to is copied by a fault of its own. Of the table of
	// relocations, 24 bytes each, one fault makes one page or several readable.
	const table = pages * 512 * 24 / 4096
	if more := large.Faults - small.Faults; more < pages || more > pages+table {
		t.Errorf("%v and %v faults in the relocation of objects with and without %d pages of pointers", large.Faults, small.Faults, pages)
	}
	if n := large.StaticRelocations; n == nil || n.Relative+n.RELR < pages*512 || n.Relative+n.RELR > pages*512+8 {
		t.Errorf("static relocations %+v, want %d relative ones", n, pages*512)
	}
	if large.NS <= small.NS || small.NS <= 0 {
		t.Errorf("relocation took %d and %d ns", large.NS, small.NS)
	}
	if large.ConstructorsNS == nil || *large.ConstructorsNS < 20e6 || small.ConstructorsNS == nil || *small.ConstructorsNS > *large.ConstructorsNS/2 {
		t.Errorf("constructors took %v and %v ns, want 20 ms in the one", large.ConstructorsNS, small.ConstructorsNS)
	}
	for _, o := range []*analysis.BoundObject{large, small} {
		if o.MapNS == nil || *o.MapNS <= 0 || *o.MapNS > 50e6 {
			t.Errorf("%s: mapped in %v ns", o.Path, o.MapNS)
		}
	}
	parts := map[string]int64{}
	phases := map[string]int64{}
	for _, p := range r.Parts {
		parts[p.Phase+" "+p.Name] += p.NS
		phases[p.Phase] += p.NS
	}
	if parts["loader run constructors"]+parts["runtime_init run constructors"] < 20e6 {
		t.Errorf("the constructors are in no part: %v", parts)
	}
	for _, one := range r.Runs {
		for _, p := range one.Phases {
			if sum, ok := phases[p.Name]; ok && sum != p.DeltaNS {
				t.Errorf("the parts of %s sum to %d ns of %d", p.Name, sum, p.DeltaNS)
			}
		}
	}
}

// bytesRead asks strace how many bytes of each file of certificates a command
// reads. That it fails for want of an environment comes later.
func bytesRead(t *testing.T, command ...string) map[string]int64 {
	t.Helper()
	log := filepath.Join(t.TempDir(), "strace")
	c := exec.Command("strace", append([]string{"-ff", "-y", "-e", "trace=read,getdents64", "-o", log}, command...)...)
	c.Env = append(os.Environ(), "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1")
	if err := c.Run(); errors.Is(err, exec.ErrNotFound) {
		if os.Getenv("INITPROF_FORBID_SKIP") == "" {
			t.Skip("needs strace")
		}
		t.Fatal(err)
	}
	var text []byte
	logs, _ := filepath.Glob(log + ".*") // one a thread
	for _, log := range logs {
		b, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		text = append(text, b...)
	}
	all := map[string]int64{}
	for _, m := range straceRead.FindAllStringSubmatch(string(text), -1) {
		n, err := strconv.ParseInt(m[2], 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		path, err := strconv.Unquote(`"` + m[1] + `"`)
		if err != nil {
			t.Fatal(err)
		}
		all[path] += n
	}
	return all
}

var straceRead = regexp.MustCompile(`(?m)\b(?:read|getdents64)\([0-9]+<((?:/etc/ssl|/usr/share/ca-certificates|/usr/local/share/ca-certificates)/[^>]+)>.* = ([0-9]+)$`)

// Files and directories of certificates are read as strace says, byte for byte,
// and the function that loads them is named.
func TestCertificates(t *testing.T) {
	needRoot(t)
	if _, err := os.Stat("/etc/ssl/certs/ca-certificates.crt"); err != nil {
		t.Skipf("needs ca-certificates: %v", err)
	}
	check := func(t *testing.T, flags []string, command []string, functions ...string) {
		t.Helper()
		want := bytesRead(t, command...)
		delete(want, "/etc/ssl/openssl.cnf") // no certificates
		got := map[string]int64{}
		for _, c := range recordOne(t, openDir(t), flags, command...).Certs {
			real := realPath(c.Path)
			if c.Bytes == nil || c.NS <= 0 || c.Phase == "" || !slices.Contains(functions, c.Function) {
				t.Errorf("%+v, want one of %q", c, functions)
				continue
			}
			got[real] += int64(*c.Bytes)
		}
		if len(want) == 0 || got["/etc/ssl/certs/ca-certificates.crt"] == 0 {
			t.Errorf("the bundle was not read: %v, strace says %v", got, want)
		}
		for path, n := range want {
			if got[path] != n {
				t.Errorf("%s: %d bytes, strace says %d", path, got[path], n)
			}
		}
		for path, n := range got {
			if _, ok := want[path]; !ok && n > 0 {
				t.Errorf("%s: %d bytes, of which strace says nothing", path, n)
			}
		}
	}
	t.Run("Go", func(t *testing.T) {
		dir := openDir(t)
		goBuild{}.build(t, dir)
		source, err := os.ReadFile(filepath.Join(dir, "main.go"))
		if err != nil {
			t.Fatal(err)
		}
		writeFile(t, filepath.Join(dir, "certs.go"), "package main\n\nimport \"crypto/x509\"\n\nfunc roots() { _, _ = x509.SystemCertPool() }\n")
		writeFile(t, filepath.Join(dir, "main.go"), strings.Replace(string(source), "func run() error {\n", "func run() error {\n\troots()\n", 1))
		c := exec.Command("go", "build", "-trimpath", "-ldflags=-s -w", "-o", "extension", ".")
		c.Dir, c.Env = dir, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := c.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		check(t, nil, []string{filepath.Join(dir, "extension")}, "crypto/x509.loadSystemRoots")
	})
	t.Run("OpenSSL", func(t *testing.T) {
		python, err := filepath.EvalSymlinks("/usr/bin/python3")
		if err != nil {
			t.Skip("needs /usr/bin/python3")
		}
		load := "import ssl; ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations('/etc/ssl/certs/ca-certificates.crt')\n"
		check(t, nil, []string{python, "-c", load + pythonExtension}, "SSL_CTX_load_verify_locations", "X509_load_cert_crl_file_ex", "X509_STORE_load_file_ex")
	})
}
