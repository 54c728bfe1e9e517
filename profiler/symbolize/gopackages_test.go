package symbolize

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

var inittraceLine = regexp.MustCompile(`(?m)^init (\S+) @`)

// TestPackageInitsAgreeWithInittrace: the packages read from the file are those
// that the runtime says it initialised.
func TestPackageInitsAgreeWithInittrace(t *testing.T) {
	strip := "-ldflags=-s -w"
	builds := []goBuild{
		{program: "goprog"},
		{program: "goprog", flags: []string{strip}},
		{program: "goprog", flags: []string{"-buildmode=pie"}},
		{program: "goprog", flags: []string{"-buildmode=pie", strip}},
		{program: "gocgo", cgo: true, flags: []string{strip}},
		{program: "gocgo", cgo: true, flags: []string{"-buildmode=pie", strip}},
	}
	for _, v := range toolchains {
		for _, flags := range [][]string{nil, {strip}, {"-buildmode=pie", strip}} {
			builds = append(builds, goBuild{program: "goprog", toolchain: v, flags: flags})
		}
	}
	for _, b := range builds {
		t.Run(b.String(), func(t *testing.T) {
			if b.toolchain != "" {
				needToolchain(t, b.toolchain)
			}
			if b.cgo {
				needTool(t, "gcc")
			}
			path := buildGo(t, b)
			cmd := exec.Command(path)
			cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, stderr.Bytes())
			}
			var want, got []string
			for _, m := range inittraceLine.FindAllStringSubmatch(stderr.String(), -1) {
				want = append(want, packagePath(m[1]+".init"))
			}
			if len(want) < 5 {
				t.Fatalf("inittrace names %d packages:\n%s", len(want), stderr.Bytes())
			}
			o := openObject(t, path)
			inits, err := o.PackageInits()
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range inits {
				got = append(got, p.Path)
				if frames := o.Frames(p.FirstFunc); p.Funcs < 1 || len(frames) == 0 || !strings.Contains(frames[len(frames)-1].Function, ".init") {
					t.Errorf("%s: %d functions, the first is %v", p.Path, p.Funcs, frames)
				}
			}
			if diff := cmp.Diff(want, got, cmpopts.SortSlices(strings.Compare)); diff != "" {
				t.Errorf("-inittrace +file:\n%s", diff)
			}
		})
	}
}

// TestPackageInitsAreRefused where their place is not known.
func TestPackageInitsAreRefused(t *testing.T) {
	for version, want := range map[string]string{
		"go1.21.13":                "go1.21 keeps them is not known",
		"go1.27":                   "go1.27 keeps them is not known",
		"devel +abcdef":            `Go version "devel +abcdef" is not known`,
		"":                         `Go version "" is not known`,
		"go1.x":                    `Go version "go1.x" is not known`,
		"gollvm 1.26":              "is not known",
		"go1.99999999999999999999": "is not known",
	} {
		if _, err := inittasksWord(version); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("version %q: %v, want %q", version, err, want)
		}
	}
	for _, version := range []string{"go1.26.8", "go1.26rc1", "go1.26-devel", "go1.22.12 X:nocoverageredesign"} {
		if _, err := inittasksWord(version); err != nil {
			t.Errorf("version %q: %v", version, err)
		}
	}
}

func TestPackagePath(t *testing.T) {
	for symbol, want := range map[string]string{
		"main.init":                         "main",
		"crypto/x509.init.0":                "crypto/x509",
		"gopkg.in/yaml%2ev3.init":           "gopkg.in/yaml.v3",
		"github.com/a/b.c/d.init.1.func2":   "github.com/a/b.c/d",
		"vendor/golang.org/x/net/idna.init": "vendor/golang.org/x/net/idna",
		"a%zz.init":                         "a%zz",
		"":                                  "",
	} {
		if got := packagePath(symbol); got != want {
			t.Errorf("packagePath(%q) = %q, want %q", symbol, got, want)
		}
	}
}

// FuzzPackageInits changes words of a Go program's data, among them moduledata
// and the tasks it leads to: an error or packages that are in the file.
func FuzzPackageInits(f *testing.F) {
	path := buildGo(f, goBuild{program: "goprog", flags: []string{"-ldflags=-s -w"}})
	file, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	o := openObject(f, path)
	m := o.findModule(o.goTable())
	inits, err := o.PackageInits()
	if err != nil || m == nil {
		f.Fatal(err)
	}
	list, _ := o.FileOffset(m.words[moduleInittasks[26]])
	task, _ := o.FileOffset(inits[0].Task)
	for _, at := range []uint64{list, task, task + 4} {
		f.Add(uint32(at), uint64(1<<63), uint32(at+8), uint64(0xffffffff))
	}
	for _, at := range []int{0, 1} { // length and capacity
		f.Add(uint32(bytes.Index(file, le.AppendUint64(nil, m.words[moduleInittasks[26]]))+8*at+8), uint64(1<<40), uint32(0), uint64(0))
	}
	f.Fuzz(func(t *testing.T, at1 uint32, v1 uint64, at2 uint32, v2 uint64) {
		changed := bytes.Clone(file)
		for at, v := range map[uint32]uint64{at1: v1, at2: v2} {
			if uint64(at)+8 <= uint64(len(changed)) {
				le.PutUint64(changed[at:], v)
			}
		}
		o, err := OpenObject(readerAt(changed))
		if err != nil {
			return
		}
		inits, _ := o.PackageInits()
		if len(inits) > len(changed)/8 {
			t.Errorf("%d packages in a file of %d bytes", len(inits), len(changed))
		}
	})
}
