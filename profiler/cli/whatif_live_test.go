package cli_test

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/initprof/initprof/profiler/record"
	"github.com/initprof/initprof/profiler/stat"
)

// pieces are of known cost: one on the path; one beside a sleep that is longer;
// and one of two branches, beside another that takes 3 ms less. Every fourth cold
// start has all of them, the others lack one each.
const pieces = `
#include <fcntl.h>
#include <sys/stat.h>
static int turn;
__attribute__((constructor)) static void take_turn(void) {
	struct stat s;
	int fd = open(DIR "/turns", O_RDWR | O_CREAT | O_APPEND, 0644);
	if (fd < 0 || fstat(fd, &s) || write(fd, "x", 1) != 1) exit(9);
	turn = s.st_size % 4;
}
__attribute__((noinline)) void on_path(void) { spin(5); asm volatile(""); }
__attribute__((noinline)) void off_path(void) { spin(5); asm volatile(""); }
__attribute__((noinline)) void longer_branch(void) { nap(6); asm volatile(""); }
static void *beside(void *x) { call("beside"); if (turn != 2) off_path(); return x; }
static void *branch(void *x) { call("branch"); if (turn != 3) longer_branch(); return x; }
`

// What is predicted for an INIT without some work is what is measured of cold
// starts that lack it: all of its cost on the path, nothing off it, and as much
// as the branch beside it allows.
func TestWhatIfPredictsWhatIsMeasured(t *testing.T) {
	needRoot(t)
	const each = 10
	dir := openDir(t)
	path := extensionC(t, dir, "pieces", deeds+pieces, `
pthread_t a; pthread_create(&a, 0, beside, 0); nap(12);
if (turn != 1) on_path();
pthread_t b; pthread_create(&b, 0, branch, 0); nap(3); pthread_join(b, 0);`,
		"-pthread", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls", `-DDIR="`+dir+`"`)
	run := filepath.Join(dir, "run.initprof")
	// The rehearsal has the first turn.
	buildInitprof(t, dir)(t, "record", "-q", "-n", strconv.Itoa(4*each), "--untraced", "0", "-o", run, "--", path)
	if turns, err := os.ReadFile(filepath.Join(dir, "turns")); err != nil || len(turns) != 4*each+1 {
		t.Fatalf("%d cold starts took %d turns: %v", 4*each, len(turns), err)
	}
	r, err := record.Open(run)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := r.Report(0)
	if err != nil {
		t.Fatal(err)
	}
	var walls [4][]int64 // by turn
	for _, one := range whole.Runs {
		walls[one.Index%4] = append(walls[one.Index%4], *one.WallNS)
	}
	all := r.Manifest.ColdStarts
	predict := func(without string) (predicted []int64) {
		for i, e := range all {
			if e.Index%4 == 0 {
				r.Manifest.ColdStarts = all[i : i+1]
				x, err := r.WhatIf(without)
				if err != nil {
					t.Fatal(err)
				}
				predicted = append(predicted, x.Predicted.P50)
			}
		}
		return predicted
	}
	var p []float64
	names := []string{"on_path", "off_path", "longer_branch"}
	for i, name := range names {
		before, predicted, after := walls[0], predict("function:^"+name+"$"), walls[i+1]
		measured := stat.Compare(after, before, 1)
		expected := stat.Compare(predicted, before, 1)
		t.Logf("without %s: saves %.3f ms (95 %%: %.3f…%.3f), measured %.3f (%.3f…%.3f)", name,
			float64(expected.Estimate)/1e6, float64(expected.CI95[0])/1e6, float64(expected.CI95[1])/1e6,
			float64(measured.Estimate)/1e6, float64(measured.CI95[0])/1e6, float64(measured.CI95[1])/1e6)
		saved := make([]int64, len(before))
		for k := range saved {
			saved[k] = before[k] - predicted[k]
		}
		// What the piece itself waited for a CPU goes with it.
		least := []int64{5 * ms, 0, 3 * ms}[i]
		if median := stat.Summarize(saved).P50; median < least-ms/2 || name == "off_path" && median > ms/10 {
			t.Errorf("without %s: %.3f ms are saved, want %.3f", name, float64(median)/1e6, float64(least)/1e6)
		}
		_, one := moved(predicted, after)
		p = append(p, one)
	}
	for i, corrected := range stat.Holm(p) {
		if corrected < 0.01 {
			t.Errorf("without %s INIT is not as predicted, p %.4f after Holm", names[i], corrected)
		}
	}
}
