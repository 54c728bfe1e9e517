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
	part := func(r *analysis.Report, process, until string) int64 {
		i := slices.IndexFunc(r.InitPath.Parts, func(p analysis.InitPart) bool { return p.Process == process && p.Until == until })
		if i < 0 {
			return 0
		}
		return r.InitPath.Parts[i].NS
	}

	r := measure("200ms")
	atLeast(t, "the subject until it registers", part(r, "early", analysis.UntilRegister), 20*ms)
	about(t, "what of its window reaches INIT", r.InitPath.SubjectNS, part(r, "early", analysis.UntilRegister))
	atLeast(t, "the runtime", part(r, "runtime", analysis.UntilNext), 200*ms)
	atLeast(t, "what hides behind it", r.InitPath.HiddenNS, 30*ms)

	r = measure("1ms")
	atLeast(t, "the subject", part(r, "early", analysis.UntilNext), 50*ms)
	if part(r, "runtime", analysis.UntilNext) != 0 || r.InitPath.HiddenNS > ms {
		t.Errorf("INIT ends with the subject, yet its path is %+v", r.InitPath)
	}
}
