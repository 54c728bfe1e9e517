package metrics

import (
	"encoding/json"
	"fmt"
	"math"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// near takes two numbers of a sketch's precision for equal.
var near = cmp.Comparer(func(a, b float64) bool { return math.Abs(a-b) <= 0.01*math.Abs(a) })

func TestAggregation(t *testing.T) {
	var a Aggregator
	at := time.Unix(1700000003, 0)
	add := func(s Sample) {
		s.Time = at
		if !a.Add(s) {
			t.Errorf("%+v was dropped", s)
		}
	}
	add(Sample{Name: "c", Type: Count, Value: 2, Rate: 0.5, Tags: []string{"b:2", "a:1"}})
	add(Sample{Name: "c", Type: Count, Value: 1, Tags: []string{"a:1", "b:2"}})
	add(Sample{Name: "g", Type: Gauge, Value: 2})
	add(Sample{Name: "g", Type: Gauge, Value: 1})
	add(Sample{Name: "s", Type: Set, Member: "x"})
	add(Sample{Name: "s", Type: Set, Member: "x"})
	add(Sample{Name: "s", Type: Set, Member: "y"})
	for _, v := range []float64{1, 2, 3, 4} {
		add(Sample{Name: "h", Type: Histogram, Value: v})
		add(Sample{Name: "d", Type: Distribution, Value: v})
	}
	add(Sample{Name: "h", Type: Histogram, Value: 4, Rate: 0.25})
	want := []Point{
		{Name: "c", Type: Count, Tags: []string{"a:1", "b:2"}, Time: 1700000003, Value: 5, Interval: 10},
		{Name: "g", Type: Gauge, Time: 1700000003, Value: 1},
		{Name: "h.95percentile", Type: Gauge, Time: 1700000003, Value: 4},
		{Name: "h.avg", Type: Gauge, Time: 1700000003, Value: 3.25},
		{Name: "h.count", Type: Count, Time: 1700000003, Value: 8, Interval: 10},
		{Name: "h.max", Type: Gauge, Time: 1700000003, Value: 4},
		{Name: "h.median", Type: Gauge, Time: 1700000003, Value: 4}, // of 1 2 3 4 4 4 4 4
		{Name: "s", Type: Gauge, Time: 1700000003, Value: 2},
	}
	b := a.Flush()
	if diff := cmp.Diff(want, b.Points, near); diff != "" {
		t.Error(diff)
	}
	if len(b.distributions) != 1 || b.distributions[0].sketch.count != 4 || b.distributions[0].sketch.sum != 10 {
		t.Errorf("%+v", b.distributions)
	}
	if b := a.Flush(); len(b.Points)+len(b.distributions) != 0 {
		t.Error("a second flush finds something")
	}
}

// TestTime: what carries no time of its own is gathered over 10 s.
func TestTime(t *testing.T) {
	var a Aggregator
	a.Add(Sample{Name: "c", Type: Count, Value: 1})
	if p := a.Flush().Points; len(p) != 1 || p[0].Time%10 != 0 || time.Since(time.Unix(p[0].Time, 0)) > 20*time.Second {
		t.Errorf("%+v", p)
	}
}

func TestBuffersAreBounded(t *testing.T) {
	for name, add := range map[string]func(a *Aggregator, i int) bool{
		"contexts": func(a *Aggregator, i int) bool { return a.Add(Sample{Name: strconv.Itoa(i), Type: Gauge}) },
		"long tags": func(a *Aggregator, i int) bool {
			return a.Add(Sample{Name: "g", Tags: []string{strconv.Itoa(i) + strings.Repeat("x", 60000)}})
		},
		"members": func(a *Aggregator, i int) bool {
			return a.Add(Sample{Name: "s", Type: Set, Member: strconv.Itoa(i) + strings.Repeat("x", 1000)})
		},
		"bins": func(a *Aggregator, i int) bool {
			return a.Add(Sample{Name: strconv.Itoa(i % 200), Type: Distribution, Value: math.Pow(1.05, float64(i/200))})
		},
	} {
		a := Aggregator{bytes: maxBytes - 1<<20} // most of it is taken already
		if name == "contexts" {
			a.bytes = 0
		}
		dropped := uint64(0)
		for i := range 2_000_000 {
			if add(&a, i) {
				continue
			}
			if dropped++; dropped == 10 {
				break
			}
		}
		if dropped != 10 || a.bytes > maxBytes || len(a.contexts) > maxContexts {
			t.Errorf("%s: %d dropped, %d bytes, %d contexts", name, dropped, a.bytes, len(a.contexts))
		}
		if got := a.Flush().Dropped; got != dropped {
			t.Errorf("%s: %d drops were counted, %d were told", name, got, dropped)
		}
		if !add(&a, 0) {
			t.Errorf("%s: nothing is taken after a flush", name)
		}
	}
}

// TestSketch holds quantiles against values that are known.
func TestSketch(t *testing.T) {
	if math.Abs(gammaLn-math.Log1p(2.0/128)) > 1e-15 {
		t.Error(gammaLn)
	}
	if math.Abs(lowest/math.Pow(gamma, 1-keyBias)-1) > 1e-12 || lowest > 1e-9 || lowest*gamma < 1e-9 {
		t.Errorf("key 1 is %g", lowest)
	}
	var s sketch
	for i := -1000; i <= 9000; i++ {
		s.add(float64(i), 1)
	}
	for q, want := range map[float64]float64{0.01: -900, 0.1: 0, 0.5: 4000, 0.95: 8500, 1: 9000} {
		if got := s.quantile(q); math.Abs(got-want) > 0.01*math.Abs(want)+1 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	if s.min != -1000 || s.max != 9000 || s.count != 10001 || s.sum != 40004000 {
		t.Errorf("%v %v %v %v", s.min, s.max, s.count, s.sum)
	}
	for _, v := range []float64{0, 1e-10, math.MaxFloat64, -math.MaxFloat64, math.SmallestNonzeroFloat64} {
		s.add(v, 1)
	}
	// A rate whose reciprocal is no integer: on average nothing is lost.
	var r sketch
	for range 300 {
		r.add(1, 0.4)
	}
	if r.count != 750 {
		t.Errorf("300 samples of rate 0.4 count as %d", r.count)
	}
	var wide sketch
	for i := range 3 * maxBins {
		wide.add(math.Pow(gamma, float64(i))*float64(1-i%2*2), 1)
	}
	if len(wide.bins) > maxBins {
		t.Errorf("%d bins", len(wide.bins))
	}
	if wide.quantile(1) != wide.max {
		t.Error("trimming lost observations")
	}
}

func TestSeries(t *testing.T) {
	b := Batch{Points: []Point{
		{Name: "a\"\n\xff", Type: Count, Tags: []string{"x:y"}, Time: 1, Value: 1.5, Interval: 10},
		{Name: "b", Type: Gauge, Time: 2, Value: 2},
	}}
	var got []string
	b.Series([]string{"env:t", "k:v"}, func(body []byte) { got = append(got, string(body)) })
	want := []string{`{"series":[` +
		`{"metric":"a\"\u000a` + "\ufffd" + `","type":1,"interval":10,"points":[{"timestamp":1,"value":1.5}],"tags":["x:y","env:t","k:v"]},` +
		`{"metric":"b","type":3,"points":[{"timestamp":2,"value":2}],"tags":["env:t","k:v"]}]}`}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestBodiesFitTheIntake(t *testing.T) {
	var a Aggregator
	for i := range 10000 {
		a.Add(Sample{Name: fmt.Sprintf("metric.%d", i), Type: Gauge, Tags: []string{strings.Repeat("t", 100)}})
		a.Add(Sample{Name: fmt.Sprintf("metric.%d", i), Type: Distribution, Value: float64(i), Tags: []string{strings.Repeat("t", 100)}})
	}
	b := a.Flush()
	points := 0
	b.Series([]string{"env:t"}, func(body []byte) {
		var list struct{ Series []json.RawMessage }
		if err := json.Unmarshal(body, &list); err != nil || len(body) > 512000 {
			t.Errorf("%d bytes: %v", len(body), err)
		}
		points += len(list.Series)
	})
	bodies := 0
	b.Sketches([]string{"env:t"}, func(body []byte) {
		bodies++
		if len(body) > maxSketchesBody+1000 {
			t.Errorf("%d bytes", len(body))
		}
	})
	if points != 10000 || bodies < 2 {
		t.Errorf("%d points, %d bodies of sketches", points, bodies)
	}
}

func BenchmarkAdd(b *testing.B) {
	for name, kind := range map[string]Type{"count": Count, "distribution": Distribution} {
		b.Run(name, func(b *testing.B) {
			var a Aggregator
			tags := []string{"kind:book", "country:se"}
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				a.Add(Sample{Name: "orders.handled", Type: kind, Value: float64(i % 1000), Tags: tags})
			}
		})
	}
}
