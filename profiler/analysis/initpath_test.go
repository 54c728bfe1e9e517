package analysis

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/ledger"
)

// INIT waits for the last extension to register, then for the runtime, unless an
// extension asks for its first event even later.
func TestPathOfInit(t *testing.T) {
	subject := func(registered, next int64) InitProcess {
		return InitProcess{Name: "subject", Subject: true, Released: 102, Registered: registered, FirstNext: next}
	}
	runtime := func(released, next int64) InitProcess {
		return InitProcess{Name: "runtime", Runtime: true, Released: released, FirstNext: next}
	}
	other := InitProcess{Name: "other", Released: 105, Registered: 180, FirstNext: 260}
	// The subject's window is from 110 to its /next: cert-loading up to 150, then config.
	for _, c := range []struct {
		name      string
		processes []InitProcess
		end       int64
		parts     []InitPart
		reaches   [2]int64 // cert-loading, config
	}{
		{
			"behind the subject",
			[]InitProcess{subject(140, 200), runtime(145, 190)},
			200,
			[]InitPart{{Environment, UntilRelease, 2}, {"subject", UntilNext, 98}},
			[2]int64{40, 50},
		},
		{
			"behind the runtime",
			[]InitProcess{subject(140, 200), runtime(145, 300)},
			300,
			[]InitPart{{Environment, UntilRelease, 7}, {"subject", UntilRegister, 38}, {"runtime", UntilNext, 155}},
			[2]int64{30, 0},
		},
		{
			"behind another's register",
			[]InitProcess{subject(140, 200), other, runtime(181, 300)},
			300,
			[]InitPart{{Environment, UntilRelease, 6}, {"other", UntilRegister, 75}, {"runtime", UntilNext, 119}},
			[2]int64{0, 0},
		},
		{
			"behind another extension",
			[]InitProcess{subject(140, 200), other, runtime(181, 190)},
			260,
			[]InitPart{{Environment, UntilRelease, 5}, {"other", UntilNext, 155}},
			[2]int64{0, 0},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newInitSums()
			s.add(ColdStart{
				Init: &InitTimes{Start: 100, End: c.end, Processes: c.processes},
				Ledger: &ledger.Result{Start: 110, End: 200, Steps: []ledger.Step{
					{Start: 110, End: 150, Category: "cert-loading"}, {Start: 150, End: 200, Category: "config"},
				}},
			})
			got := s.report()
			// What nobody does in between is one line.
			want := &InitPath{
				InitNS: c.end - 100, Parts: c.parts, SubjectNS: c.reaches[0] + c.reaches[1], HiddenNS: 90 - c.reaches[0] - c.reaches[1],
				Categories: []InitCategory{{"cert-loading", c.reaches[0], 40 - c.reaches[0]}, {"config", c.reaches[1], 50 - c.reaches[1]}},
			}
			if d := cmp.Diff(want.Parts, got.Parts); d != "" {
				t.Error(d)
			}
			if got.InitNS != want.InitNS || got.SubjectNS != want.SubjectNS || got.HiddenNS != want.HiddenNS {
				t.Errorf("%+v, want %+v", got, want)
			}
			for _, x := range want.Categories {
				found := false
				for _, y := range got.Categories {
					found = found || x == y
				}
				if !found {
					t.Errorf("%+v is not among %+v", x, got.Categories)
				}
			}
		})
	}
}
