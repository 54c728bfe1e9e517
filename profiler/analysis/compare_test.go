package analysis

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/profile"
)

// side is a run of a program, of two cold starts, whose ledger holds what its
// stacks are.
func side(name string, stacks ...profile.WeightedStack) DiffInput {
	r := &Report{
		Session: name, Subject: Subject{Command: []string{"/opt/" + name + "/ext"}, Language: "go"},
		Ledger: &Ledger{}, Syscalls: []Syscall{}, Files: []File{},
	}
	for i := range stacks {
		s := &stacks[i]
		r.Ledger.WallNS += s.Value / 2
		r.Ledger.Cells = append(r.Ledger.Cells, Cell{Phase: s.Phase, Category: s.Category, State: s.State, NS: s.Value / 2})
		if !slices.ContainsFunc(r.Phases, func(p Phase) bool { return p.Name == s.Phase }) {
			r.Phases = append(r.Phases, Phase{Name: s.Phase})
		}
		for k := range s.Stack {
			if s.Stack[k].Module == "" {
				s.Stack[k].Module = r.Subject.Command[0]
			}
		}
	}
	for i := range 14 {
		ns := int64(5e6 + 1000*i)
		if name == "after" {
			ns += 3e6
		}
		r.Runs = append(r.Runs, Run{Index: i + 1, Traced: i < 2, Outcome: OutcomeOK, ReleaseToNextNS: &ns})
	}
	return DiffInput{Name: name + ".initprof", Report: r, Accounted: 2, Stacks: stacks}
}

func weighted(ns int64, phase, category, state string, leafFirst ...string) profile.WeightedStack {
	s := profile.WeightedStack{Value: 2 * ns, Phase: phase, Category: category, State: state}
	for _, f := range leafFirst {
		s.Stack = append(s.Stack, profile.Frame{Function: f})
	}
	return s
}

// two are a run and what became of it: a loop appeared, certificates vanished,
// binding of names grew, the register call shrank.
func two() (before, after DiffInput) {
	before = side("before",
		weighted(1e6, "exec", "exec", "kernel", "_start"),
		weighted(2e6, "tls", "cert-loading", "user", "parse", "loadRoots", "main"),
		weighted(3e6, "register", "network", "waiting", "[waits for request POST /register]", "register", "main"),
		weighted(4e5, "register", "other", "user", "ext+0x1234", "main"),
	)
	after = side("after",
		weighted(12e5, "exec", "exec", "kernel", "_start"),
		weighted(4e6, "config", "config", "user", "burn", "loadConfig", "main"),
		weighted(1e6, "config", "config", "user", "loadConfig", "main"),
		weighted(1e5, "config", "measurement", "user", "[measurement]", "burn", "loadConfig", "main"),
		weighted(26e5, "register", "network", "waiting", "[waits for request POST /register]", "register", "main"),
		weighted(1e5, "register", "other", "runnable", "[runnable behind cc1 (not the subject)]", "register", "main"),
		weighted(4e5, "register", "other", "user", "ext+0x5678", "main"),
	)
	b, a := before.Report, after.Report
	b.Syscalls = []Syscall{{Name: "read", Count: 300, NS: 15e5}, {Name: "openat", Count: 7, NS: 7e4}, {Name: "getdents64", Count: 2, NS: 3e4}, {Name: "close", Count: 7, NS: 7e3}}
	a.Syscalls = []Syscall{{Name: "read", Count: 9, NS: 5e4}, {Name: "openat", Count: 7, NS: 9e4}, {Name: "madvise", Count: 1, NS: 2e4}, {Name: "close", Count: 7, NS: 7e3}}
	b.Files = []File{{Path: "/etc/ssl/certs/ca.crt", Opens: 1, NS: 5e5}, {Path: "/proc/117/status", Opens: 1, NS: 1e4}}
	a.Files = []File{{Path: "/etc/config.yaml", Opens: 1, NS: 2e4}, {Path: "/proc/118/status", Opens: 1, NS: 1e4}}
	b.Certs, a.Certs = []Cert{{Path: "/etc/ssl/certs/ca.crt", NS: 2e6}}, []Cert{}
	b.Packages, a.Packages = []Package{{"net/http", 5e4}, {"unicode", 1e4}}, []Package{{"net/http", 4e4}, {"unicode", 1e4}}
	b.Goroutines, a.Goroutines = []Goroutine{{Function: "main.watch", RunningNS: 1e5}}, []Goroutine{{Function: "main.watch", RunningNS: 1e5, SyscallNS: 2e4}}
	b.Requests, a.Requests = []Request{{Method: "POST", Path: "/register", NS: new(int64(3e6))}}, []Request{{Method: "POST", Path: "/register", NS: new(int64(26e5))}}
	b.Dlopens, a.Dlopens = []Dlopen{{Path: "libz.so", Count: 1, NS: new(int64(3e5)), OK: true}}, []Dlopen{{Path: "libz.so", Count: 1, NS: new(int64(3e5)), OK: true}}
	b.Allocator, a.Allocator = []Allocation{}, []Allocation{{Name: "jemalloc", Function: "malloc_init", NS: 4e5}}
	b.Binding, a.Binding = &Binding{Symbols: []BoundSymbol{{Name: "puts", Object: "/opt/before/ext", Mode: "eager", Count: 1}}},
		&Binding{Symbols: []BoundSymbol{{Name: "puts", Object: "/opt/after/ext", Mode: "eager", Count: 1}, {Name: "exit", Object: "/opt/after/ext", Mode: "lazy", Count: 1, NS: new(int64(3000))}}}
	return before, after
}

// The diff of two() is the fixture that the reports render.
func TestCompare(t *testing.T) {
	d, stacks, err := Compare(two())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	text = append([]byte(strings.NewReplacer(`\u003c`, "<", `\u003e`, ">", `\u0026`, "&").Replace(string(text))), '\n')
	const path = "../../reports/testdata/diff.json"
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(text)); diff != "" {
		t.Errorf("%s differs (-want +got), -update rewrites it:\n%s", path, diff)
	}
	var sum int64
	for _, c := range d.Ledger {
		sum += c.DeltaNS
	}
	if sum != 3e6 || d.Traced.DeltaNS != 3e6 || d.Traced.MeasurementDeltaNS != 1e5 || d.Traced.RunnableDeltaNS != 1e5 {
		t.Errorf("the cells sum to %d; %+v", sum, *d.Traced)
	}
	if c := d.Causes[0]; c.Phase != "config" || c.Category != "config" || c.Function != "burn" || *c.FunctionNS != 4e6 {
		t.Errorf("the greatest cause is %+v", c)
	}
	if d.Wall.ShiftNS != 3e6 || d.Wall.Verdict() != VerdictHurts {
		t.Errorf("%+v", d.Wall)
	}
	for _, s := range [][]profile.WeightedStack{stacks.Before, stacks.After} {
		if f := s[len(s)-1].Stack[0]; f != (profile.Frame{Function: "ext", Module: "/opt/after/ext"}) {
			t.Errorf("an address without a name is %+v", f)
		}
	}
}

// A run against itself: nothing appeared, vanished, grew or shrank.
func TestCompareWithItself(t *testing.T) {
	run, _ := two()
	d, _, err := Compare(run, run)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range d.Ledger {
		if c.DeltaNS != 0 || c.Function != "" {
			t.Errorf("%+v", c)
		}
	}
	if d.Wall.ShiftNS != 0 || d.Wall.Verdict() != VerdictUndecided || *d.Traced != (DiffTraced{BeforeNS: 64e5, AfterNS: 64e5}) {
		t.Errorf("%+v, %+v", d.Wall, d.Traced)
	}
	for name, list := range map[string][]Change{
		"binding": d.Binding, "packages": d.Packages, "certs": d.Certs, "goroutines": d.Goroutines, "syscalls": d.Syscalls, "files": d.Files,
		"requests": d.Requests, "dlopens": d.Dlopens, "allocator": d.Allocator,
	} {
		if list == nil || len(list) > 0 {
			t.Errorf("%s: %+v, want none, and known", name, list)
		}
	}
	if len(d.Functions) > 0 || len(d.Warnings) > 0 {
		t.Errorf("%+v, %q", d.Functions, d.Warnings)
	}
}

// Parts that do not sum to the whole fail the diff.
func TestCompareChecksItsSums(t *testing.T) {
	for name, spoil := range map[string]func(*DiffInput){
		"the ledger's cells": func(in *DiffInput) { in.Report.Ledger.Cells[0].NS++ },
		"the stacks":         func(in *DiffInput) { in.Stacks = in.Stacks[1:] },
	} {
		before, after := two()
		spoil(&after)
		if _, _, err := Compare(before, after); err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "mistake of initprof") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What may have made the difference beside the change is warned of, and so is
// what is not known.
func TestCompareWarns(t *testing.T) {
	before, after := two()
	b, a := before.Report, after.Report
	a.Subject.Command = []string{"/opt/other"}
	a.Settings.MemoryMB = new(int64(128))
	a.Packages = nil
	a.Runs[13].Outcome = OutcomeCrashed
	b.Runs = b.Runs[:7] // 5 untraced
	for range 2 * mostChanges {
		a.Files = append(a.Files, File{Path: strings.Repeat("x", len(a.Files)+1), Opens: 1})
	}
	d, _, err := Compare(before, after)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"different sessions", "differ in the subject: ext before, other after", "differ in the memory limit: none before, 128 after",
		"not compared: packages", "1 of 14 cold starts failed", "takes 6 untraced cold starts", "of files, ",
	} {
		if !strings.Contains(strings.Join(d.Warnings, "\n"), want) {
			t.Errorf("%q is not in %q", want, d.Warnings)
		}
	}
	if d.Wall.CI95 != nil || d.Packages != nil || len(d.Files) != mostChanges {
		t.Errorf("interval %v, packages %v, %d files", d.Wall.CI95, d.Packages, len(d.Files))
	}
	b.Runs, a.Ledger = b.Runs[:2], nil
	if d, _, err = Compare(before, after); err != nil || d.Wall != nil || d.Traced != nil || d.Ledger != nil {
		t.Errorf("%v, %+v", err, d)
	}
	for _, want := range []string{"before has no untraced cold start", "after.initprof has no ledger"} {
		if !strings.Contains(strings.Join(d.Warnings, "\n"), want) {
			t.Errorf("%q is not in %q", want, d.Warnings)
		}
	}
}

// The interval, not the estimate, has to lie above the limit.
func TestExceeds(t *testing.T) {
	w := &DiffWall{Before: Summary{P50: 100}, ShiftNS: 50, CI95: &[2]int64{10, 90}}
	for limit, want := range map[float64]bool{0: true, 9: true, 10: false, 50: false} {
		if got, ok := w.Exceeds(limit); got != want || !ok {
			t.Errorf("above %v %%: %v, %v", limit, got, ok)
		}
	}
	if _, ok := (*DiffWall)(nil).Exceeds(1); ok {
		t.Error("nothing has an interval")
	}
}
