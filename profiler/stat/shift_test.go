package stat

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// U and p from scipy 1.17.1, scipy.stats.mannwhitneyu with the named method;
// shifts from numpy.median of all differences.
var shiftCases = []struct {
	name     string
	x, y     []int64
	u, p, hl float64
}{
	{"exact 3 and 4", []int64{4087, 5489, 6327}, []int64{3748, 5063, 5259, 4848}, 9, 0.4, -533.5},
	{"exact 5 and 5", []int64{5275, 3878, 5426, 5185, 5011}, []int64{5306, 5919, 5357, 5711, 5344}, 3, 0.0555555555556, 346},
	{"exact 8 and 9", []int64{3876, 4984, 5101, 5377, 4561, 4983, 5308, 5072}, []int64{6021, 6395, 4945, 4439, 5828, 6164, 5861, 5806, 5090}, 16, 0.0592348827643, 788},
	{"exact 25 and 25", []int64{4643, 5444, 4544, 4093, 4501, 6246, 5961, 4656, 4635, 5115, 4625, 5655, 4960, 4456, 5654, 4708, 5110, 4993, 4842, 5162, 4653, 4077, 3896, 4366, 4620}, []int64{5288, 5327, 5578, 5359, 4903, 4945, 4240, 5215, 5542, 5564, 5239, 5212, 5768, 5307, 5668, 5591, 5406, 5953, 5013, 5120, 4896, 4901, 6077, 6179, 5311}, 145, 0.000886739833284, 559},
	{"exact 25 and 25", []int64{4336, 4732, 4227, 5611, 5268, 4397, 5697, 5445, 4045, 5920, 5404, 6032, 4384, 5265, 5211, 5100, 5085, 5526, 4252, 4378, 4302, 4721, 4697, 5183, 5133}, []int64{5015, 4661, 4779, 5476, 5381, 5050, 4838, 5776, 4702, 5324, 5576, 4867, 5412, 4442, 5506, 5099, 4206, 5334, 4553, 5640, 4660, 4917, 5141, 4833, 5129}, 288, 0.644271761295, 101},
	{"asymptotic 12 and 10", []int64{1, 17, 7, 10, 2, 1, 12, 16, 4, 16, 6, 16}, []int64{21, 14, 19, 11, 21, 8, 12, 9, 10, 18}, 31, 0.0596335547343, 5},
	{"asymptotic 25 and 25", []int64{6, 4, 3, 16, 18, 4, 11, 12, 4, 13, 13, 3, 14, 1, 12, 7, 10, 9, 14, 18, 17, 6, 13, 8, 15}, []int64{8, 21, 23, 23, 5, 15, 22, 14, 20, 8, 18, 21, 14, 9, 18, 18, 12, 22, 11, 8, 14, 18, 11, 20, 10}, 156, 0.00241809649143, 5},
	{"asymptotic 55 and 52", []int64{5264, 4863, 5422, 4868, 4818, 5352, 5251, 4758, 5098, 5036, 4352, 4784, 4577, 5597, 4057, 4898, 4483, 5673, 3506, 4802, 4488, 3952, 4356, 5371, 5213, 5259, 4691, 4741, 5118, 4810, 5699, 4113, 5395, 4989, 4518, 4482, 4851, 4505, 5409, 5310, 4762, 4922, 3741, 5944, 5574, 5786, 4872, 5685, 5748, 5627, 4854, 4614, 4719, 5372, 4336}, []int64{5040, 5115, 5103, 5109, 3637, 4840, 5437, 4272, 4943, 4702, 5341, 5255, 6072, 4514, 6304, 4859, 4915, 4536, 6338, 6118, 4361, 5530, 5211, 5485, 4893, 4728, 5051, 4759, 4783, 5518, 4433, 4644, 5387, 5876, 5339, 5080, 5170, 5478, 5300, 4653, 5467, 4466, 4227, 5332, 5416, 4704, 5390, 5266, 4085, 4495, 4749, 5145}, 1287, 0.374433372133, 96},
}

func TestMannWhitneyU(t *testing.T) {
	for _, c := range shiftCases {
		u, p := MannWhitneyU(c.x, c.y)
		if u != c.u || math.Abs(p-c.p) > 1e-9 {
			t.Errorf("%s: U = %v, p = %v; want %v, %v", c.name, u, p, c.u, c.p)
		}
		if _, back := MannWhitneyU(c.y, c.x); math.Abs(back-p) > 1e-12 {
			t.Errorf("%s: p = %v one way, %v the other", c.name, p, back)
		}
	}
	if _, p := MannWhitneyU(nil, []int64{1}); p != 1 {
		t.Errorf("an empty sample has p = %v", p)
	}
	if _, p := MannWhitneyU([]int64{3, 3, 3}, []int64{3, 3}); p != 1 {
		t.Errorf("equal values have p = %v", p)
	}
}

// Critical values of U at two-sided 5 %, from the table that Mann and Whitney's
// test is printed with in textbooks: U <= critical is significant.
func TestCriticalValues(t *testing.T) {
	for _, c := range []struct{ n, m, critical int }{
		{4, 4, 0}, {5, 5, 2}, {6, 8, 8}, {8, 8, 13}, {10, 10, 23}, {12, 15, 49}, {15, 15, 64}, {20, 20, 127},
	} {
		if p := exactP(c.critical, c.n, c.m); p > 0.05 {
			t.Errorf("n = %d, m = %d: U = %d has p = %v", c.n, c.m, c.critical, p)
		}
		if p := exactP(c.critical+1, c.n, c.m); p <= 0.05 {
			t.Errorf("n = %d, m = %d: U = %d has p = %v", c.n, c.m, c.critical+1, p)
		}
	}
}

func TestHodgesLehmann(t *testing.T) {
	for _, c := range shiftCases {
		shift, ci := HodgesLehmann(c.x, c.y, 1)
		if math.Abs(float64(shift)-c.hl) > 0.5 {
			t.Errorf("%s: shift %d, want %v", c.name, shift, c.hl)
		}
		if ci[0] > shift || shift > ci[1] {
			t.Errorf("%s: shift %d outside of %v", c.name, shift, ci)
		}
		if again, ciAgain := HodgesLehmann(c.x, c.y, 1); again != shift || ciAgain != ci {
			t.Errorf("%s: the same seed gives %d %v, then %d %v", c.name, shift, ci, again, ciAgain)
		}
	}
	shift, ci := HodgesLehmann([]int64{10}, []int64{17}, 0)
	if shift != 7 || ci != [2]int64{7, 7} {
		t.Errorf("one value each: %d %v", shift, ci)
	}
}

// Worked by hand: 4·0.005, 3·0.01, 2·0.03, and 0.04 raised to the one before it.
func TestHolm(t *testing.T) {
	got := Holm([]float64{0.01, 0.04, 0.03, 0.005})
	if diff := cmp.Diff([]float64{0.03, 0.06, 0.06, 0.02}, got, cmpopts.EquateApprox(0, 1e-12)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]float64{1, 1}, Holm([]float64{0.9, 0.8})); diff != "" {
		t.Error(diff)
	}
	if len(Holm(nil)) != 0 {
		t.Error("no test, but a p-value")
	}
}

func BenchmarkHodgesLehmann25(b *testing.B) {
	for b.Loop() {
		HodgesLehmann(sequence(25), sequence(25), 1)
	}
}
