package symbolize

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// buildC compiles a test program once and returns its path.
func buildC(t testing.TB, source string, flags ...string) string {
	t.Helper()
	compiler := needTool(t, "gcc")
	if strings.HasSuffix(source, ".cc") {
		compiler = needTool(t, "g++")
	}
	built.Lock()
	defer built.Unlock()
	path := filepath.Join(buildDir(t), strings.NewReplacer("-", "", " ", "", ",", "", "=", "").Replace(source+strings.Join(flags, "_")))
	if built.files[path] != "" {
		return path
	}
	cmd := exec.Command(compiler, append(append([]string{"-g", "-O2", "-o", path}, flags...), filepath.Join("testdata/c", source))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, out)
	}
	built.files[path] = path
	return path
}

// output runs a tool and returns what it prints.
func output(t testing.TB, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(needTool(t, name), args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", cmd, err, stderr.Bytes())
	}
	return string(out)
}

// Every function that nm lists is found by its name, at its address.
func TestFunctionsAreThoseOfNM(t *testing.T) {
	for _, flags := range [][]string{{"-no-pie"}, {"-pie"}, {"-static"}, {"-static-pie"}} {
		t.Run(strings.Join(flags, ""), func(t *testing.T) {
			path := buildC(t, "chain.c", flags...)
			o := openObject(t, path)
			names := map[uint64][]string{}
			var end uint64
			sizes := map[uint64]uint64{}
			for line := range strings.Lines(output(t, "nm", "-S", "--defined-only", path)) {
				f := strings.Fields(line)
				if len(f) != 4 || !strings.ContainsAny(f[2], "tTwWi") {
					continue
				}
				var address, size uint64
				if _, err := fmt.Sscanf(f[0]+" "+f[1], "%x %x", &address, &size); err != nil {
					t.Fatal(err)
				}
				name, _, _ := strings.Cut(f[3], "@")
				names[address] = append(names[address], name)
				sizes[address] = max(sizes[address], size)
				end = max(end, address+size)
			}
			for address, want := range names {
				frames := o.Frames(address + sizes[address]/2)
				if len(frames) == 0 || !slices.Contains(want, frames[len(frames)-1].Function) {
					t.Errorf("%#x is %v, nm says %v", address, frames, want)
				}
			}
			for _, name := range []string{"main", "global_middle", "local_leaf"} {
				address, size, ok := o.LookupFunc(name)
				if !ok || size != sizes[address] || !slices.Contains(names[address], name) {
					t.Errorf("%s is at %#x, %d bytes", name, address, size)
				}
				offset, err := o.FileOffset(address)
				if err != nil {
					t.Fatal(err)
				}
				code, err := o.ReadAddress(address, 4)
				if err != nil {
					t.Fatal(err)
				}
				file, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(code, file[offset:offset+4]) {
					t.Errorf("%s: %x in memory, %x at its offset", name, code, file[offset:offset+4])
				}
			}
			if frames := o.Frames(end + 1<<20); frames != nil {
				t.Errorf("an address behind the code is %v", frames)
			}
			t.Logf("%d functions", len(names))
		})
	}
}

// The Go table gives the same outermost function, file and line as
// `go tool addr2line`, which reads it through debug/gosym; on arm64 too, where
// the program cannot be asked.
func TestGoFramesAreThoseOfAddr2line(t *testing.T) {
	for _, b := range []goBuild{{program: "goprog"}, {program: "goprog", arch: "arm64"}} {
		path := buildGo(t, b)
		o := openObject(t, path)
		var input bytes.Buffer
		var addresses []uint64
		for i, f := range o.Functions() {
			a := f.Address + f.Size*uint64(i%7)/7&^3
			addresses = append(addresses, a)
			fmt.Fprintf(&input, "%#x\n", a)
		}
		cmd := exec.Command("go", "tool", "addr2line", path)
		cmd.Stdin = &input
		out, err := cmd.Output()
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(bytes.NewReader(out))
		n := 0
		for ; lines.Scan(); n++ {
			function := lines.Text()
			lines.Scan()
			frames := o.Frames(addresses[n])
			if len(frames) == 0 {
				t.Fatalf("%#x: no name, addr2line says %s", addresses[n], function)
			}
			innermost, outermost := frames[0], frames[len(frames)-1]
			if outermost.Function != shownName(function) || innermost.File != "" && fmt.Sprintf("%s:%d", innermost.File, innermost.Line) != lines.Text() {
				t.Errorf("%#x: %v, addr2line says %s %s", addresses[n], frames, function, lines.Text())
			}
		}
		if n != len(addresses) {
			t.Fatalf("%d answers to %d addresses", n, len(addresses))
		}
		t.Logf("%s: %d functions", b, n)
	}
}

func TestObjectInfo(t *testing.T) {
	c := buildC(t, "chain.c", "-pie")
	for _, test := range []struct {
		name, path, language, linkage string
		pie, stripped                 bool
	}{
		{"c", c, LanguageC, "dynamic", true, false},
		{"static c", buildC(t, "chain.c", "-static"), LanguageC, "static", false, false},
		{"c++", buildC(t, "names.cc"), LanguageCPP, "dynamic", true, false},
		{"go", buildGo(t, goBuild{program: "goprog", flags: []string{"-ldflags=-s -w"}}), LanguageGo, "static", false, true},
		{"cgo", buildGo(t, goBuild{program: "gocgo", cgo: true, flags: []string{"-ldflags=-s -w"}}), LanguageGo, "dynamic", false, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			o := openObject(t, test.path)
			language, version := o.Language()
			i := o.Info
			if language != test.language || version == "" || i.Linkage != test.linkage || i.PIE != test.pie || i.Stripped != test.stripped {
				t.Errorf("%q %q %+v", language, version, i)
			}
			if i.Linkage == "dynamic" && (i.Interpreter == "" || len(i.Needed) == 0) {
				t.Errorf("%+v", i)
			}
		})
	}
	want := ""
	for line := range strings.Lines(output(t, "readelf", "-n", c)) {
		if _, id, ok := strings.Cut(line, "Build ID: "); ok {
			want = strings.TrimSpace(id)
		}
	}
	if got := openObject(t, c).Info.BuildID; got != want {
		t.Errorf("build ID %q, readelf says %q", got, want)
	}
	g := buildGo(t, goBuild{program: "goprog"})
	o := openObject(t, g)
	if goID := strings.TrimSpace(output(t, "go", "tool", "buildid", g)); o.Info.GoBuildID != goID {
		t.Errorf("Go build ID %q, want %q", o.Info.GoBuildID, goID)
	}
	bare := openObject(t, buildGo(t, goBuild{program: "goprog", flags: []string{"-ldflags=-B none"}}))
	if bare.hasGNUBuildID() || bare.Info.BuildID != GNUBuildID(bare.Info.GoBuildID) {
		t.Errorf("without a GNU build ID: %+v", bare.Info)
	}
}

func TestOpenObjectRefuses(t *testing.T) {
	for name, content := range map[string]string{"empty": "", "script": "#!/bin/sh\nexit 0\n", "short": "\x7fELF", "text": strings.Repeat("x", 100)} {
		if _, err := OpenObject(readerAt(content)); !errors.Is(err, ErrNotELF) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSymbolsForAStrippedSubject(t *testing.T) {
	full := buildC(t, "chain.c", "-pie")
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	output(t, "objcopy", "--strip-all", full, path("stripped"))
	output(t, "objcopy", "--only-keep-debug", full, path("debug"))
	output(t, "objcopy", "--strip-all", "--remove-section=.note.gnu.build-id", full, path("anonymous"))
	stripped, twin := openObject(t, path("stripped")), openObject(t, full)
	anonymous, debug := openObject(t, path("anonymous")), openObject(t, path("debug"))
	other := openObject(t, buildC(t, "names.cc"))
	for name, err := range map[string]error{
		"same build ID":           SymbolsMatch(stripped, twin),
		"separate debug file":     SymbolsMatch(stripped, debug),
		"same code, no build ID":  SymbolsMatch(anonymous, twin),
		"symbols of the twin":     twin.HasSymbols(),
		"symbols of a debug file": debug.HasSymbols(),
	} {
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, err := range map[string]error{
		"another program":              SymbolsMatch(stripped, other),
		"debug file without its ID":    SymbolsMatch(anonymous, debug),
		"another program's, anonymous": SymbolsMatch(anonymous, other),
	} {
		if !errors.Is(err, ErrSymbolsMismatch) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := stripped.HasSymbols(); !errors.Is(err, ErrNoSymbols) {
		t.Error(err)
	}
	address, _, _ := twin.LookupFunc("local_leaf")
	if frames := stripped.Frames(address); len(frames) > 0 {
		t.Errorf("the stripped program names %v", frames)
	}
	for _, s := range []*Object{twin, debug} {
		c := NewCollector(Options{Symbols: []*Object{other, s}})
		frames := c.frames(stripped, mappingOf(stripped, path("stripped"), 1, 1, 0), []uint64{address})[address]
		if len(frames) == 0 || frames[len(frames)-1].Function != "local_leaf" {
			t.Errorf("with symbols: %v", frames)
		}
	}
}
