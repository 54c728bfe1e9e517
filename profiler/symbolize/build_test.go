package symbolize

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// unavailable skips a test for lack of something that CI has, and fails it
// where skips are forbidden.
func unavailable(t testing.TB, format string, args ...any) {
	t.Helper()
	if os.Getenv("INITPROF_FORBID_SKIP") != "" {
		t.Fatalf("must not be skipped here: "+format, args...)
	}
	t.Skipf(format, args...)
}

// goBuild is one way to build a Go test program.
type goBuild struct {
	program   string // directory under testdata
	toolchain string // "" is the one that runs the test
	arch      string
	flags     []string
	cgo       bool
}

func (b goBuild) String() string {
	name := []string{b.program}
	for _, s := range append([]string{b.toolchain, b.arch}, b.flags...) {
		if s != "" {
			name = append(name, strings.NewReplacer("-", "", "=", "_", " ", "").Replace(s))
		}
	}
	return strings.Join(name, "_")
}

var built struct {
	sync.Mutex
	dir   string
	files map[string]string
}

func TestMain(m *testing.M) {
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// buildDir returns a directory for what tests build and share.
func buildDir(t testing.TB) string {
	t.Helper()
	if built.dir == "" {
		dir, err := os.MkdirTemp("", "symbolize")
		if err != nil {
			t.Fatal(err)
		}
		built.dir, built.files = dir, map[string]string{}
	}
	return built.dir
}

// buildGo builds a test program once and returns its path.
func buildGo(t testing.TB, b goBuild) string {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	dir := buildDir(t)
	if path := built.files[b.String()]; path != "" {
		return path
	}
	path := filepath.Join(dir, b.String())
	cmd := exec.Command("go", append(append([]string{"build", "-o", path}, b.flags...), ".")...)
	cmd.Dir = filepath.Join("testdata", b.program)
	cmd.Env = append(os.Environ(), "GOFLAGS=-buildvcs=false", "GOWORK=off", "CGO_ENABLED=0")
	if b.cgo {
		cmd.Env = append(cmd.Env, "CGO_ENABLED=1")
	}
	if b.arch != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+b.arch)
	}
	cmd.Env = append(cmd.Env, "GOTOOLCHAIN=local")
	if b.toolchain != "" {
		cmd.Env = append(cmd.Env, "GOTOOLCHAIN="+b.toolchain)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	built.files[b.String()] = path
	return path
}

// toolchains are the Go versions whose programs are read, oldest first; the
// one that runs the test comes besides.
var toolchains = []string{"go1.22.12", "go1.23.12", "go1.24.13", "go1.25.8"}

// needToolchain skips the test unless the toolchain is in the module cache.
// With INITPROF_TOOLCHAINS=download it is fetched; no test downloads
// hundreds of megabytes unasked.
func needToolchain(t testing.TB, toolchain string) {
	t.Helper()
	if os.Getenv("INITPROF_TOOLCHAINS") != "download" {
		out, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			t.Fatal(err)
		}
		dir := fmt.Sprintf("golang.org/toolchain@v0.0.1-%s.%s-%s", toolchain, runtime.GOOS, runtime.GOARCH)
		if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(out)), dir)); errors.Is(err, fs.ErrNotExist) {
			t.Skipf("%s is not in the module cache; INITPROF_TOOLCHAINS=download fetches it", toolchain)
		}
		return
	}
	cmd := exec.Command("go", "version")
	cmd.Env = append(os.Environ(), "GOTOOLCHAIN="+toolchain)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s cannot be had: %s", toolchain, out)
	}
}

// needTool skips the test unless a program is installed.
func needTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		unavailable(t, "%s is not installed", name)
	}
	return path
}

// openObject opens a file for the length of the test.
func openObject(t testing.TB, path string) *Object {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	o, err := OpenObject(f)
	if err != nil {
		t.Fatal(err)
	}
	return o
}
