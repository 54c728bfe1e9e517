package cli_test

import (
	"fmt"
	"path/filepath"
	"testing"
)

// Every dlopen and dlsym is listed with its name, its result and its time:
// those that fail, that open a file without a name, that are left by a longjmp.
func TestDlopenAndDlsym(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	for name, source := range map[string]string{
		"one":   "int present(void) { return 1; }",
		"two":   "int second(void) { return 2; }",
		"three": "int third(void) { return 3; }",
		// Its constructor does not return to dlopen.
		"jumps": "void leave(void); __attribute__((constructor)) static void start(void) { leave(); }",
	} {
		writeFile(t, filepath.Join(dir, name+".c"), source)
		gcc(t, dir, "-shared", "-fPIC", "-o", name+".so", name+".c")
	}
	writeFile(t, filepath.Join(dir, "broken.so"), "this is no library")
	path := extensionC(t, dir, "opens", `
#include <dlfcn.h>
#include <fcntl.h>
#include <setjmp.h>
#include <sys/mman.h>
#include <sys/stat.h>
static jmp_buf out;
void leave(void) { longjmp(out, 1); }
static void expect(int condition, const char *what) { if (!condition) { fprintf(stderr, "%s: %s\n", what, dlerror()); exit(1); } }
static int copy(const char *path) {
	static char content[1 << 20];
	int from = open(path, O_RDONLY), to = memfd_create("library", 0);
	ssize_t n = read(from, content, sizeof(content));
	expect(write(to, content, n) == n && dup2(to, 100) == 100, "memfd");
	return 100;
}
`, fmt.Sprintf(`
	#define DIR "%s/"
	void *one = dlopen(DIR "one.so", RTLD_NOW), *all = dlopen(NULL, RTLD_LAZY), *other;
	expect(one && all, "dlopen");
	for (int i = 0; i < 3; i++) expect(!dlopen("/no/such/library.so", RTLD_NOW), "opened");
	expect(!dlopen(DIR "broken.so", RTLD_NOW), "opened");
	copy(DIR "two.so");
	expect(dlopen("/proc/self/fd/100", RTLD_NOW) != NULL, "dlopen");
	other = dlmopen(LM_ID_NEWLM, DIR "three.so", RTLD_NOW);
	expect(other && dlsym(other, "third"), "dlmopen");
	expect(dlsym(one, "present") && !dlsym(one, "absent") && dlsym(RTLD_DEFAULT, "leave"), "dlsym");
	expect(dlvsym(RTLD_DEFAULT, "no_such_version", "V_1") == NULL, "dlvsym");
	if (!setjmp(out)) dlopen(DIR "jumps.so", RTLD_NOW);
	expect(dlsym(RTLD_DEFAULT, "last_one") == NULL, "dlsym");`, dir), "-rdynamic")
	r := recordBinding(t, dir, nil, path)

	type result struct {
		count float64
		ok    bool
		timed bool
	}
	got := map[string]result{}
	for _, d := range r.Dlopens {
		got["dlopen "+d.Path] = result{d.Count, d.OK, d.NS != nil && *d.NS > 0}
	}
	for _, d := range r.Dlsyms {
		got["dlsym "+d.Name] = result{d.Count, d.OK, d.NS != nil && *d.NS > 0}
	}
	want := map[string]result{
		"dlopen " + dir + "/one.so":    {1, true, true},
		"dlopen ":                      {1, true, true}, // the program itself
		"dlopen /no/such/library.so":   {3, false, true},
		"dlopen " + dir + "/broken.so": {1, false, true},
		"dlopen /proc/self/fd/100":     {1, true, true},
		"dlopen " + dir + "/three.so":  {1, true, true},
		"dlopen " + dir + "/jumps.so":  {1, false, false}, // when it was left is not known
		"dlsym third":                  {1, true, true},
		"dlsym present":                {1, true, true},
		"dlsym absent":                 {1, false, true},
		"dlsym leave":                  {1, true, true},
		"dlsym no_such_version":        {1, false, true},
		"dlsym last_one":               {1, false, true},
	}
	for name, w := range want {
		if got[name] != w {
			t.Errorf("%s: %+v, want %+v", name, got[name], w)
		}
	}
	for name, g := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s: %+v, which nobody called", name, g)
		}
	}
	mapped := 0
	for _, o := range r.Binding.Objects {
		if filepath.Dir(o.Path) == dir || filepath.Base(o.Path) == "memfd:library (deleted)" {
			mapped++
		}
	}
	if mapped != 5 {
		t.Errorf("%d of the program and the four libraries that were relocated are among %+v", mapped, r.Binding.Objects)
	}
}
