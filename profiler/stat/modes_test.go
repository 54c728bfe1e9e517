package stat

import (
	"math"
	"testing"
)

// Dips and their p-values (200,000 bootstrap samples) from the Python package
// diptest 0.12.0, diptest.diptest(x, boot_pval=True).
var dipCases = []struct {
	name   string
	values []int64
	dip, p float64
}{
	{"uniform, 10", []int64{49, 74, 96, 154, 331, 404, 548, 666, 840, 970}, 0.0708, 0.9567},
	{"normal, 25", []int64{416, 433, 438, 440, 459, 469, 473, 485, 500, 503, 504, 506, 507, 511, 512, 514, 518, 519, 523, 525, 526, 536, 549, 568, 593}, 0.0453731343283582, 0.9767},
	{"two groups, 25", []int64{473, 480, 481, 485, 486, 492, 496, 497, 498, 499, 509, 510, 517, 537, 548, 553, 657, 664, 697, 703, 709, 714, 718, 734, 754}, 0.093134328358209, 0.0636},
	{"two groups, 12", []int64{447, 462, 472, 474, 478, 501, 503, 508, 509, 688, 694, 699}, 0.117763157894737, 0.1179},
	{"skewed, 25", []int64{400, 402, 410, 414, 416, 418, 426, 431, 432, 434, 435, 437, 438, 439, 487, 505, 509, 537, 572, 582, 614, 619, 649, 666, 880}, 0.0426666666666667, 0.9903},
	{"three groups, 30", []int64{281, 286, 287, 292, 296, 306, 307, 309, 328, 479, 485, 489, 500, 501, 503, 514, 516, 533, 685, 688, 694, 695, 699, 705, 710, 712, 716, 719, 729, 737}, 0.11509900990099, 0.0014},
}

func TestDip(t *testing.T) {
	for _, c := range dipCases {
		d := dip(spread(c.values))
		if math.Abs(d-c.dip) > 1e-12 {
			t.Errorf("%s: dip %v, want %v", c.name, d, c.dip)
		}
		if p := dipP(d, len(c.values)); math.Abs(p-c.p) > 0.03 {
			t.Errorf("%s: p %v, want %v", c.name, p, c.p)
		}
	}
}

func TestModes(t *testing.T) {
	two := []int64{473, 480, 481, 485, 486, 492, 496, 497, 498, 499, 509, 510, 517, 537, 548, 553, 657, 664, 697, 703, 709, 714, 718, 734, 754}
	got := Modes(two)
	if got == nil {
		t.Fatal("two groups are not found")
	}
	want := [2]Mode{{N: 16, Median: 498, Min: 473, Max: 553}, {N: 9, Median: 709, Min: 657, Max: 754}}
	if got.Modes != want {
		t.Errorf("modes %+v, want %+v", got.Modes, want)
	}
	many := make([]int64, 0, 2500)
	for range 100 {
		many = append(many, two...)
	}
	if Modes(many) == nil {
		t.Error("two groups of many are not found")
	}
	for name, values := range map[string][]int64{
		"none":            nil,
		"equal":           {5, 5, 5, 5, 5, 5, 5, 5, 5, 5},
		"uniform":         dipCases[0].values,
		"normal":          dipCases[1].values,
		"skewed":          dipCases[4].values,
		"one outlier":     append([]int64{9000}, dipCases[1].values...),
		"two outliers":    append([]int64{9000, 9100}, dipCases[1].values...),
		"whole figures":   {57, 58, 58, 58, 59, 59, 59, 59, 59, 60, 60, 60, 60, 61, 61, 62},
		"too few to tell": {1, 1, 100, 100, 100},
	} {
		if got := Modes(values); got != nil {
			t.Errorf("%s: two modes %+v", name, got)
		}
	}
}
