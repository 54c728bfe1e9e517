package stat

import (
	"math"
	"math/rand/v2"
	"slices"
)

// Shift is how much y lies above x.
type Shift struct {
	Estimate int64    // Hodges–Lehmann: the median of all differences y − x
	CI95     [2]int64 // percentile bootstrap
	P        float64  // Mann–Whitney U, two-sided
}

// Compare estimates the shift from x to y, neither empty. The seed fixes the
// bootstrap.
func Compare(x, y []int64, seed uint64) Shift {
	_, p := MannWhitneyU(x, y)
	estimate, ci := HodgesLehmann(x, y, seed)
	return Shift{Estimate: estimate, CI95: ci, P: p}
}

// bootstrapResamples makes the percentiles of an interval steady to about a
// tenth of its width.
const bootstrapResamples = 2000

// HodgesLehmann returns the median of all pairwise differences y − x and its
// 95 % interval by percentile bootstrap. Neither x nor y may be empty; values
// stay within ±2^61.
func HodgesLehmann(x, y []int64, seed uint64) (shift int64, ci95 [2]int64) {
	xs := slices.Sorted(slices.Values(x))
	ys := slices.Sorted(slices.Values(y))
	shift = medianDifference(xs, ys)

	random := rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15))
	shifts := make([]int64, bootstrapResamples)
	rx, ry := make([]int64, len(xs)), make([]int64, len(ys))
	counts := make([]int, max(len(xs), len(ys)))
	for i := range shifts {
		resample(random, rx, xs, counts)
		resample(random, ry, ys, counts)
		shifts[i] = medianDifference(rx, ry)
	}
	slices.Sort(shifts)
	return shift, [2]int64{NearestRank(shifts, 25, 1000), NearestRank(shifts, 975, 1000)}
}

// resample draws len(sorted) values with replacement into dst, sorted.
func resample(random *rand.Rand, dst, sorted []int64, counts []int) {
	counts = counts[:len(sorted)]
	clear(counts)
	for range sorted {
		counts[random.IntN(len(sorted))]++
	}
	dst = dst[:0]
	for i, count := range counts {
		for range count {
			dst = append(dst, sorted[i])
		}
	}
}

// medianDifference finds the median of all y − x of two sorted slices without
// building them, by bisection on its value: O((n+m)·log range).
func medianDifference(xs, ys []int64) int64 {
	pairs := len(xs) * len(ys)
	if pairs%2 == 1 {
		return kthDifference(xs, ys, pairs/2+1)
	}
	lo := kthDifference(xs, ys, pairs/2)
	hi := kthDifference(xs, ys, pairs/2+1)
	return lo + (hi-lo)/2
}

// kthDifference returns the k-th smallest difference, k from 1.
func kthDifference(xs, ys []int64, k int) int64 {
	lo, hi := ys[0]-xs[len(xs)-1], ys[len(ys)-1]-xs[0]
	for lo < hi {
		mid := lo + (hi-lo)>>1
		if differencesUpTo(xs, ys, mid) >= k {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	return lo
}

// differencesUpTo counts the pairs with y − x <= limit.
func differencesUpTo(xs, ys []int64, limit int64) int {
	count, below := 0, 0 // below: how many ys are <= x + limit
	for _, x := range xs {
		for below < len(ys) && ys[below]-x <= limit {
			below++
		}
		count += below
	}
	return count
}

// exactLimit is the size of both samples up to which the distribution of U is
// enumerated when no two values are equal.
const exactLimit = 50

// MannWhitneyU returns the U of x (the number of pairs with x > y, equal ones
// counted half) and the two-sided p of "neither tends to be larger". Small
// samples without ties are exact, others use the normal approximation with
// corrections for ties and continuity. An empty sample gives p = 1.
func MannWhitneyU(x, y []int64) (u, p float64) {
	n, m := len(x), len(y)
	if n == 0 || m == 0 {
		return 0, 1
	}
	xs := slices.Sorted(slices.Values(x))
	ys := slices.Sorted(slices.Values(y))
	var twice int64 // twice U
	less, upTo := 0, 0
	for _, v := range xs {
		for less < m && ys[less] < v {
			less++
		}
		for upTo < m && ys[upTo] <= v {
			upTo++
		}
		twice += int64(less + upTo)
	}
	u = float64(twice) / 2
	ties := tieTerm(slices.Sorted(slices.Values(slices.Concat(x, y))))
	if ties == 0 && n <= exactLimit && m <= exactLimit {
		return u, exactP(int(min(u, float64(n*m)-u)), n, m)
	}
	fn, fm := float64(n), float64(m)
	total := fn + fm
	variance := fn * fm / 12 * (total + 1 - ties/(total*(total-1)))
	if variance <= 0 { // all values equal
		return u, 1
	}
	z := (math.Abs(u-fn*fm/2) - 0.5) / math.Sqrt(variance)
	return u, min(1, math.Erfc(z/math.Sqrt2))
}

// tieTerm is Σ t³ − t over the groups of equal values.
func tieTerm(sorted []int64) (sum float64) {
	for i := 0; i < len(sorted); {
		j := i
		for j < len(sorted) && sorted[j] == sorted[i] {
			j++
		}
		t := float64(j - i)
		sum += t*t*t - t
		i = j
	}
	return sum
}

// exactP is the two-sided p of a U as small as u: twice the part of all
// orders of n + m values that give at most u. The orders that give exactly v
// are the coefficient of q^v in the Gaussian binomial (n+m choose n).
func exactP(u, n, m int) float64 {
	// Multiply by (1 − q^(m+i)) and divide by (1 − q^i) for i = 1..n, as
	// power series cut off behind q^u. Divisions come first, so that terms
	// stay positive and of moderate size: P(v) is kept as a probability.
	series := make([]float64, u+1)
	series[0] = 1
	for i := 1; i <= n; i++ {
		for v := i; v <= u; v++ {
			series[v] += series[v-i]
		}
		for v := u; v >= m+i; v-- {
			series[v] -= series[v-m-i]
		}
		scale := float64(i) / float64(m+i) // (m+n choose n) as a product
		for v := range series {
			series[v] *= scale
		}
	}
	sum := 0.0
	for _, part := range series {
		sum += part
	}
	return min(1, 2*sum)
}

// Holm corrects the p-values of several tests made together, so that the
// chance of any false alarm among them stays at the level of one. The result
// has the order of p.
func Holm(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		switch {
		case p[a] < p[b]:
			return -1
		case p[a] > p[b]:
			return 1
		}
		return 0
	})
	adjusted := make([]float64, len(p))
	worst := 0.0
	for rank, i := range order {
		worst = max(worst, min(1, p[i]*float64(len(p)-rank)))
		adjusted[i] = worst
	}
	return adjusted
}
