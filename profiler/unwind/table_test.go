package unwind

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// needTool skips where a program is missing, or fails where skips are forbidden.
func needTool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("INITPROF_FORBID_SKIP") != "" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	return path
}

func openTable(t testing.TB, path string) *Table {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	table, err := OpenTable(f)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

// compile builds a C program that does nothing.
func compile(t testing.TB, source string, flags ...string) string {
	t.Helper()
	dir := t.TempDir()
	in, out := filepath.Join(dir, "in.c"), filepath.Join(dir, "out")
	if err := os.WriteFile(in, []byte(source), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := exec.Command(needTool(t, "gcc"), append(flags, "-o", out, in)...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, b)
	}
	return out
}

const recursive = `
#include <stdio.h>
__attribute__((noinline)) int sum(int n, int *at) { int room[n + 1]; room[n] = n; return n ? sum(n - 1, room) + at[0] + room[n] : 0; }
int main(int argc, char **argv) { int x = argc; printf("%d\n", sum(argc, &x)); return 0; }`

const freestanding = `
__attribute__((noinline)) int sum(int n, int *at) { int room[n + 1]; room[n] = n; return n ? sum(n - 1, room) + at[0] + room[n] : 0; }
int main(int argc, char **argv) { int x = argc; return sum(argc, &x); }`

// Each row of each function is what readelf says: in C libraries of both
// architectures, in programs with PLTs, with .debug_frame alone, and without a
// search table.
func TestRowsAreThoseOfReadelf(t *testing.T) {
	readelf := needTool(t, "readelf")
	objects := map[string]string{
		"static":      compile(t, recursive, "-O2", "-static"),
		"plt":         compile(t, recursive, "-O2", "-Wl,-z,lazy"),
		"debug_frame": compile(t, freestanding, "-O2", "-g", "-fno-asynchronous-unwind-tables", "-nostdlib", "-Wl,-e,main"),
		"compressed":  compile(t, freestanding, "-O2", "-g", "-gz", "-fno-asynchronous-unwind-tables", "-nostdlib", "-Wl,-e,main"),
		"no header":   compile(t, recursive, "-O2", "-Wl,--no-eh-frame-hdr"),
	}
	for _, path := range []string{
		"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2", "/usr/bin/python3",
		"/usr/aarch64-linux-gnu/lib/libc.so.6", "/usr/aarch64-linux-gnu/lib/ld-linux-aarch64.so.1",
	} {
		if _, err := os.Stat(path); err == nil {
			objects[filepath.Base(path)+" "+strings.Split(path, "/")[2]] = path
		}
	}
	for name, path := range objects {
		t.Run(name, func(t *testing.T) {
			table := openTable(t, path)
			kind := "frames-interp"
			cmd := exec.Command(readelf, "-W", "--debug-dump="+kind, path)
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			rows := compareRows(t, table, bufio.NewScanner(out))
			_ = cmd.Wait() // it warns by its status
			if rows == 0 {
				t.Error("nothing was compared")
			}
			t.Logf("%d rows", rows)
		})
	}
}

// compareRows reads readelf's tables, of which each row holds from its address on.
func compareRows(t *testing.T, table *Table, lines *bufio.Scanner) (rows int) {
	var limit uint64
	var columns []string
	inside, wrong := false, 0
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		switch {
		case len(f) > 3 && f[3] == "FDE", len(f) > 4 && f[3] == "FDE":
			at := strings.Index(lines.Text(), "..")
			limit, _ = strconv.ParseUint(strings.TrimSpace(lines.Text()[at+2:]), 16, 64)
			inside = true
		case len(f) > 3 && f[3] == "CIE", len(f) == 0:
			inside = inside && len(f) == 0
		case f[0] == "LOC":
			columns = f[1:]
		case inside && len(f) == len(columns)+1 && f[1] != "ZERO":
			address, err := strconv.ParseUint(f[0], 16, 64)
			if err != nil || address >= limit {
				continue
			}
			rows++
			if problem := compareRow(table, address, columns, f[1:]); problem != "" && wrong < 10 {
				wrong++
				t.Errorf("%#x: %s: %q %q", address, problem, columns, f[1:])
			}
		}
	}
	return rows
}

var registerNames = map[*arch]string{
	&amd64: "rax rdx rcx rbx rsi rdi rbp rsp r8 r9 r10 r11 r12 r13 r14 r15",
	&arm64: "x0 x1 x2 x3 x4 x5 x6 x7 x8 x9 x10 x11 x12 x13 x14 x15 x16 x17 x18 x19 x20 x21 x22 x23 x24 x25 x26 x27 x28 x29 x30 sp",
}

func compareRow(table *Table, address uint64, columns, want []string) string {
	f, err := table.find(address)
	if f == nil || err != nil {
		return fmt.Sprintf("not found: %v", err)
	}
	r, err := table.row(f, address)
	if err != nil {
		return err.Error()
	}
	names := strings.Fields(registerNames[table.arch])
	cfa := "exp"
	if r.cfa.kind == ruleRegister {
		cfa = fmt.Sprintf("%s%+d", names[r.cfa.reg], r.cfa.offset)
	}
	if cfa != want[0] {
		return "CFA " + cfa
	}
	got := map[string]rule{"ra": r.ra}
	for _, s := range r.saved {
		got[names[s.reg]] = s.rule
	}
	for i, column := range columns[1:] {
		has, is := got[column], want[i+1]
		shown := map[ruleKind]string{
			ruleOffset: fmt.Sprintf("c%+d", has.offset), ruleValOffset: fmt.Sprintf("v%+d", has.offset),
			ruleExpr: "exp", ruleValExpr: "vexp", ruleUndefined: "u", ruleSame: "u",
		}[has.kind]
		if has.kind == ruleRegister { // the link register, as it is
			shown = "u"
		}
		// The walk knows no vector registers; readelf shows what was never told as undefined.
		if strings.HasPrefix(column, "v") || strings.HasPrefix(column, "xmm") || is == "s" && shown == "u" || shown == is {
			continue
		}
		return fmt.Sprintf("%s is %s", column, shown)
	}
	return ""
}

// The expression of PLT stubs gives one word more once the index was pushed.
func TestPLTExpression(t *testing.T) {
	// rsp + 8 + ((rip & 15) >= 11) << 3, as binutils' .plt has it.
	expr := []byte{0x77, 8, 0x80, 0, 0x3f, 0x1a, 0x3b, 0x2a, 0x33, 0x24, 0x22}
	for at := range uint64(16) {
		steps := 0
		w := walk{arch: &amd64, at: 0x401020 + at, steps: &steps}
		w.regs[7] = 0x7000
		want := uint64(0x7008)
		if at >= 11 {
			want += 8
		}
		if got, ok := w.evaluate(expr, 0, false); !ok || got != want {
			t.Errorf("at %d of a stub: %#x, %v, want %#x", at, got, ok, want)
		}
	}
}

// Operators that could divide by zero, loop, or leave their stack do not.
func TestExpressionsAreBounded(t *testing.T) {
	for name, expr := range map[string][]byte{
		"division by zero":  {0x31, 0x30, 0x1b},
		"modulo by zero":    {0x31, 0x30, 0x1d},
		"least by minus 1":  {0x0e, 0, 0, 0, 0, 0, 0, 0, 0x80, 0x09, 0xff, 0x1b},
		"endless loop":      {0x2f, 0xfd, 0xff},
		"jump out":          {0x2f, 0x00, 0x70},
		"growing stack":     {0x31, 0x2f, 0xfc, 0xff},
		"empty stack":       {0x22},
		"nothing":           {},
		"pick out of reach": {0x31, 0x15, 0xff},
		"unreadable":        {0x30, 0x06},
		"size 0":            {0x30, 0x94, 0},
	} {
		steps := 0
		w := walk{arch: &amd64, stack: &Stack{}, steps: &steps}
		v, ok := w.evaluate(expr, 0, false)
		if ok != (name == "least by minus 1") {
			t.Errorf("%s: %#x, %v", name, v, ok)
		}
	}
}
