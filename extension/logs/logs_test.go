package logs

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/telemetry"
)

type sent struct {
	Message struct {
		Message string
		Status  string
		Lambda  struct {
			ARN       string
			RequestID string `json:"request_id"`
		}
		Timestamp int64
	}
	DDTags, DDSource, Service, Hostname string
}

func take(t *testing.T, c *Collector, all bool) (out []sent) {
	t.Helper()
	c.Take(all, func() Identity { return Identity{ARN: "arn", Service: "s", Tags: "a:b"} }, func(body []byte) {
		var some []sent
		if err := json.Unmarshal(body, &some); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		out = append(out, some...)
	})
	return out
}

func events(t *testing.T, text string) []telemetry.Event {
	t.Helper()
	e, bad, err := telemetry.Decode([]byte(text))
	if err != nil || bad != 0 {
		t.Fatal(err, bad)
	}
	return e
}

func TestCorrelation(t *testing.T) {
	c := &Collector{Log: logging.New(&bytes.Buffer{}, logging.Off)}
	c.Add(events(t, `[{"time":"2024-01-01T00:00:00Z","type":"function","record":"during init\n"}]`))
	if got := take(t, c, false); got != nil {
		t.Errorf("a line of INIT is sent before its invocation is known: %+v", got)
	}
	c.Add(events(t, `[{"time":"2024-01-01T00:00:01Z","type":"platform.start","record":{"requestId":"r1","version":"3"}},
		{"time":"2024-01-01T00:00:01.5Z","type":"function","record":"a \"line\""},
		{"time":"2024-01-01T00:00:01.5Z","type":"platform.future","record":{}},
		{"time":"2024-01-01T00:00:02Z","type":"platform.runtimeDone","record":{"requestId":"r1","status":"timeout","errorType":"Sandbox.Timedout"}},
		{"time":"2024-01-01T00:00:02Z","type":"platform.report","record":{"requestId":"r1","status":"timeout","metrics":{"durationMs":38.66,"billedDurationMs":39,"memorySizeMB":128,"maxMemoryUsedMB":54,"initDurationMs":203.69}}}]`))
	var got []string
	for _, s := range take(t, c, false) {
		got = append(got, s.Message.Lambda.RequestID+" "+s.Message.Status+" "+s.Message.Message)
		if s.DDSource != "lambda" || s.DDTags != "a:b" || s.Service != "s" || s.Hostname != "arn" {
			t.Errorf("%+v", s)
		}
	}
	want := []string{
		"r1 info during init",
		"r1 info START RequestId: r1 Version: 3",
		`r1 info a "line"`,
		"r1 error RequestId: r1 Status: timeout ErrorType: Sandbox.Timedout",
		"r1 info END RequestId: r1",
		"r1 info REPORT RequestId: r1 Duration: 38.66 ms Billed Duration: 39 ms Memory Size: 128 MB Max Memory Used: 54 MB Init Duration: 203.69 ms",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := take(t, c, true); again != nil || c.bytes != 0 {
		t.Errorf("%+v, %d bytes", again, c.bytes)
	}
}

func TestBounds(t *testing.T) {
	var log bytes.Buffer
	c := &Collector{Log: logging.New(&log, logging.Warn)}
	long, _ := json.Marshal(strings.Repeat("x", maxMessage+10))
	line := events(t, `[{"time":"2024-01-01T00:00:00Z","type":"function","record":`+string(long)+`}]`)
	for range 30 {
		c.Add(line)
	}
	var bodies [][]byte
	dropped := c.Take(true, func() Identity { return Identity{} }, func(body []byte) { bodies = append(bodies, body) })
	if dropped == 0 || len(bodies) < 4 || c.bytes != 0 {
		t.Errorf("%d requests, %d dropped, %d bytes left", len(bodies), dropped, c.bytes)
	}
	for _, b := range bodies {
		if len(b) > 5<<20 {
			t.Errorf("a request of %d bytes", len(b))
		}
	}
	if n := strings.Count(log.String(), "dropped"); n != 1 {
		t.Errorf("drops were told %d times", n)
	}
}
