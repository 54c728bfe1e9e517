package cli_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// goBuild is a way to build the extension of testdata/subjects/go.
type goBuild struct {
	toolchain string // empty: the one that runs the test
	pie       bool
	stripped  bool
	cgo       bool
}

func (b goBuild) String() string {
	s := b.toolchain
	if s == "" {
		s = runtime.Version()
	}
	if b.pie {
		s += " PIE"
	}
	if b.stripped {
		s += " stripped"
	}
	if b.cgo {
		s += " cgo"
	}
	return s
}

// build compiles it as a module of its own, which any Go from 1.22 on accepts.
// A toolchain that is not in the module cache is a reason to skip: no test
// downloads hundreds of megabytes unasked.
func (b goBuild) build(t *testing.T, dir string) string {
	t.Helper()
	env := append(os.Environ(), "CGO_ENABLED=0")
	if b.cgo {
		env = append(env, "CGO_ENABLED=1")
	}
	if b.toolchain != "" {
		cache, err := exec.Command("go", "env", "GOMODCACHE").Output()
		if err != nil {
			t.Fatal(err)
		}
		found := filepath.Join(strings.TrimSpace(string(cache)), fmt.Sprintf("golang.org/toolchain@v0.0.1-%s.%s-%s", b.toolchain, runtime.GOOS, runtime.GOARCH))
		if _, err := os.Stat(found); err != nil && os.Getenv("INITPROF_TOOLCHAINS") != "download" {
			t.Skipf("%s is not in the module cache; INITPROF_TOOLCHAINS=download fetches it", b.toolchain)
		}
		env = append(env, "GOTOOLCHAIN="+b.toolchain)
	}
	source, err := os.ReadFile("../../testdata/subjects/go/extension/main.go")
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(dir, "main.go"), string(source))
	writeFile(t, filepath.Join(dir, "go.mod"), "module extension\n\ngo 1.22\n")
	args := []string{"build", "-trimpath", "-buildvcs=false"}
	if b.pie {
		args = append(args, "-buildmode=pie")
	}
	if b.stripped {
		args = append(args, "-ldflags=-s -w")
	}
	c := exec.Command("go", append(args, "-o", "extension", ".")...)
	c.Dir, c.Env = dir, env
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", c, err, out)
	}
	return filepath.Join(dir, "extension")
}

var inittraceLine = regexp.MustCompile(`(?m)^init (\S+) @\S+ ms, (\S+) ms clock`)

// inittrace runs a program and adds to durations, in nanoseconds, what the
// runtime says each package's initialisation took. The program itself fails:
// nobody serves it.
func inittrace(t *testing.T, path string, durations map[string][]int64) {
	t.Helper()
	c := exec.Command(path)
	c.Env = []string{"GODEBUG=inittrace=1", "AWS_LAMBDA_RUNTIME_API=127.0.0.1:1"}
	var out bytes.Buffer
	c.Stderr = &out
	_ = c.Run() // see above
	lines := inittraceLine.FindAllStringSubmatch(out.String(), -1)
	if len(lines) < 5 {
		t.Fatalf("inittrace says:\n%s", out.Bytes())
	}
	for _, m := range lines {
		ms, err := strconv.ParseFloat(m[2], 64)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.ReplaceAll(m[1], "%2e", ".")
		// The runtime cuts all but two digits, and what is below 1 µs (fmtNSAsMS of
		// runtime/proc.go): the truth is half a digit more on average.
		cut := 500.0
		for limit := 0.1; ms >= limit; limit *= 10 {
			cut *= 10
		}
		durations[name] = append(durations[name], int64(ms*1e6+cut))
	}
}

// The packages that were initialised, and how long each took, are those that
// the runtime itself names, whatever built the program.
func TestPackagesAgreeWithInittrace(t *testing.T) {
	needRoot(t)
	builds := []goBuild{{}, {stripped: true}, {pie: true}, {pie: true, stripped: true}, {cgo: true, stripped: true}}
	for _, v := range []string{"go1.22.12", "go1.23.12", "go1.24.13", "go1.25.8"} {
		builds = append(builds, goBuild{toolchain: v, stripped: true}, goBuild{toolchain: v, pie: true})
	}
	const starts = 5
	for _, b := range builds {
		t.Run(b.String(), func(t *testing.T) {
			dir := openDir(t)
			path := b.build(t, dir)
			run := filepath.Join(dir, "run.initprof")
			code, _, errOut := initprof("record", "-q", "-n", strconv.Itoa(starts), "--untraced", "0", "-o", run, "--", path)
			if code != 0 {
				t.Fatalf("exit code %d\n%s", code, errOut)
			}
			ours, theirs := map[string][]int64{}, map[string][]int64{}
			for i := range starts {
				for _, p := range report(t, run, "--run", strconv.Itoa(i+1)).Packages {
					ours[p.Path] = append(ours[p.Path], p.NS)
				}
				inittrace(t, path, theirs)
			}
			var differences []int64
			for name, durations := range theirs {
				if len(ours[name]) != starts {
					t.Errorf("%s was initialised in %d of %d cold starts", name, len(ours[name]), starts)
					continue
				}
				// The least of several cold starts: other programs only add to them.
				differences = append(differences, slices.Min(ours[name])-slices.Min(durations))
			}
			for name := range ours {
				if theirs[name] == nil {
					t.Errorf("%q was not initialised", name)
				}
			}
			middle := median(differences)
			t.Logf("%d packages, median difference %d ns", len(differences), middle)
			if middle > 2000 || middle < -2000 {
				t.Errorf("the median difference is %d ns, want 2000 at most", middle)
			}
		})
	}
}

func median(list []int64) int64 {
	slices.Sort(list)
	return list[len(list)/2]
}
