package imports

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/initprof/initprof/profiler/trace"
)

func TestModuleName(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/lib/python3.11/__pycache__/ssl.cpython-311.pyc":                                   "ssl",
		"/usr/lib/python3.11/json/__pycache__/decoder.cpython-311.opt-1.pyc":                    "json.decoder",
		"/usr/lib/python3.11/json/__init__.py":                                                  "json",
		"/usr/lib/python3.11/lib-dynload/_ssl.cpython-311-x86_64-linux-gnu.so":                  "_ssl",
		"/usr/lib/python3/dist-packages/yaml/_yaml.cpython-311-x86_64-linux-gnu.so":             "yaml._yaml",
		"/v/lib/python3.11/site-packages/cryptography/hazmat/bindings/_rust.abi3.so":            "cryptography.hazmat.bindings._rust",
		"/v/lib/python3.11/site-packages/runtime_client.cpython-311-aarch64-linux-gnu.so":       "runtime_client",
		"/var/task/app/sub/mod.py":                                                              "app.sub.mod",
		"/var/task/__pycache__/handler.cpython-312.pyc":                                         "handler",
		"/opt/python/datadog_lambda/__init__.py":                                                "datadog_lambda",
		"/opt/python/lib/python3.12/site-packages/ddtrace/__pycache__/__init__.cpython-312.pyc": "ddtrace",
		"/home/me/pkg/__init__.py":                                                              "pkg",
		"/home/me/pkg/mod.py":                                                                   "mod",
		"/var/task/node_modules/a/node_modules/@b/c/lib/d.js":                                   "@b/c/lib/d.js",
		"/var/task/node_modules/bindings/build/Release/x.node":                                  "bindings/build/Release/x.node",
		"/var/task/index.mjs":                                                                   "index.mjs",
		"handler.js":                                                                            "handler.js",
	} {
		if got, ok := moduleName(path); !ok || got != want {
			t.Errorf("%s is %q %v, want %q", path, got, ok, want)
		}
	}
	for _, path := range []string{
		"/lib/x86_64-linux-gnu/libssl.so.3", "/lib/libssl.so", "/etc/passwd", "/usr/lib/python3.11", "/x/package.json", "/x/.py",
		"/usr/lib/python3.11/__pycache__/ssl.cpython-311.pyc.140123", "", "/",
	} {
		if got, ok := moduleName(path); ok {
			t.Errorf("%s is a module, %q", path, got)
		}
	}
}

// stream is what threads 10 and 11 of a process do, call by call.
type stream struct {
	t      *testing.T
	events []trace.Event
}

func (s *stream) call(at int64, tid int, name, path string, result int64) {
	s.t.Helper()
	number, ok := trace.SyscallNumber("amd64", name)
	if !ok {
		s.t.Fatalf("no system call %s", name)
	}
	c := &trace.Syscall{Header: trace.Header{Time: at, PID: 10, TID: tid}, End: at + 1, Number: number, Return: result, Path: path}
	if name == "openat" {
		c.Args[0] = 0xffffff9c
	}
	s.events = append(s.events, c)
}

func (s *stream) find(from, to int64) []Module {
	s.t.Helper()
	tl, err := trace.Build(s.events, trace.BuildOptions{Arch: "amd64", Stop: 1000})
	if err != nil {
		s.t.Fatal(err)
	}
	return Find(tl, from, to)
}

var withoutThread = cmpopts.IgnoreFields(Module{}, "Thread")

func TestFind(t *testing.T) {
	const lib = "/usr/lib/python3.11/"
	s := &stream{t: t}
	s.events = append(s.events, &trace.Fork{Header: trace.Header{Time: 5, PID: 10, TID: 10}, ChildPID: 10, ChildTID: 11})
	s.call(10, 10, "newfstatat", "", 0) // whose path is not recorded
	s.call(15, 10, "getppid", "", 1)
	s.call(20, 10, "openat", lib+"a/__pycache__/__init__.cpython-311.pyc", -2)
	s.call(30, 10, "openat", lib+"a/__init__.py", 3)
	s.call(40, 10, "openat", "/etc/hosts", 4)
	s.call(45, 11, "openat", lib+"other.py", 5)
	s.call(50, 10, "openat", lib+"__pycache__/b.cpython-311.pyc", 6)
	s.call(60, 10, "openat", lib+"b.py", 7) // the same module once more
	s.call(90, 10, "openat", lib+"c.py", 8)
	got := s.find(0, 100)
	want := []Module{
		{Name: "a", Path: lib + "a/__init__.py", Start: 30, NS: 20, Opens: 1, Probes: 2},
		{Name: "other", Path: lib + "other.py", Start: 45, Opens: 1},
		{Name: "b", Path: lib + "__pycache__/b.cpython-311.pyc", Start: 50, NS: 40, Opens: 2, Probes: 1},
		{Name: "c", Path: lib + "c.py", Start: 90, Opens: 1},
	}
	if diff := cmp.Diff(want, got, withoutThread); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if got := s.find(0, 50); len(got) != 2 || got[0].NS != 0 {
		t.Errorf("up to 50: %+v", got)
	}
	if got[1].Thread == got[0].Thread || got[2].Thread != got[0].Thread {
		t.Error("modules of two threads are mixed up")
	}
}

func FuzzModuleName(f *testing.F) {
	f.Add("/usr/lib/python3.11/json/__pycache__/decoder.cpython-311.pyc")
	f.Add("/a/node_modules/b/c.js")
	f.Fuzz(func(t *testing.T, path string) {
		if name, ok := moduleName(path); ok && name == "" {
			t.Errorf("%q is a module without a name", path)
		}
	})
}
