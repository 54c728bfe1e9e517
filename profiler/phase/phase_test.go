package phase

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/trace"
)

// subject makes the events of process 10.
type subject struct{ events []trace.Event }

func (s *subject) call(name string, begin, end, result int64, args ...uint64) *trace.Syscall {
	nr, ok := trace.SyscallNumber("amd64", name)
	if !ok {
		panic(name)
	}
	e := &trace.Syscall{Header: trace.Header{Time: begin, PID: 10, TID: 10}, End: end, Number: nr, Return: result}
	copy(e.Args[:], args)
	s.events = append(s.events, e)
	return e
}

func (s *subject) mark(kind trace.MarkKind, at int64, name string, id uint64) {
	s.events = append(s.events, &trace.Mark{Header: trace.Header{Time: at, PID: 10, TID: 10}, Kind: kind, Name: name, ID: id})
}

func (s *subject) request(at int64, fd uint64, method, path string) {
	s.call("write", at, at+2, 100, fd).Request = &trace.Request{Method: method, Path: path}
}

func extension() *subject {
	s := &subject{}
	s.call("execve", 100, 200, 0).Path = "/opt/extensions/x"
	s.events = append(s.events, &trace.Exec{Header: trace.Header{Time: 150, PID: 10, TID: 10}, OldTID: 10, Path: "/opt/extensions/x", Base: 1})
	s.mark(trace.MarkEntry, 300, "", 0)
	s.mark(trace.MarkMain, 400, "", 0)
	s.call("socket", 410, 415, 3)
	s.request(420, 3, "POST", "/2020-01-01/extension/register")
	s.call("read", 430, 440, -11, 3)
	s.call("read", 500, 510, 80, 3)
	s.mark(trace.MarkCheckpoint, 520, "config_parse", 0)
	s.mark(trace.MarkSpanBegin, 525, "subscribe", 7)
	s.request(530, 3, "PUT", "/2022-07-01/telemetry")
	s.mark(trace.MarkCheckpoint, 550, "config_parse", 0)
	s.call("read", 600, 610, 5, 3)
	s.mark(trace.MarkSpanEnd, 620, "subscribe", 7)
	s.request(700, 3, "GET", "/2020-01-01/extension/event/next")
	return s
}

func (s *subject) compute(t *testing.T, in Input) *Result {
	t.Helper()
	tl, err := trace.Build(s.events, trace.BuildOptions{Arch: "amd64", Stop: 1000})
	if err != nil {
		t.Fatal(err)
	}
	in.Timeline = tl
	r, err := Compute(in)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func phases(r *Result) string {
	var b strings.Builder
	for _, p := range r.Phases {
		fmt.Fprintf(&b, "%s %s %d..%d", p.Name, p.Source, p.Start, p.End)
		if p.Fallback {
			b.WriteString(" fallback")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestCompute(t *testing.T) {
	rule := func(s string) Rule {
		r, err := ParseRule(s)
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	r := extension().compute(t, Input{
		Received: []Received{{"POST", "/2020-01-01/extension/register", 425, 426, 200}, {"PUT", "/2022-07-01/telemetry", 535, 536, 200}},
		Rules:    []Rule{rule("printed=log:^ready")},
		Logs:     []LogLine{{FD: 2, Read: 650, Text: "ready in 3ms"}},
	})
	want := `exec universal 100..200
loader universal 200..300
runtime_init universal 300..400
register universal 400..510
config_parse checkpoint 510..520
config_parse#2 checkpoint 520..550
telemetry_subscribe universal 550..610
printed rule 610..650 fallback
next universal 650..700
`
	if diff := cmp.Diff(want, phases(r)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Span{{Name: "subscribe", ID: 7, Start: 525, End: 620, OverlapNS: 25}}, r.Spans); diff != "" {
		t.Error(diff)
	}
	if r.SubscribeOutcome != SubscribeOK || !r.Reached || r.FirstNext != 700 || len(r.Warnings) != 0 {
		t.Errorf("outcome %q, reached %v, next %d, warnings %q", r.SubscribeOutcome, r.Reached, r.FirstNext, r.Warnings)
	}
}

func TestSubscribeOutcome(t *testing.T) {
	if r := extension().compute(t, Input{Received: []Received{{"PUT", "/2022-07-01/telemetry", 535, 536, 403}}}); r.SubscribeOutcome != SubscribeRefused {
		t.Errorf("outcome %q", r.SubscribeOutcome)
	}
	s := &subject{}
	s.call("execve", 100, 200, 0)
	s.events = append(s.events, &trace.Exec{Header: trace.Header{Time: 150, PID: 10, TID: 10}, OldTID: 10})
	s.request(300, 3, "PUT", "/2022-07-01/telemetry")
	s.request(400, 4, "GET", "/2020-01-01/extension/event/next")
	s.call("read", 500, 510, 1, 3)
	r := s.compute(t, Input{})
	if r.SubscribeOutcome != SubscribePending {
		t.Errorf("outcome %q", r.SubscribeOutcome)
	}
	if diff := cmp.Diff("exec universal 100..200\nnext universal 200..400\n", phases(r)); diff != "" {
		t.Error(diff)
	}
}

// Without tracing the environment's times are all there is.
func TestUntraced(t *testing.T) {
	r, err := Compute(Input{Release: 50, Received: []Received{
		{"POST", "/2020-01-01/extension/register", 100, 110, 200}, {"GET", "/2020-01-01/extension/event/next", 300, 0, 0},
	}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("register universal 50..110 fallback\nnext universal 110..300 fallback\n", phases(r)); diff != "" {
		t.Error(diff)
	}
	if r.Traced || r.SubscribeOutcome != SubscribeNone {
		t.Errorf("%+v", r)
	}
}

func TestUnreachedEndIsUnfinished(t *testing.T) {
	s := &subject{}
	s.call("execve", 100, 200, 0)
	s.events = append(s.events, &trace.Exec{Header: trace.Header{Time: 150, PID: 10, TID: 10}, OldTID: 10})
	s.mark(trace.MarkMain, 300, "", 0)
	s.events = append(s.events, &trace.Exit{Header: trace.Header{Time: 900, PID: 10, TID: 10}, GroupDead: true})
	r := s.compute(t, Input{})
	if diff := cmp.Diff("exec universal 100..200\nruntime_init universal 200..300\nunfinished universal 300..900\n", phases(r)); diff != "" {
		t.Error(diff)
	}
	if r = s.compute(t, Input{Until: Until{Kind: UntilExit}}); !r.Reached || r.End != 900 {
		t.Errorf("until exit: %+v", r)
	}
}

func TestParseRejects(t *testing.T) {
	for _, s := range []string{"x", "a=b", "a=log:(", "a=open:[", "a=request:GET", "a=what:x", "=log:x"} {
		if _, err := ParseRule(s); err == nil {
			t.Errorf("rule %q was taken", s)
		}
	}
	for _, s := range []string{"later", "log=", "log=(", "symbol="} {
		if _, err := ParseUntil(s); err == nil {
			t.Errorf("end %q was taken", s)
		}
	}
}
