package cli_test

import (
	"bytes"
	"encoding/json"
	"math"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/profiler/stat"
)

// delayed does something in each of several places, and where the variable
// DELAY says PLACE:KIND, 2 ms more: of its own CPU time, or one sleep.
const delayed = `
static void delay(const char *place) {
	const char *want = getenv("DELAY");
	size_t n = strlen(place);
	if (!want || strncmp(want, place, n) || want[n] != ':') return;
	if (!strcmp(want + n, ":spin")) spin(2);
	if (!strcmp(want + n, ":sleep")) nap(2);
	if (!strcmp(want + n, ":fault")) {
		long long end = cpu() + 2000000;
		while (cpu() < end) {
			char *at = mmap(NULL, 64 << 12, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			madvise(at, 64 << 12, MADV_NOHUGEPAGE);
			for (int i = 0; i < 64; i++) at[i << 12] = 1;
		}
	}
}
__attribute__((constructor, noinline)) static void set_up(void) { delay("constructor"); }
__attribute__((noinline)) void malloc_init_hard(void) { delay("allocator"); asm volatile(""); }
__attribute__((noinline)) void X509_load_cert_crl_file(void) { char b[64]; FILE *f = fopen("/etc/ssl/openssl.cnf", "r"); if (f) { fread(b, 1, 64, f); fclose(f); } delay("certs"); asm volatile(""); }
__attribute__((noinline)) void load_config(void) { delay("config"); asm volatile(""); }
static void *beside(void *x) { call("beside"); delay("beside"); return x; }
`

// +2 ms in one place move what they are in by 2 ms, nothing else, and nothing
// at all where they are off the path.
func TestInjectedDelaysMoveTheirOwnCell(t *testing.T) {
	needRoot(t)
	const n = 8
	dir := openDir(t)
	path := extensionC(t, dir, "delayed", "#include <sys/mman.h>\n"+deeds+delayed,
		`pthread_t a; pthread_create(&a, 0, beside, 0); nap(1); malloc_init_hard(); X509_load_cert_crl_file(); load_config(); nap(6);`,
		"-pthread", "-fno-omit-frame-pointer", "-fno-optimize-sibling-calls")
	// The time of each category by cold start, without what the machine's other
	// load decides.
	measure := func(delay string) (map[string][]int64, string) {
		run := filepath.Join(dir, delay+".initprof")
		code, _, errOut := initprof("record", "-q", "-n", strconv.Itoa(n), "--untraced", "0", "--env", "DELAY="+delay, "-o", run, "--", path)
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, errOut)
		}
		all := map[string][]int64{}
		for k := range n {
			r := report(t, run, "--run", strconv.Itoa(k+1))
			tiles(t, r)
			for _, c := range r.Ledger.Cells {
				if c.State == analysis.StateRunnable {
					continue
				}
				if all[c.Category] == nil {
					all[c.Category] = make([]int64, n)
				}
				all[c.Category][k] += c.NS
			}
		}
		return all, run
	}
	for _, c := range []struct{ delay, category string }{
		{"certs:sleep", "cert-loading"},
		{"certs:spin", "cert-loading"},
		{"allocator:sleep", "allocator-setup"},
		{"allocator:fault", "allocator-setup"},
		{"config:spin", "config"},
		{"config:sleep", "config"},
		{"constructor:sleep", "runtime-init"},
		{"beside:spin", ""},
		{"beside:sleep", ""},
	} {
		t.Run(c.delay, func(t *testing.T) {
			// Each beside its own, so that a machine that becomes slower or faster
			// is not taken for what the delay did.
			before, _ := measure("none:none")
			after, run := measure(c.delay)
			values := func(from map[string][]int64, category string) []int64 {
				if v := from[category]; v != nil {
					return v
				}
				return make([]int64, n)
			}
			categories := map[string]bool{}
			for name := range before {
				categories[name] = true
			}
			for name := range after {
				categories[name] = true
			}
			var names []string
			var p []float64
			for name := range categories {
				if name == c.category {
					continue
				}
				_, one := stat.MannWhitneyU(values(before, name), values(after, name))
				names, p = append(names, name), append(p, one)
			}
			for i, corrected := range stat.Holm(p) {
				shift := stat.Compare(values(before, names[i]), values(after, names[i]), 1).Estimate
				// What spins and faults makes events, whose cost is initprof's.
				if corrected < 0.05 && math.Abs(float64(shift)) > 0.2e6 && names[i] != "measurement" {
					t.Errorf("%s moved by %.3f ms, p %.4f after Holm", names[i], float64(shift)/1e6, corrected)
				}
			}
			if c.category == "" {
				return
			}
			moved := make([]int64, n)
			for k := range moved {
				moved[k] = values(after, c.category)[k] + values(after, "measurement")[k] - values(before, c.category)[k] - values(before, "measurement")[k]
			}
			mean, ci := stat.MeanCI95(moved)
			if math.Abs(mean-2e6) > 0.3e6 && (ci[0] > 2e6 || ci[1] < 2e6) {
				t.Errorf("%s moved by %.3f ms (95 %%: %.3f…%.3f), want 2", c.category, mean/1e6, ci[0]/1e6, ci[1]/1e6)
			}
			// And the prediction without it is what it was before.
			code, out, errOut := initprof("whatif", run, "--without", "function:^delay$", "--format", "json")
			if code != 0 {
				t.Fatalf("whatif: exit code %d\n%s", code, errOut)
			}
			var x analysis.WhatIf
			if err := json.NewDecoder(bytes.NewBufferString(out)).Decode(&x); err != nil {
				t.Fatal(err)
			}
			if x.Saved.P50 < 1.7e6 {
				t.Errorf("whatif saves %.3f ms at the median, want 2", float64(x.Saved.P50)/1e6)
			}
		})
	}
}
