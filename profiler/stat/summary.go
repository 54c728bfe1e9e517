package stat

import (
	"math"
	"slices"
)

// Summary describes the distribution of one figure over cold starts, in the
// figure's own unit (nanoseconds unless said otherwise). It has the shape of
// every "summary" in the JSON schemas.
type Summary struct {
	N   int   `json:"n"`
	Min int64 `json:"min"`
	P50 int64 `json:"p50"` // the median; the middle of the two when N is even
	P90 int64 `json:"p90"` // nearest-rank
	P99 int64 `json:"p99"` // nearest-rank; the maximum as long as N < 100
	Max int64 `json:"max"`
	// Mean is rounded to the nearest unit.
	Mean int64 `json:"mean"`
	// CI95 is the interval of the median by order statistics. It is nil below
	// 6 values, for which no such interval covers the median with 95 %.
	CI95 *[2]int64 `json:"ci95,omitzero"`
}

// Summarize describes values, whose order does not matter and which it leaves
// alone. Without any value it returns the zero Summary.
func Summarize(values []int64) Summary {
	n := len(values)
	if n == 0 {
		return Summary{}
	}
	sorted := slices.Sorted(slices.Values(values))
	s := Summary{
		N:    n,
		Min:  sorted[0],
		P50:  median(sorted),
		P90:  NearestRank(sorted, 90, 100),
		P99:  NearestRank(sorted, 99, 100),
		Max:  sorted[n-1],
		Mean: mean(sorted),
	}
	if lo, hi, _, ok := MedianRanks(n); ok {
		s.CI95 = &[2]int64{sorted[lo-1], sorted[hi-1]}
	}
	return s
}

// P99IsMax reports whether the nearest-rank p99 is the maximum for want of
// values, so that it says nothing of its own.
func (s Summary) P99IsMax() bool { return s.N > 0 && nearestRank(s.N, 99, 100) == s.N }

// P90IsMax is P99IsMax for the p90.
func (s Summary) P90IsMax() bool { return s.N > 0 && nearestRank(s.N, 90, 100) == s.N }

// NearestRank returns the quantile num/den of values sorted ascending: the
// smallest value that at least that part of all values does not exceed. It
// needs at least one value and 0 < num <= den.
func NearestRank(sorted []int64, num, den int) int64 {
	return sorted[nearestRank(len(sorted), num, den)-1]
}

func nearestRank(n, num, den int) int { return max(1, (n*num+den-1)/den) }

// median needs sorted values; halves round away from zero.
func median(sorted []int64) int64 {
	n := len(sorted)
	if n%2 == 1 {
		return sorted[n/2]
	}
	lo, hi := sorted[n/2-1], sorted[n/2]
	return lo + (hi-lo+1)/2
}

// mean does not overflow as long as each value and the count fit.
func mean(values []int64) int64 {
	n := int64(len(values))
	var whole, rest int64
	for _, v := range values {
		whole += v / n
		rest += v % n
		if rest >= n || rest <= -n {
			whole += rest / n
			rest %= n
		}
	}
	return whole + int64(math.Round(float64(rest)/float64(n)))
}

// MedianRanks returns the ranks, counted from 1, of the order statistics that
// enclose the median of the distribution with at least 95 % whatever its
// shape, and the probability with which they do. The ranks are symmetric:
// hi = n+1-lo. For N = 25 they are 8 and 18, with 95.7 %. ok is false below 6
// values, where even the extremes do not suffice.
func MedianRanks(n int) (lo, hi int, coverage float64, ok bool) {
	// The number of values below the median is binomial(n, 1/2). The interval
	// [x_k, x_n+1-k] misses it when that number is < k or > n-k.
	const miss = 0.05
	below := 0.0 // P(fewer than k values)
	for k := 1; k <= n/2; k++ {
		next := below + binomialHalf(n, k-1)
		if 2*next > miss {
			break
		}
		below, lo = next, k
	}
	if lo == 0 {
		return 0, 0, 0, false
	}
	return lo, n + 1 - lo, 1 - 2*below, true
}

// binomialHalf is the probability of exactly k successes of n at 1/2.
func binomialHalf(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return math.Exp(a - b - c - float64(n)*math.Ln2)
}
