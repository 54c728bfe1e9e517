package sandbox

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseLatency(t *testing.T) {
	tests := []struct {
		in   string
		want Latency
		out  string
	}{
		{"", Latency{}, "none"},
		{"none", Latency{}, "none"},
		{"lambda", Latency{CallRegister: 2 * time.Millisecond, CallTelemetry: 25 * time.Millisecond}, "register=2ms,telemetry=25ms"},
		{"register=2ms,telemetry=25ms", Latency{CallRegister: 2 * time.Millisecond, CallTelemetry: 25 * time.Millisecond}, "register=2ms,telemetry=25ms"},
		{" lambda , next=1ms ", Latency{CallRegister: 2 * time.Millisecond, CallTelemetry: 25 * time.Millisecond, CallNext: time.Millisecond}, "next=1ms,register=2ms,telemetry=25ms"},
		{"lambda,register=0", Latency{CallTelemetry: 25 * time.Millisecond}, "telemetry=25ms"},
		{"runtime_next = 1.5ms", Latency{CallRuntimeNext: 1500 * time.Microsecond}, "runtime_next=1.5ms"},
	}
	for _, test := range tests {
		got, err := ParseLatency(test.in)
		if err != nil {
			t.Errorf("%q: %v", test.in, err)
			continue
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", test.in, diff)
		}
		if got.String() != test.out {
			t.Errorf("%q: String %q, want %q", test.in, got, test.out)
		}
	}
	for _, in := range []string{"slow", "register", "register=", "register=2", "register=-1ms", "register=2h", "subscribe=1ms", "=1ms"} {
		if got, err := ParseLatency(in); err == nil {
			t.Errorf("%q: %v, want an error", in, got)
		}
	}
	if _, err := ParseLatency("lambda"); err != nil || len(lambdaLatency) != 2 {
		t.Error("parsing changed the preset")
	}
	if got := Latency(nil).String(); got != "none" {
		t.Errorf("nil: %q", got)
	}
}

func FuzzParseLatency(f *testing.F) {
	for _, s := range []string{"", "none", "lambda", "register=2ms,telemetry=25ms", "lambda,next=1us", "a=b", "register=9223372036854775807ns"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseLatency(s)
		if err != nil {
			return
		}
		again, err := ParseLatency(l.String())
		if err != nil {
			t.Fatalf("%q → %q: %v", s, l, err)
		}
		if again.String() != l.String() {
			t.Fatalf("%q → %q → %q", s, l, again)
		}
	})
}

// TestLatency asserts lower bounds only: how much later than asked a sleeping
// process is woken is the machine's business.
func TestLatency(t *testing.T) {
	latency := Latency{CallRegister: 3 * time.Millisecond, CallTelemetry: 5 * time.Millisecond, CallNext: 4 * time.Millisecond, CallExitError: 2 * time.Millisecond}
	s := serve(t, Config{Extensions: []string{"ext"}, Latency: latency})
	id := s.register("ext", bothEvents)
	s.do("PUT", pathTelem, subscribeBody(1), headerIdentifier, id)
	next := s.next(id)
	within(t, "InitDone", s.InitDone())
	time.Sleep(10 * time.Millisecond) // the wait for an event is no part of its latency
	go s.Invoke(context.Background(), nil)
	within(t, "INVOKE", next)
	s.do("POST", pathExitErr, "", headerIdentifier, id, headerErrorType, "Fatal.X")
	s.do("GET", "/2018-06-01/ping", "")

	sent := s.Times().Invokes
	want := map[string]Call{pathRegister: CallRegister, pathTelem: CallTelemetry, pathNext: CallNext, pathExitErr: CallExitError}
	for _, r := range s.Requests() {
		call, ok := want[r.Path]
		if !ok {
			continue
		}
		delete(want, r.Path)
		from := r.Received
		if call == CallNext && len(sent) > 0 {
			from = sent[0].Sent
		}
		if got := time.Duration(r.Answered - from); got < latency[call] {
			t.Errorf("%s answered after %s, want at least %s", call, got, latency[call])
		}
		if r.Extension != "ext" {
			t.Errorf("%s is ascribed to %q", call, r.Extension)
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the log: %v", want)
	}
}

func TestSleepUntil(t *testing.T) {
	for _, d := range []time.Duration{-time.Second, 0, 100 * time.Microsecond, 3 * time.Millisecond} {
		at := monotonic() + int64(d)
		if err := sleepUntil(context.Background(), at); err != nil {
			t.Fatal(err)
		}
		if now := monotonic(); now < at {
			t.Errorf("woke %s early", time.Duration(at-now))
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	time.AfterFunc(time.Millisecond, cancel)
	start := time.Now()
	if err := sleepUntil(ctx, monotonic()+int64(time.Hour)); !errors.Is(err, context.Canceled) || time.Since(start) > 5*time.Second {
		t.Errorf("canceled: %v after %s", err, time.Since(start))
	}
}
