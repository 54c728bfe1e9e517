package perfetto

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/phase"
	"github.com/initprof/initprof/profiler/trace"
)

// coldStart is two goroutines on one thread, of which the first wakes the
// second, in a window from 1,000 to 9,001 ns.
func coldStart(t *testing.T) ColdStart {
	t.Helper()
	head := func(at int64) trace.Header { return trace.Header{Time: at, PID: 10, TID: 11} }
	g := func(at int64, id uint64, from, to trace.GoStatus, reason string) *trace.Goroutine {
		return &trace.Goroutine{Header: head(at), G: 0xc000 + id, ID: id, From: from, To: to, Reason: reason, StartPC: id}
	}
	tl, err := trace.Build([]trace.Event{
		g(1000, 1, trace.GoDead, trace.GoRunnable, ""), g(1500, 1, trace.GoRunnable, trace.GoRunning, ""),
		g(2000, 2, trace.GoDead, trace.GoRunnable, ""), g(2100, 1, trace.GoRunning, trace.GoWaiting, "sleep"),
		g(2200, 2, trace.GoRunnable, trace.GoRunning, ""), g(3000, 2, trace.GoRunning, trace.GoWaiting, "chan \"x\""),
		g(4000, 1, trace.GoWaiting, trace.GoRunnable, ""), g(4001, 1, trace.GoRunnable, trace.GoRunning, ""),
		g(5000, 2, trace.GoWaiting, trace.GoRunnable, ""), g(6000, 1, trace.GoRunning, trace.GoDead, ""),
		g(6001, 2, trace.GoRunnable, trace.GoRunning, ""),
		&trace.Mark{Header: head(7000), Name: "main"},
	}, trace.BuildOptions{Arch: "amd64", Stop: 9500})
	if err != nil {
		t.Fatal(err)
	}
	return ColdStart{
		Timeline: tl, Title: "a \"subject\"",
		Phases:   &phase.Result{Start: 1000, End: 9001, Phases: []phase.Phase{{Name: "exec", Start: 1000, End: 3000}, {Name: "next", Start: 3000, End: 9001}}},
		Function: func(g *trace.GoroutineLife) string { return fmt.Sprintf("f%d", g.StartPC) },
	}
}

type written struct {
	Name, Ph, Cat, Bp string
	Ts, Dur           json.Number
	Pid, Tid, ID      int
	Args              map[string]any
}

func read(t *testing.T, b []byte) []written {
	t.Helper()
	z, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	var all struct {
		DisplayTimeUnit string
		OtherData       map[string]string
		TraceEvents     []written
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	if d.More() {
		t.Error("more than one value")
	}
	return all.TraceEvents
}

// ns reads microseconds with exactly three decimals.
func ns(t *testing.T, n json.Number) (v int64) {
	t.Helper()
	var us, rest int64
	if _, err := fmt.Sscanf(string(n), "%d.%03d", &us, &rest); err != nil {
		t.Fatalf("time %q: %v", n, err)
	}
	return us*1000 + rest
}

func TestWrite(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, coldStart(t)); err != nil {
		t.Fatal(err)
	}
	events := read(t, out.Bytes())
	slices := map[[2]int][][2]int64{}
	names := map[[2]int]string{}
	var lines []string
	for _, e := range events {
		track := [2]int{e.Pid, e.Tid}
		switch e.Ph {
		case "M":
			if e.Name == "thread_name" {
				names[track] = e.Args["name"].(string)
			}
		case "X":
			slices[track] = append(slices[track], [2]int64{ns(t, e.Ts), ns(t, e.Ts) + ns(t, e.Dur)})
			if e.Pid == goroutinesProcess {
				lines = append(lines, fmt.Sprintf("%s %s+%s %s", names[track], e.Ts, e.Dur, e.Name))
			}
		}
	}
	want := strings.Fields(`G1_f1_0.000+0.500_runnable G1_f1_0.500+0.600_running G1_f1_1.100+1.900_sleep G1_f1_3.000+0.001_runnable G1_f1_3.001+1.999_running
		G2_f2_1.000+0.200_runnable G2_f2_1.200+0.800_running G2_f2_2.000+2.000_chan_"x" G2_f2_4.000+1.001_runnable G2_f2_5.001+3.000_running`)
	for i := range want {
		want[i] = strings.ReplaceAll(want[i], "_", " ")
	}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("goroutines:\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	for track, all := range slices {
		if names[track] == "" {
			t.Errorf("track %v has no name", track)
		}
		for i := 1; i < len(all); i++ {
			if all[i][0] < all[i-1][1] {
				t.Errorf("slices of %q overlap: %v, %v", names[track], all[i-1], all[i])
			}
		}
	}
}

// An arrow begins inside a slice of whoever made the goroutine ready and ends
// at the slice in which it goes on.
func TestArrows(t *testing.T) {
	var out bytes.Buffer
	if err := Write(&out, coldStart(t)); err != nil {
		t.Fatal(err)
	}
	events := read(t, out.Bytes())
	var got []string
	for _, s := range events {
		if s.Ph != "s" {
			continue
		}
		for _, f := range events {
			if f.Ph == "f" && f.ID == s.ID {
				within := slices.ContainsFunc(events, func(e written) bool {
					return e.Ph == "X" && e.Pid == s.Pid && e.Tid == s.Tid && ns(t, e.Ts) <= ns(t, s.Ts) && ns(t, s.Ts) <= ns(t, e.Ts)+ns(t, e.Dur)
				})
				begins := slices.ContainsFunc(events, func(e written) bool {
					return e.Ph == "X" && e.Pid == f.Pid && e.Tid == f.Tid && e.Ts == f.Ts
				})
				got = append(got, fmt.Sprintf("%d/%d at %s → %d/%d at %s %v %v", s.Pid, s.Tid, s.Ts, f.Pid, f.Tid, f.Ts, within, begins))
			}
		}
	}
	g := goroutinesProcess
	want := []string{
		"10/11 at 3.000 → " + fmt.Sprint(g) + "/1 at 3.001 true true", // a timer, on the thread that ran it
		fmt.Sprintf("%d/1 at 1.000 → %d/2 at 1.200 true true", g, g),
		fmt.Sprintf("%d/1 at 4.000 → %d/2 at 5.001 true true", g, g),
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("arrows\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestWithoutWindow(t *testing.T) {
	if err := Write(io.Discard, ColdStart{}); err == nil {
		t.Error("a trace of nothing was written")
	}
}
