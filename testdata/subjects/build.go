// Package subjects compiles the programs whose truth is known: how many system
// calls, faults, children and milliseconds they cost stands in their sources,
// and live tests compare it with what a recording says.
//
// It serves tests alone and stands outside the data flow.
package subjects

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
)

// Names of the programs that Compile knows.
const (
	Extension       = "extension"        // C, dynamically linked; its first argument is its deed (c/extension.c)
	ExtensionStatic = "extension-static" // the same, linked statically
	Script          = "extension.sh"     // a script that executes Extension
	GoExtension     = "go-extension"     // net/http, static, not stripped
	GoStripped      = "go-stripped"      // the same, stripped of symbols and DWARF
	GoFunction      = "bootstrap"        // a function on aws-lambda-go
	RustExtension   = "rust-extension"   // tokio, reqwest, rustls, jemalloc; with symbols and line tables
	RustStripped    = "rust-stripped"    // the same, stripped; RustExtension serves as its --symbols
	RustH7          = "rust-h7"          // stripped, with all symbols bound at load
	RustH16         = "rust-h16"         // stripped, jemalloc with one arena
	RustMusl        = "rust-musl"        // stripped, static on musl
	PythonFunction  = "python-function"  // a virtual environment: PythonCommand
	NodeFunction    = "node-function"    // a folder: NodeCommand
)

// PythonCommand starts the function in the folder that Build or Compile gives.
func PythonCommand(dir string) []string {
	return []string{filepath.Join(dir, "bin", "python"), "-m", "awslambdaric", "handler.handler"}
}

// NodeCommand starts the function in the folder that Build or Compile gives.
func NodeCommand(dir string) []string {
	node, err := exec.LookPath("node")
	if err != nil {
		node = "node"
	}
	return []string{node, filepath.Join(dir, "bootstrap.js")}
}

// All lists the programs in the order in which they are built.
var All = []string{
	Extension, ExtensionStatic, Script, GoExtension, GoStripped, GoFunction,
	RustExtension, RustStripped, RustH7, RustH16, RustMusl,
	PythonFunction, NodeFunction,
}

// ErrUnavailable is wrapped by errors that say which tool a program lacks.
var ErrUnavailable = errors.New("subject cannot be built here")

// Options says for what to compile. The zero value is this machine.
type Options struct {
	GOARCH string // amd64 or arm64
}

// source is this folder, wherever the repository was cloned to.
func source() (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if ok && filepath.IsAbs(file) {
		return filepath.Dir(file), nil
	}
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output()
	if err != nil {
		return "", fmt.Errorf("find the module: %w", err)
	}
	return filepath.Join(string(out[:len(out)-1]), "testdata", "subjects"), nil
}

// Compile builds the program name in the folder dir and gives its path. The
// error wraps ErrUnavailable where a compiler is missing.
func Compile(dir, name string, opts Options) (string, error) {
	from, err := source()
	if err != nil {
		return "", err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, name)
	switch name {
	case Extension:
		return to, compileC(from, to, opts)
	case ExtensionStatic:
		return to, compileC(from, to, opts, "-static")
	case Script:
		if _, err := Compile(dir, Extension, opts); err != nil {
			return "", err
		}
		text, err := os.ReadFile(filepath.Join(from, "script", name))
		if err != nil {
			return "", err
		}
		return to, os.WriteFile(to, text, 0o755)
	case GoExtension:
		return to, compileGo(filepath.Join(from, "go", "extension"), to, opts)
	case GoStripped:
		return to, compileGo(filepath.Join(from, "go", "extension"), to, opts, "-ldflags=-s -w")
	case GoFunction:
		return to, compileGo(filepath.Join(from, "go-function"), to, opts)
	case RustExtension, RustStripped, RustH7, RustH16, RustMusl:
		return to, compileRust(from, to, name, opts)
	case PythonFunction:
		return to, compilePython(from, to)
	case NodeFunction:
		return to, copyNode(from, to)
	}
	return "", fmt.Errorf("no subject is named %q (known: %q)", name, All)
}

func compileC(from, to string, opts Options, flags ...string) error {
	cc := "gcc"
	if opts.GOARCH != "" && opts.GOARCH != runtime.GOARCH {
		target, ok := map[string]string{"arm64": "aarch64", "amd64": "x86_64"}[opts.GOARCH]
		if !ok {
			return fmt.Errorf("no C compiler is known for %s", opts.GOARCH)
		}
		cc = target + "-linux-gnu-gcc"
	}
	path, err := exec.LookPath(cc)
	if err != nil {
		return fmt.Errorf("%w: needs %s", ErrUnavailable, cc)
	}
	args := append([]string{"-O1", "-g", "-Wall", "-o", to}, flags...)
	args = append(args, filepath.Join(from, "c", "extension.c"))
	return run(exec.Command(path, args...))
}

func compileGo(from, to string, opts Options, flags ...string) error {
	path, err := exec.LookPath("go")
	if err != nil {
		return fmt.Errorf("%w: needs go", ErrUnavailable)
	}
	args := append([]string{"build", "-trimpath", "-buildvcs=false"}, flags...)
	cmd := exec.Command(path, append(args, "-o", to, ".")...)
	cmd.Dir = from
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux")
	if opts.GOARCH != "" {
		cmd.Env = append(cmd.Env, "GOARCH="+opts.GOARCH)
	}
	return run(cmd)
}

func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", cmd, err, out)
	}
	return nil
}

var (
	mu    sync.Mutex
	built = map[string]string{} // name → folder that holds it
)

// Build compiles the program name, once while its file exists, and gives
// its path. The file lives as long as the test that asked for it first.
// It skips the test, by the name of what is lacking, where the compiler is
// missing; INITPROF_FORBID_SKIP makes that a failure.
func Build(t testing.TB, name string) string {
	t.Helper()
	mu.Lock()
	defer mu.Unlock()
	dir, ok := built[name]
	if ok {
		if path := filepath.Join(dir, name); exists(path) {
			return path
		}
	}
	dir = t.TempDir()
	// Subjects run as other users too.
	for at := dir; len(at) > len(os.TempDir()); at = filepath.Dir(at) {
		_ = os.Chmod(at, 0o755)
	}
	path, err := Compile(dir, name, Options{})
	if errors.Is(err, ErrUnavailable) && os.Getenv("INITPROF_FORBID_SKIP") == "" {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	built[name] = dir
	return path
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
