package cli_test

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
)

// INIT waits for the subject until it has registered; what it does then hides
// behind a runtime that is slower, and is all that INIT waits for behind one that
// is not.
func TestPathOfTheWholeInit(t *testing.T) {
	needRoot(t)
	dir := openDir(t)
	path := extensionC(t, dir, "early", deeds+`__attribute__((constructor)) static void before(void) { nap(20); }`, `nap(30);`, "-pthread")
	measure := func(runtime string) *analysis.Report {
		recordOne(t, dir, []string{"--runtime-init", runtime}, path)
		r := report(t, filepath.Join(dir, "run.initprof"), "--run", "1")
		if r.InitPath == nil {
			t.Fatal("there is no path of INIT")
		}
		var sum int64
		for _, p := range r.InitPath.Parts {
			sum += p.NS
		}
		if x := r.InitPath; sum != x.InitNS || x.InitNS != r.Init.Mean || x.SubjectNS+x.HiddenNS != r.Ledger.WallNS {
			t.Errorf("parts sum to %d of %d ns, INIT is %d; %d reach it and %d hide of a window of %d",
				sum, x.InitNS, r.Init.Mean, x.SubjectNS, x.HiddenNS, r.Ledger.WallNS)
		}
		return r
	}
	phaseOf := func(r *analysis.Report, name string) analysis.Summary {
		i := slices.IndexFunc(r.Phases, func(p analysis.Phase) bool { return p.Name == name })
		if i < 0 {
			t.Fatalf("no phase %s", name)
		}
		return r.Phases[i].Delta
	}
	part := func(r *analysis.Report, process, until string) int64 {
		i := slices.IndexFunc(r.InitPath.Parts, func(p analysis.InitPart) bool { return p.Process == process && p.Until == until })
		if i < 0 {
			return 0
		}
		return r.InitPath.Parts[i].NS
	}

	r := measure("1s")
	early, runtime := part(r, "early", analysis.UntilRegister), part(r, "runtime", analysis.UntilNext)
	if x := r.InitPath; early < 20*ms || runtime < 1000*ms || x.SubjectNS < 20*ms || x.SubjectNS > early {
		t.Errorf("INIT waits %.3f ms for the subject's register, of its window %.3f, and %.3f for the runtime",
			float64(early)/1e6, float64(x.SubjectNS)/1e6, float64(runtime)/1e6)
	}
	// It has registered when the request is received, which is in the phase register.
	after := phaseOf(r, "next").Mean
	if hidden := r.InitPath.HiddenNS; after < 30*ms || hidden < after || hidden > after+phaseOf(r, "register").Mean {
		t.Errorf("%.3f ms hide beside the runtime, %.3f follow register", float64(hidden)/1e6, float64(after)/1e6)
	}

	r = measure("1ms")
	if part(r, "early", analysis.UntilNext) < 50*ms || part(r, "runtime", analysis.UntilNext) != 0 || r.InitPath.HiddenNS > ms {
		t.Errorf("INIT ends with the subject, yet its path is %+v", r.InitPath)
	}
}
