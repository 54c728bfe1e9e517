package cli_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
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
	// A huge or larger folio may serve several pages of a file at one read fault,
	// but each page that is written to is copied by a fault of its own.
	if more := large.Faults - small.Faults; more < pages || more > pages+4 {
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
	for _, p := range r.Phases {
		if sum, ok := phases[p.Name]; ok && p.DeltaNS != nil && sum != int64(*p.DeltaNS) {
			t.Errorf("the parts of %s sum to %d ns of %v", p.Name, sum, *p.DeltaNS)
		}
	}
}

// certificates counts the files of certificates that a program reads and their
// bytes, by path.
func certificates(t *testing.T, r *analysis.Report) map[string]analysis.Cert {
	t.Helper()
	all := map[string]analysis.Cert{}
	for _, c := range r.Certs {
		all[c.Path] = c
	}
	return all
}

// A file of certificates is read whole, by the function that says so.
func TestCertificates(t *testing.T) {
	needRoot(t)
	const bundle = "/etc/ssl/certs/ca-certificates.crt"
	file, err := os.Stat(bundle)
	if err != nil {
		t.Skipf("needs ca-certificates: %v", err)
	}
	check := func(t *testing.T, r *analysis.Report, function string) {
		t.Helper()
		c, ok := certificates(t, r)[bundle]
		if !ok || c.Bytes == nil || int64(*c.Bytes) != file.Size() || c.NS <= 0 || c.Phase == "" || c.Function != function {
			t.Errorf("%+v (bytes %v), want %d bytes read by %s", c, c.Bytes, file.Size(), function)
		}
	}
	t.Run("Go", func(t *testing.T) {
		dir := openDir(t)
		b := goBuild{stripped: true}
		b.build(t, dir)
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
		check(t, recordOne(t, dir, nil, filepath.Join(dir, "extension")), "crypto/x509.loadSystemRoots")
	})
	t.Run("OpenSSL", func(t *testing.T) {
		python, err := filepath.EvalSymlinks("/usr/bin/python3")
		if err != nil {
			t.Skip("needs /usr/bin/python3")
		}
		script := strings.Replace(pythonExtension, "libc.gnu_get_libc_release", "ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations('"+bundle+"')", 1)
		check(t, recordOne(t, openDir(t), nil, python, "-c", script), "SSL_CTX_load_verify_locations")
	})
}
