package clients

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/DataDog/agent-payload/v5/gogen"
	"github.com/DataDog/datadog-agent/pkg/util/quantile"
	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/extension/metrics"
)

// TestSketchesAreTheAgents gives the same values to the agent's own sketch: the
// intake merges bins by their keys.
func TestSketchesAreTheAgents(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for name, value := range map[string]func() float64{
		"uniform":     r.Float64,
		"normal":      r.NormFloat64,
		"exponential": func() float64 { return 1e6 * r.ExpFloat64() },
		"magnitudes":  func() float64 { return math.Pow(10, 30*r.Float64()-12) },
		"integers":    func() float64 { return float64(r.IntN(20) - 5) },
		"powers":      func() float64 { return math.Pow(1+2.0/128, float64(r.IntN(3000)-1500)) },
		"huge":        func() float64 { return math.MaxFloat64 / float64(1+r.IntN(1000)) / 1e6 },
	} {
		var a metrics.Aggregator
		agent := quantile.Agent{}
		for range 10000 {
			v := value()
			a.Add(metrics.Sample{Name: name, Type: metrics.Distribution, Value: v, Time: time.Unix(1700000000, 0)})
			agent.Insert(v, 1)
		}
		var got gogen.SketchPayload
		a.Flush().Sketches([]string{"env:t"}, func(body []byte) {
			if err := got.Unmarshal(body); err != nil {
				t.Fatal(err)
			}
		})
		if len(got.Sketches) != 1 || len(got.Sketches[0].Dogsketches) != 1 {
			t.Fatalf("%+v", got)
		}
		s := got.Sketches[0].Dogsketches[0]
		want := agent.Finish()
		keys, counts := want.Cols()
		if diff := cmp.Diff(keys, s.K); diff != "" {
			t.Errorf("%s: keys: %s", name, diff)
		}
		if diff := cmp.Diff(counts, s.N); diff != "" {
			t.Errorf("%s: counts: %s", name, diff)
		}
		near := func(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(a) }
		if s.Ts != 1700000000 || s.Cnt != want.Basic.Cnt || s.Min != want.Basic.Min || s.Max != want.Basic.Max ||
			!near(s.Sum, want.Basic.Sum) || !near(s.Avg, want.Basic.Avg) {
			t.Errorf("%s: %+v, want %+v", name, s, want.Basic)
		}
	}
}

// TestSampleRates: a sample of rate 1/4 counts four times, as in the agent.
func TestSampleRates(t *testing.T) {
	var a metrics.Aggregator
	agent := quantile.Agent{}
	for i := range 100 {
		a.Add(metrics.Sample{Name: "d", Type: metrics.Distribution, Value: float64(i), Rate: 0.25, Time: time.Unix(1, 0)})
		agent.Insert(float64(i), 0.25)
	}
	var got gogen.SketchPayload
	a.Flush().Sketches(nil, func(body []byte) { _ = got.Unmarshal(body) })
	s := got.Sketches[0].Dogsketches[0]
	want := agent.Finish()
	keys, counts := want.Cols()
	if s.Cnt != 400 || !cmp.Equal(keys, s.K) || !cmp.Equal(counts, s.N) || s.Sum != want.Basic.Sum {
		t.Errorf("%+v, want %+v", s, want.Basic)
	}
}
