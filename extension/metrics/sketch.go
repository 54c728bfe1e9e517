package metrics

import (
	"math"
	"slices"
)

// Bins of a sketch, as the Datadog agent has them (pkg/util/quantile of
// datadog-agent: a relative error of 1/128, a smallest value of 1e-9), since the
// intake merges bins by their keys: key k holds the values around γ^(k-bias).
const (
	gamma   = 1 + 2.0/128
	gammaLn = 0.015504186535965254 // ln γ
	keyBias = 1338                 // makes 1 the key of the largest power of γ below 1e-9
	keyMax  = math.MaxInt16
	lowest  = 9.941854089121368e-10 // γ^(1-keyBias); what is below counts as 0

	// maxBins is the agent's limit. The positive values of one sketch have to
	// span 28 orders of magnitude to need as many.
	maxBins = 4096
)

type bin struct {
	key int16
	n   uint32
}

// sketch counts values in bins. Quantiles of it are within 1 % of the values;
// count, sum, minimum and maximum are exact.
type sketch struct {
	bins     []bin // by key
	count    int64
	sum      float64
	min, max float64
	carry    float64 // fraction of an observation that sample rates have left over
}

func keyOf(v float64) int16 {
	if v < 0 {
		return -keyOf(-v)
	}
	if v < lowest {
		return 0
	}
	k := math.RoundToEven(math.Log(v)/gammaLn) + keyBias
	return int16(min(max(k, 1), keyMax))
}

func valueOf(key int16) float64 {
	switch {
	case key < 0:
		return -valueOf(-key)
	case key == 0:
		return 0
	}
	return math.Pow(gamma, float64(key)-keyBias)
}

// add counts v as many times as a sample of that rate stands for. It returns how
// many bins that took.
func (s *sketch) add(v, rate float64) int {
	s.carry += 1 / rate
	n := math.Floor(s.carry + 1e-9)
	s.carry = max(s.carry-n, 0)
	if s.count == 0 || v < s.min {
		s.min = v
	}
	if s.count == 0 || v > s.max {
		s.max = v
	}
	s.count += int64(n)
	s.sum += v * n
	key := keyOf(v)
	i, found := slices.BinarySearchFunc(s.bins, key, func(b bin, key int16) int { return int(b.key) - int(key) })
	if found {
		s.bins[i].n = uint32(min(float64(s.bins[i].n)+n, math.MaxUint32))
		return 0
	}
	s.bins = slices.Insert(s.bins, i, bin{key, uint32(min(n, math.MaxUint32))})
	if len(s.bins) <= maxBins {
		return 1
	}
	// As the agent does, the lowest bins become one.
	s.bins[1].n = uint32(min(uint64(s.bins[0].n)+uint64(s.bins[1].n), math.MaxUint32))
	s.bins = slices.Delete(s.bins, 0, 1)
	return 0
}

// quantile is the value below which that part of the observations lies.
func (s *sketch) quantile(q float64) float64 {
	rank := uint64(math.Ceil(q * float64(s.count)))
	var seen uint64
	for _, b := range s.bins {
		if seen += uint64(b.n); seen >= rank {
			return min(max(valueOf(b.key), s.min), s.max)
		}
	}
	return s.max
}
