package stat

import (
	"cmp"
	"math/bits"
	"slices"
)

// Divide divides each total by n > 0 and rounds to integers by largest
// remainder: the results sum to the rounded quotient of the sum, and each
// differs from its exact value by less than 1. It gives the means of parts
// whose sum must hold.
func Divide(totals []int64, n int64) []int64 {
	quotients := make([]int64, len(totals))
	remainders := make([]int64, len(totals))
	var floor, rest int64 // rest stays below n, so that sums do not overflow first
	for i, t := range totals {
		q, r := t/n, t%n
		if r < 0 {
			q, r = q-1, r+n
		}
		quotients[i], remainders[i] = q, r
		floor += q
		if rest += r; rest >= n {
			rest -= n
			floor++
		}
	}
	target := floor
	if rest >= n-rest {
		target++
	}
	for _, q := range quotients {
		target -= q
	}
	distribute(quotients, remainders, int(target))
	return quotients
}

// Apportion splits total >= 0 in proportion to weights >= 0 by largest
// remainder, so that the parts sum to total. Shares of 100 or 1000 give
// percentages that add up. All parts are 0 when all weights are.
func Apportion(total int64, weights []int64) []int64 {
	parts := make([]int64, len(weights))
	remainders := make([]int64, len(weights))
	var sum uint64
	for _, w := range weights {
		sum += uint64(max(w, 0))
	}
	if sum == 0 || total <= 0 {
		return parts
	}
	left := total
	for i, w := range weights {
		hi, lo := bits.Mul64(uint64(total), uint64(max(w, 0)))
		q, r := bits.Div64(hi, lo, sum) // hi < sum, as w <= sum and total < 2^63
		parts[i] = int64(q)
		left -= int64(q)
		remainders[i] = int64(r >> 1) // the lost bit cannot matter to anyone
	}
	distribute(parts, remainders, int(left))
	return parts
}

// distribute adds 1 to the units parts with the largest remainders; the
// earlier one wins a tie, so that output is stable.
func distribute(parts, remainders []int64, units int) {
	if units <= 0 {
		return
	}
	order := make([]int, len(parts))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(remainders[b], remainders[a]) })
	for _, i := range order[:min(units, len(order))] {
		parts[i]++
	}
}
