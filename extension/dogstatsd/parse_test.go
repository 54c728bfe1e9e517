package dogstatsd

import (
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/extension/metrics"
)

func TestParse(t *testing.T) {
	for text, want := range map[string][]metrics.Sample{
		"a:1|c":                 {{Name: "a", Type: metrics.Count, Value: 1}},
		"a:-1.5|g|#x:y,,z":      {{Name: "a", Type: metrics.Gauge, Value: -1.5, Tags: []string{"x:y", "z"}}},
		"a:u:1|s":               {{Name: "a", Type: metrics.Set, Member: "u:1"}},
		"a:3|ms|@0.5":           {{Name: "a", Type: metrics.Histogram, Value: 3, Rate: 0.5}},
		"a:1:2|d|c:abc|T170000": {{Name: "a", Type: metrics.Distribution, Value: 1, Time: time.Unix(170000, 0)}, {Name: "a", Type: metrics.Distribution, Value: 2, Time: time.Unix(170000, 0)}},
	} {
		var got []metrics.Sample
		if err := parse(text, func(s metrics.Sample) { got = append(got, s) }); err != nil {
			t.Errorf("%q: %v", text, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q: %s", text, diff)
		}
	}
	for _, text := range []string{"", "a", "a:1", ":1|c", "a:|c", "a:x|c", "a:1|q", "a:1|c|@2", "a:1|c|@0", "a:1|c|", "a:NaN|g", "a:1|c|Tx", "_sc|a|0", "_e{1,1}:a|b"} {
		if err := parse(text, func(metrics.Sample) {}); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("a:1|c|@0.1|#b:c,d|T1656581400")
	f.Add("a:1:2:3|d")
	f.Fuzz(func(t *testing.T, text string) {
		_ = parse(text, func(s metrics.Sample) {
			if s.Name == "" || math.IsNaN(s.Value) || math.IsInf(s.Value, 0) || s.Rate < 0 || s.Rate > 1 {
				t.Errorf("%q gives %+v", text, s)
			}
		})
	})
}
