package analysis

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A known zero is printed, an unknown figure is not.
func TestKnownZeroIsPrinted(t *testing.T) {
	got, err := json.Marshal(Run{
		Index: 1, Traced: true, Outcome: OutcomeOK,
		ExecToNextNS: new(int64(5)), LostEvents: new(int64(0)), Phases: []RunPhase{},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `{"index":1,"traced":true,"outcome":"ok","exec_to_next_ns":5,"lost_events":0,"phases":[]}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestBenchRunIsFlat(t *testing.T) {
	run := BenchRun{Block: 3, Position: 1, Outcome: OutcomeOK}
	for i, metric := range MetricList {
		field := run.Field(metric.Name)
		if field == nil {
			t.Fatalf("no field for metric %q", metric.Name)
		}
		*field = new(int64(i))
	}
	text, err := json.Marshal(run)
	if err != nil {
		t.Fatal(err)
	}
	var flat map[string]any
	if err := json.Unmarshal(text, &flat); err != nil {
		t.Fatal(err)
	}
	for i, metric := range MetricList {
		if flat[metric.Name] != float64(i) {
			t.Errorf("%s = %v, want %d", metric.Name, flat[metric.Name], i)
		}
	}
	if run.Field("no such metric") != nil {
		t.Error("a metric that does not exist has a field")
	}
	var back BenchRun
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, back); diff != "" {
		t.Error(diff)
	}
}
