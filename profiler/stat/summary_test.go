package stat

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func sequence(n int) []int64 {
	values := make([]int64, n)
	for i := range values {
		values[n-1-i] = int64(i + 1)
	}
	return values
}

func TestSummarize(t *testing.T) {
	for name, c := range map[string]struct {
		values []int64
		want   Summary
	}{
		"none":   {nil, Summary{}},
		"one":    {[]int64{7}, Summary{N: 1, Min: 7, P50: 7, P90: 7, P99: 7, Max: 7, Mean: 7}},
		"two":    {[]int64{4, 1}, Summary{N: 2, Min: 1, P50: 3, P90: 4, P99: 4, Max: 4, Mean: 3}},
		"five":   {sequence(5), Summary{N: 5, Min: 1, P50: 3, P90: 5, P99: 5, Max: 5, Mean: 3}},
		"six":    {sequence(6), Summary{N: 6, Min: 1, P50: 4, P90: 6, P99: 6, Max: 6, Mean: 4, CI95: &[2]int64{1, 6}}},
		"25":     {sequence(25), Summary{N: 25, Min: 1, P50: 13, P90: 23, P99: 25, Max: 25, Mean: 13, CI95: &[2]int64{8, 18}}},
		"100":    {sequence(100), Summary{N: 100, Min: 1, P50: 51, P90: 90, P99: 99, Max: 100, Mean: 51, CI95: &[2]int64{40, 61}}},
		"signed": {[]int64{-3, -1, -2}, Summary{N: 3, Min: -3, P50: -2, P90: -1, P99: -1, Max: -1, Mean: -2}},
		"large": {
			[]int64{math.MaxInt64, math.MaxInt64, math.MaxInt64 - 3},
			Summary{N: 3, Min: math.MaxInt64 - 3, P50: math.MaxInt64, P90: math.MaxInt64, P99: math.MaxInt64, Max: math.MaxInt64, Mean: math.MaxInt64 - 1},
		},
	} {
		if diff := cmp.Diff(c.want, Summarize(c.values)); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestP99IsMax(t *testing.T) {
	for n, want := range map[int]bool{0: false, 1: true, 25: true, 99: true, 100: false, 299: false} {
		if got := (Summary{N: n}).P99IsMax(); got != want {
			t.Errorf("N = %d: p99 is max: %v, want %v", n, got, want)
		}
	}
}

// Ranks and coverages from scipy 1.17.1, scipy.stats.binom.cdf(k-1, n, 0.5).
func TestMedianRanks(t *testing.T) {
	for _, c := range []struct {
		n, lo, hi int
		coverage  float64
	}{
		{6, 1, 6, 0.9687500000},
		{7, 1, 7, 0.9843750000},
		{8, 1, 8, 0.9921875000},
		{9, 2, 8, 0.9609375000},
		{10, 2, 9, 0.9785156250},
		{15, 4, 12, 0.9648437500},
		{20, 6, 15, 0.9586105347},
		{25, 8, 18, 0.9567147493},
		{30, 10, 21, 0.9572260547},
		{40, 14, 27, 0.9615226917},
		{50, 18, 33, 0.9671608624},
		{100, 40, 61, 0.9647997998},
		{299, 133, 167, 0.9509143633},
	} {
		lo, hi, coverage, ok := MedianRanks(c.n)
		if !ok || lo != c.lo || hi != c.hi || math.Abs(coverage-c.coverage) > 1e-9 {
			t.Errorf("N = %d: %d, %d, %v, %v; want %d, %d, %v", c.n, lo, hi, coverage, ok, c.lo, c.hi, c.coverage)
		}
	}
	for n := range 6 {
		if _, _, _, ok := MedianRanks(n); ok {
			t.Errorf("N = %d has an interval", n)
		}
	}
}

// Quantiles from scipy 1.17.1, scipy.stats.t.ppf(0.975, df).
func TestStudentQuantile(t *testing.T) {
	for degrees, want := range map[float64]float64{
		1: 12.7062047362, 2: 4.30265272975, 4: 2.7764451052, 9: 2.2621571628,
		24: 2.06389856163, 99: 1.98421695159, 999: 1.96234146113,
	} {
		if got := studentQuantile(0.975, degrees); math.Abs(got-want) > 1e-9 {
			t.Errorf("%v degrees of freedom: %v, want %v", degrees, got, want)
		}
	}
}

// Interval from scipy 1.17.1, scipy.stats.t.interval(0.95, 9, mean, sem).
func TestMeanCI95(t *testing.T) {
	mean, ci := MeanCI95([]int64{512, 498, 533, 470, 541, 505, 499, 612, 487, 520})
	if math.Abs(mean-517.7) > 1e-9 || ci == nil ||
		math.Abs(ci[0]-489.6637481386) > 1e-6 || math.Abs(ci[1]-545.7362518614) > 1e-6 {
		t.Errorf("mean %v, interval %v", mean, ci)
	}
	if _, ci := MeanCI95([]int64{5}); ci != nil {
		t.Errorf("one value has the interval %v", ci)
	}
	if mean, ci := MeanCI95([]int64{5, 5, 5}); mean != 5 || *ci != [2]float64{5, 5} {
		t.Errorf("equal values: mean %v, interval %v", mean, ci)
	}
}

func TestDivide(t *testing.T) {
	for _, c := range []struct {
		totals []int64
		n      int64
		want   []int64
	}{
		{[]int64{1, 1, 1}, 3, []int64{1, 0, 0}},
		{[]int64{10, 20, 30}, 10, []int64{1, 2, 3}},
		{[]int64{5, 5, 5, 5}, 10, []int64{1, 1, 0, 0}},
		{[]int64{19, 11}, 10, []int64{2, 1}},
		{[]int64{-15, 15}, 10, []int64{-1, 1}},
		{nil, 3, []int64{}},
	} {
		if diff := cmp.Diff(c.want, Divide(c.totals, c.n)); diff != "" {
			t.Errorf("%v / %d: %s", c.totals, c.n, diff)
		}
	}
}

func TestApportion(t *testing.T) {
	for _, c := range []struct {
		total   int64
		weights []int64
		want    []int64
	}{
		{100, []int64{1, 1, 1}, []int64{34, 33, 33}},
		{1000, []int64{0, 2, 1}, []int64{0, 667, 333}},
		{100, []int64{math.MaxInt64, math.MaxInt64}, []int64{50, 50}},
		{math.MaxInt64, []int64{math.MaxInt64, 0}, []int64{math.MaxInt64, 0}},
		{100, []int64{0, 0}, []int64{0, 0}},
		{0, []int64{5}, []int64{0}},
	} {
		if diff := cmp.Diff(c.want, Apportion(c.total, c.weights)); diff != "" {
			t.Errorf("%d by %v: %s", c.total, c.weights, diff)
		}
	}
}

// Sums hold, and no part is a unit or more away from its exact value.
func FuzzDivide(f *testing.F) {
	f.Add(int64(1), int64(2), int64(3), int64(7))
	f.Add(int64(-5), int64(1<<40), int64(0), int64(25))
	f.Fuzz(func(t *testing.T, a, b, c, n int64) {
		const limit = 1 << 60
		if n <= 0 || max(a, b, c) > limit || min(a, b, c) < -limit {
			t.Skip()
		}
		parts := Divide([]int64{a, b, c}, n)
		var sum int64
		for i, total := range []int64{a, b, c} {
			sum += parts[i]
			q, r := total/n, total%n
			if r < 0 {
				q--
			}
			if parts[i] != q && parts[i] != q+1 {
				t.Errorf("%d / %d = %d", total, n, parts[i])
			}
		}
		exact := a + b + c
		q, r := exact/n, exact%n
		if r < 0 {
			q, r = q-1, r+n
		}
		if r >= n-r {
			q++
		}
		if sum != q {
			t.Errorf("(%d + %d + %d) / %d sums to %d, want %d", a, b, c, n, sum, q)
		}
	})
}
