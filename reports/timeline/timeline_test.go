package timeline

import (
	"bytes"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

func coldStart(t *testing.T, goroutines int) ColdStart {
	t.Helper()
	var events []trace.Event
	for id := range uint64(goroutines) {
		at := int64(1000 + 10*id)
		for _, c := range []struct {
			from, to trace.GoStatus
			reason   string
		}{{trace.GoDead, trace.GoRunnable, ""}, {trace.GoRunnable, trace.GoRunning, ""}, {trace.GoRunning, trace.GoWaiting, "a <reason>"}} {
			events = append(events, &trace.Goroutine{
				Header: trace.Header{Time: at, PID: 10, TID: 10 + int(id)}, G: 0xc000 + id, ID: id + 1, From: c.from, To: c.to, Reason: c.reason,
			})
			at += int64(1 + id)
		}
	}
	tl, err := trace.Build(events, trace.BuildOptions{Arch: "amd64", Stop: 2000})
	if err != nil {
		t.Fatal(err)
	}
	return ColdStart{
		Timeline: tl, Title: "<subject>", Phases: &phase.Result{Start: 1000, End: 2000, Phases: []phase.Phase{{Name: "exec & all", Start: 1000, End: 2000}}},
		Function: func(*trace.GoroutineLife) string { return "example.com/lib.(*T).F[\"x\"]" },
	}
}

// texts parses the picture and returns all text in it.
func texts(t *testing.T, picture []byte) string {
	t.Helper()
	d := xml.NewDecoder(bytes.NewReader(picture))
	var all strings.Builder
	for {
		token, err := d.Token()
		if err == io.EOF {
			return all.String()
		}
		if err != nil {
			t.Fatalf("%v in\n%s", err, picture)
		}
		if text, ok := token.(xml.CharData); ok {
			all.Write(text)
			all.WriteByte('\n')
		}
	}
}

func TestRender(t *testing.T) {
	var out bytes.Buffer
	if err := Render(&out, coldStart(t, 3)); err != nil {
		t.Fatal(err)
	}
	got := texts(t, out.Bytes())
	for _, want := range []string{
		"<subject>", "3 goroutines", "exec & all: 1.000 µs", "2 lib.(*T).F[\"x\"]",
		"on CPU 2 ns, from 12 ns", "a <reason>", "ready by scheduler",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
}

// Of too many goroutines those that ran longest are shown, and the rest counted.
func TestTooMany(t *testing.T) {
	c := coldStart(t, 50)
	c.MaxRows = 10
	var out bytes.Buffer
	if err := Render(&out, c); err != nil {
		t.Fatal(err)
	}
	got := texts(t, out.Bytes())
	if n := strings.Count(out.String(), `class="name"`); n != 10 || !strings.Contains(got, "… 40 more") {
		t.Errorf("%d rows in\n%s", n, got)
	}
	for id := range 51 {
		if shown := strings.Contains(got, fmt.Sprintf("\n%d lib.", id)); shown != (id > 40) {
			t.Errorf("goroutine %d is shown: %v", id, shown)
		}
	}
}

func TestNothingToShow(t *testing.T) {
	if err := Render(io.Discard, ColdStart{}); err == nil {
		t.Error("a timeline of nothing was drawn")
	}
	c := coldStart(t, 0)
	var out bytes.Buffer
	if err := Render(&out, c); err != nil || !strings.Contains(texts(t, out.Bytes()), "no goroutines were seen") {
		t.Errorf("%v:\n%s", err, out.Bytes())
	}
}
