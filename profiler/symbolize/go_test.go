package symbolize

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestGoProgramsKnowTheirFrames(t *testing.T) {
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
		builds = append(builds,
			goBuild{program: "goprog", toolchain: v, flags: []string{strip}},
			goBuild{program: "goprog", toolchain: v, flags: []string{"-buildmode=pie", strip}},
		)
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
			o := openObject(t, path)
			checkAgainstRuntime(t, o, path)
			language, version := o.Language()
			want := b.toolchain
			if want == "" {
				want = runtime.Version()
			}
			if language != LanguageGo || version != want {
				t.Errorf("language %q %q, want go %s", language, version, want)
			}
			if err := o.Err(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A program without section headers is still named: everything is found
// through program headers.
func TestGoProgramWithoutSectionHeaders(t *testing.T) {
	for _, flags := range [][]string{nil, {"-buildmode=pie"}} {
		b := goBuild{program: "goprog", flags: append([]string{"-ldflags=-s -w"}, flags...)}
		data, err := os.ReadFile(buildGo(t, b))
		if err != nil {
			t.Fatal(err)
		}
		clear(data[40:48]) // e_shoff
		clear(data[58:64]) // e_shentsize, e_shnum, e_shstrndx
		path := t.TempDir() + "/sstripped"
		if err := os.WriteFile(path, data, 0o755); err != nil {
			t.Fatal(err)
		}
		checkAgainstRuntime(t, openObject(t, path), path)
	}
}

// checkAgainstRuntime compares frames of addresses all over a program with what
// the program's own runtime says.
func checkAgainstRuntime(t *testing.T, o *Object, path string) {
	t.Helper()
	origin, _, ok := o.LookupFunc("main.main")
	if !ok {
		t.Fatal("main.main not found")
	}
	table := o.goTable()
	if table == nil || table.inline == 0 {
		t.Fatalf("no pclntab with inlined calls: %v", o.Err())
	}
	var addresses []uint64
	var input bytes.Buffer
	for i := range table.funcs {
		f, _ := table.function(i)
		// The last byte is left out: the runtime is asked for a return address,
		// and the one behind it is the next function's entry.
		for a, n := f.entry, uint64(0); a+1 < f.end; n++ {
			addresses = append(addresses, a)
			fmt.Fprintf(&input, "%x\n", a-origin)
			a += uint64(table.quantum) * (1 + (n*7+uint64(i))%23)
		}
	}
	cmd := exec.Command(path)
	cmd.Stdin = &input
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	c := newCursor(o)
	var chain []chainFrame
	i, bad, inlined := 0, 0, 0
	lines := bufio.NewScanner(bytes.NewReader(out))
	for lines.Scan() {
		fields := strings.Split(lines.Text(), "\t")
		line, err := strconv.ParseUint(fields[len(fields)-1], 16, 32)
		if err != nil {
			t.Fatalf("%q: %v", lines.Text(), err)
		}
		if fields[0] == "chain" {
			offset, err := strconv.ParseUint(fields[1], 16, 64)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, chainFrame{origin + offset, Frame{fields[2], fields[3], int(line)}})
			continue
		}
		want := Frame{fields[0], fields[1], int(line)}
		frames := c.frames(addresses[i])
		if want.File == "?" || want.File == "" {
			want.File, want.Line = "", 0
		}
		if len(frames) > 1 {
			inlined++
		}
		if want.Function != "" && (len(frames) == 0 || frames[0] != want) {
			if bad++; bad < 10 {
				t.Errorf("%#x: got %v, the runtime says %v", addresses[i], frames, want)
			}
		}
		i++
	}
	if i != len(addresses) {
		t.Fatalf("%d answers to %d addresses", i, len(addresses))
	}
	if bad > 0 {
		t.Errorf("%d of %d addresses are named wrongly", bad, i)
	}
	if inlined < i/20 {
		t.Errorf("only %d of %d addresses lie in inlined calls", inlined, i)
	}
	t.Logf("%d addresses agree, %d of them in inlined calls", i-bad, inlined)
	checkChain(t, c, chain)
}

type chainFrame struct {
	address uint64
	frame   Frame
}

// checkChain compares whole stacks: the program lists logical frames, several
// for an address with inlined calls, of which the first has the address that a
// stack walk would find.
func checkChain(t *testing.T, c *cursor, chain []chainFrame) {
	t.Helper()
	var got, want []Frame
	for i := 0; i < len(chain); {
		frames := c.frames(chain[i].address)
		if len(frames) == 0 {
			t.Fatalf("%#x has no name", chain[i].address)
		}
		got = append(got, frames...)
		i += len(frames)
	}
	for _, f := range chain {
		want = append(want, f.frame)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("chain (-runtime +symbolize):\n%s", diff)
	}
	names := []string{}
	for _, f := range want {
		names = append(names, f.Function)
	}
	if len(want) < 8 || !strings.Contains(strings.Join(names, " "), "main.generic[...] main.(*walker).method main.(*walker).physical") {
		t.Errorf("unexpected chain: %v", names)
	}
}

// No Go function has a frame at its first instruction; main.main has one behind it.
func TestFramelessAtEntries(t *testing.T) {
	o := openObject(t, buildGo(t, goBuild{program: "goprog"}))
	for _, f := range o.Functions() {
		if i := o.goTable().findFunc(f.Address); i >= 0 && f.Size > 0 && !strings.HasPrefix(f.Name, "go:") && !o.Frameless(f.Address) {
			t.Errorf("%s has a frame at its entry %#x", f.Name, f.Address)
		}
	}
	address, size, ok := o.LookupFunc("main.main")
	if !ok || o.Frameless(address+size/2) {
		t.Errorf("main.main (%v) has no frame in its midst", ok)
	}
}
