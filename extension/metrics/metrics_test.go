package metrics

import (
	"encoding/json"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

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
	const bucketStart = 1700000000
	want := &Batch{
		Points: []Point{
			{Name: "c", Type: Count, Tags: []string{"a:1", "b:2"}, Time: bucketStart, Value: 5, Interval: 10},
			{Name: "g", Type: Gauge, Time: bucketStart, Value: 1},
			{Name: "h.95percentile", Type: Gauge, Time: bucketStart, Value: 4},
			{Name: "h.avg", Type: Gauge, Time: bucketStart, Value: 2.5},
			{Name: "h.count", Type: Count, Time: bucketStart, Value: 4, Interval: 10},
			{Name: "h.max", Type: Gauge, Time: bucketStart, Value: 4},
			{Name: "h.median", Type: Gauge, Time: bucketStart, Value: 2},
			{Name: "s", Type: Gauge, Time: bucketStart, Value: 2},
		},
		Distributions: []DistributionPoint{{Name: "d", Time: bucketStart, Values: []float64{1, 2, 3, 4}}},
	}
	if diff := cmp.Diff(want, a.Flush()); diff != "" {
		t.Error(diff)
	}
	if b := a.Flush(); !b.Empty() {
		t.Error("a second flush finds something")
	}
}

func TestBuffersAreBounded(t *testing.T) {
	var a Aggregator
	for i := range maxContexts + 10 {
		a.Add(Sample{Name: strconv.Itoa(i), Type: Gauge})
	}
	if b := a.Flush(); len(b.Points) != maxContexts || b.Dropped != 10 {
		t.Errorf("%d points, %d dropped", len(b.Points), b.Dropped)
	}
}

func TestEncoding(t *testing.T) {
	for _, body := range [][]byte{
		AppendSeries(nil, []Point{{Name: "a\"\n\xff", Type: Count, Tags: []string{"x:y"}, Time: 1, Value: 1.5, Interval: 10}, {Name: "b", Type: Gauge}}, []string{"env:t"}),
		AppendDistributions(nil, []DistributionPoint{{Name: "d", Time: 1, Values: []float64{1, 2}}}, nil),
	} {
		if !json.Valid(body) {
			t.Errorf("not JSON: %s", body)
		}
	}
	got := string(AppendDistributions(nil, []DistributionPoint{{Name: "d", Time: 1, Values: []float64{1, 2.5}}}, []string{"a:b"}))
	if want := `{"series":[{"metric":"d","type":"distribution","points":[[1,[1,2.5]]],"tags":["a:b"]}]}`; got != want {
		t.Error(got)
	}
}
