package text

import (
	"bytes"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

// accounted is a report of nothing but a ledger.
func accounted() *analysis.Report {
	connect := []string{"connect (socket.c:7)", "start\x1b[31m (main.c:12)", "main (main.c:40)", "__libc_start_main", "_start"}
	return &analysis.Report{
		Settings: analysis.Settings{Until: "next"},
		Ledger: &analysis.Ledger{
			WallNS: 10e6, UnknownWakerNS: 20e3,
			Cells: []analysis.Cell{
				{Phase: "exec", Category: "exec", State: "kernel", NS: 1e6, Basis: "measured", CI95: &[2]int64{9e5, 11e5}},
				{Phase: "register", Category: "network", State: "waiting", NS: 6e6, Basis: "measured"},
				{Phase: "register", Category: "config", State: "user", NS: 25e5, Basis: "sampled", Samples: new(int64(3)), CI95: &[2]int64{2e6, 3e6}},
				{Phase: "register", Category: "measurement", State: "user", NS: 5e5, Basis: "measured"},
			},
			Overlapped: []analysis.Overlap{{Category: "cert-loading", NS: 4e6}, {Category: "config", NS: 1e6}},
			Longest: []analysis.LongStep{
				{Phase: "register", Category: "network", State: "waiting", Thread: "x", WaitsFor: "request POST /register", NS: 6e6, Count: 1, Stack: connect},
				{Phase: "register", Category: "config", State: "user", Thread: "x", NS: 2e6, Count: 2.5, Stack: connect[1:]},
				{Phase: "exec", Category: "exec", State: "kernel", Thread: "x", NS: 1e6, Count: 1, Stack: []string{}},
			},
			Varying: []analysis.Varying{{Phase: "register", Category: "network", State: "waiting", FastNS: 3e6, SlowNS: 9e6}, {Phase: "exec", Category: "exec", State: "kernel", FastNS: 12e5, SlowNS: 11e5}},
		},
		InitPath: &analysis.InitPath{
			InitNS: 40e6, SubjectNS: 7e6, HiddenNS: 3e6,
			Parts:      []analysis.InitPart{{Process: "x\x1b", Until: "register", NS: 8e6}, {Process: "environment", Until: "release", NS: 1e6}, {Process: "runtime", Until: "next", NS: 31e6}},
			Categories: []analysis.InitCategory{{Category: "network", ReachesNS: 6e6}, {Category: "config", ReachesNS: 5e5, HiddenNS: 2e6}, {Category: "exec", ReachesNS: 5e5}, {Category: "measurement", HiddenNS: 1e6}},
		},
	}
}

func TestLedger(t *testing.T) {
	r := accounted()
	r.CriticalPath = []analysis.PathStep{
		{StartNS: 0, NS: 1e6, Phase: "exec", Category: "exec", State: "kernel", Thread: "x"},
		{StartNS: 1e6, NS: 2e6, Phase: "register", Category: "config", State: "user", Thread: "x", Goroutine: new(uint64(1)), GoroutineFunction: "runtime.main"},
		{StartNS: 3e6, NS: 6e6, Phase: "register", Category: "network", State: "waiting", Thread: "x#2", WaitsFor: "request POST /register"},
		{StartNS: 9e6, NS: 10, Phase: "register", Category: "network", State: "user", Thread: "x#3"},
		{StartNS: 9e6 + 10, NS: 1e6 - 10, Phase: "register", Category: "config", State: "runnable", Thread: "x", RunnableBehind: "cc1 (not the subject)"},
	}
	for name, write := range map[string]func(*bytes.Buffer, Options) error{
		"ledger.text": func(b *bytes.Buffer, o Options) error { return Report(b, r, o) },
		"blame.text":  func(b *bytes.Buffer, o Options) error { return Blame(b, r, o) },
		"chain.text":  func(b *bytes.Buffer, o Options) error { return Chain(b, r, analysis.Chain(r.CriticalPath, 0.005), o) },
		"whatif.text": func(b *bytes.Buffer, o Options) error {
			return WhatIf(b, analysis.NewWhatIf("config", []int64{10e6, 12e6}, []int64{75e5, 9e6}, []int64{3e6, 4e6}), o)
		},
	} {
		for _, width := range []int{60, 85, 120} {
			var out bytes.Buffer
			if err := write(&out, Options{Width: width}); err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(out.String()) {
				if w := figure.Width(strings.TrimSuffix(line, "\n")); w > width && name == "ledger.text" {
					t.Errorf("%d columns of %d: %s", w, width, line)
				}
			}
		}
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := write(&out, Options{}); err != nil {
				t.Fatal(err)
			}
			if strings.Contains(out.String(), "\x1b") {
				t.Error("an escape sequence of the subject's reaches the terminal")
			}
			for line := range strings.Lines(out.String()) {
				if w := figure.Width(strings.TrimSuffix(line, "\n")); w > 100 {
					t.Errorf("%d columns: %s", w, line)
				}
			}
			golden(t, name, out.Bytes())
		})
	}
}

// Without a ledger, or without anything to leave out, a sentence says so.
func TestNoLedger(t *testing.T) {
	var out bytes.Buffer
	if err := Blame(&out, &analysis.Report{}, Options{}); err != nil || !strings.Contains(out.String(), "no ledger") {
		t.Errorf("%v, %q", err, out.String())
	}
	out.Reset()
	if err := Chain(&out, &analysis.Report{}, nil, Options{}); err != nil || !strings.Contains(out.String(), "no critical path") {
		t.Errorf("%v, %q", err, out.String())
	}
	out.Reset()
	if err := WhatIf(&out, analysis.NewWhatIf("magic", []int64{1}, []int64{1}, []int64{0}), Options{}); err != nil || !strings.Contains(out.String(), "Nothing") {
		t.Errorf("%v, %q", err, out.String())
	}
}
