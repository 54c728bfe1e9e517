package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func subscribeBody(port int) string {
	return fmt.Sprintf(`{"schemaVersion":"2022-12-13","types":["platform","function","extension"],
		"buffering":{"maxItems":1000,"maxBytes":262144,"timeoutMs":25},
		"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:%d/"}}`, port)
}

// delivered is one event as a subscriber gets it.
type delivered struct {
	Time   string
	Type   string
	Record json.RawMessage
}

// collector is a telemetry listener, written against AWS's documents and with
// nothing of the sandbox's own.
type collector struct {
	*httptest.Server
	port int

	mu      sync.Mutex
	events  []delivered
	batches []int // events in each POST
	paths   []string
	refuse  int           // so many POSTs are refused first
	block   chan struct{} // POSTs wait for it, when not nil
	bad     []string
}

func collect(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	c.port = c.Listener.Addr().(*net.TCPAddr).Port
	return c
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	c.mu.Lock()
	block := c.block
	c.mu.Unlock()
	if block != nil {
		select {
		case <-block:
		case <-r.Context().Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refuse > 0 {
		c.refuse--
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var events []delivered
	if err != nil || r.Method != "POST" || r.Header.Get("Content-Type") != "application/json" || json.Unmarshal(body, &events) != nil {
		c.bad = append(c.bad, fmt.Sprintf("%s %v %s", r.Method, r.Header, body))
	}
	c.events = append(c.events, events...)
	c.batches = append(c.batches, len(events))
	c.paths = append(c.paths, r.URL.RequestURI())
}

// types are the types of the events so far, in order.
func (c *collector) types() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var list []string
	for _, e := range c.events {
		list = append(list, e.Type)
	}
	return list
}

// record waits for the first event of a type and returns its record.
func (c *collector) record(t *testing.T, kind string) map[string]any {
	t.Helper()
	var record map[string]any
	eventually(t, kind, func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		for _, e := range c.events {
			if e.Type != kind {
				continue
			}
			if _, err := time.Parse("2006-01-02T15:04:05.000Z", e.Time); err != nil {
				t.Errorf("%s: %v", kind, err)
			}
			if err := json.Unmarshal(e.Record, &record); err != nil {
				t.Errorf("%s: %s: %v", kind, e.Record, err)
			}
			return true
		}
		return false
	})
	return record
}

// TestLife takes two extensions, a function and a telemetry listener through
// INIT, an invoke and a shutdown.
func TestLife(t *testing.T) {
	c := collect(t)
	s := serve(t, Config{
		Extensions: []string{"agent", "tiny"}, ExternalRuntime: true, FunctionName: "hello", MemoryMB: 512,
		MemoryUsed: func() int64 { return 77 << 20 },
	})
	for _, name := range []string{"agent", "tiny"} {
		if err := s.ReleaseExtension(name); err != nil {
			t.Fatal(err)
		}
	}
	s.LogLine("agent", "starting\n") // before anybody subscribed
	agent := s.register("agent", bothEvents)
	if a := s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, agent); a.status != 200 || a.body != `"OK"` {
		t.Fatalf("subscribe: %d %s", a.status, a.body)
	}
	tiny := s.register("tiny", `{"events":["INVOKE"]}`)
	within(t, "Registered", s.Registered())
	s.ReleaseRuntime()
	agentNext, tinyNext := s.next(agent), s.next(tiny)
	runtimeNext := s.later("GET", pathRtNext, "")
	within(t, "InitDone", s.InitDone())
	if got := s.SubscribeOutcome("agent"); got != SubscribeOK {
		t.Errorf("agent's subscription: %s", got)
	}
	if got := s.SubscribeOutcome("tiny"); got != SubscribeNone {
		t.Errorf("tiny's subscription: %s", got)
	}

	late := s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, tiny)
	if want := errorBody("Telemetry.SubscriptionClosed", "Telemetry API subscription is closed already"); late.status != 403 || late.body != want {
		t.Errorf("late subscription: %d %s", late.status, late.body)
	}
	if got := s.SubscribeOutcome("tiny"); got != SubscribeRefused {
		t.Errorf("tiny's subscription: %s", got)
	}

	done := s.invokeLater(`{}`)
	id := within(t, "event", runtimeNext).header.Get("Lambda-Runtime-Aws-Request-Id")
	within(t, "INVOKE", agentNext)
	within(t, "INVOKE", tinyNext)
	s.LogLine(Runtime, "hello from the function")
	s.do("POST", pathRtInvoke+id+"/response", `"ok"`)
	s.later("GET", pathRtNext, "")
	eventually(t, "the runtime asks for next", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.runtime.machine.at == stateReady
	})
	agentNext, tinyNext = s.next(agent), s.next(tiny)
	if r := within(t, "Invoke", done); r.Err != nil {
		t.Fatal(r.Err)
	}
	shut := make(chan ShutdownResult, 1)
	go func() { shut <- s.Shutdown(context.Background(), ReasonSpindown, 100*time.Millisecond) }()
	within(t, "SHUTDOWN", agentNext)
	report := c.record(t, "platform.report") // before agent ends
	s.ProcessExited("agent", nil)
	if r := within(t, "Shutdown", shut); strings.Join(r.Remaining, ",") != "tiny," {
		t.Errorf("shutdown %+v", r)
	}
	select {
	case a := <-tinyNext:
		t.Errorf("tiny got %+v", a)
	default:
	}

	want := []string{
		"platform.initStart", "extension", "platform.telemetrySubscription", "platform.initRuntimeDone",
		"platform.extension", "platform.extension", "platform.initReport",
		"platform.start", "function", "platform.runtimeDone", "platform.report",
	}
	got := c.types()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if len(c.bad) > 0 {
		t.Errorf("deliveries that are not as documented: %q", c.bad)
	}

	times := s.Times()
	check := func(kind string, record map[string]any, want map[string]any) {
		t.Helper()
		for k, v := range want {
			if diff := cmp.Diff(v, record[k]); diff != "" {
				t.Errorf("%s %s (-want +got):\n%s", kind, k, diff)
			}
		}
	}
	check("initStart", c.record(t, "platform.initStart"), map[string]any{
		"initializationType": "on-demand", "phase": "init", "functionName": "hello", "functionVersion": "$LATEST", "instanceMaxMemory": 512.0,
	})
	check("telemetrySubscription", c.record(t, "platform.telemetrySubscription"), map[string]any{
		"name": "agent", "state": "Subscribed", "types": []any{"platform", "function", "extension"},
	})
	check("initRuntimeDone", c.record(t, "platform.initRuntimeDone"), map[string]any{"status": "success", "phase": "init", "errorType": nil})
	check("extension", c.record(t, "platform.extension"), map[string]any{"name": "agent", "state": "Ready", "events": []any{"INVOKE", "SHUTDOWN"}})
	check("initReport", c.record(t, "platform.initReport"), map[string]any{
		"initializationType": "on-demand", "phase": "init", "status": "success",
		"metrics": map[string]any{"durationMs": milliseconds(times.Init())},
	})
	check("start", c.record(t, "platform.start"), map[string]any{"requestId": id, "version": "$LATEST"})
	done1 := c.record(t, "platform.runtimeDone")
	check("runtimeDone", done1, map[string]any{"requestId": id, "status": "success", "errorType": nil})
	check("runtimeDone", done1["metrics"].(map[string]any), map[string]any{
		"producedBytes": 4.0, "durationMs": millisecondsBetween(times.Invokes[0].Sent, times.Invokes[0].RuntimeDone),
	})
	check("report", report, map[string]any{"requestId": id, "status": "success"})
	check("report", report["metrics"].(map[string]any), map[string]any{
		"memorySizeMB": 512.0, "maxMemoryUsedMB": 77.0, "initDurationMs": milliseconds(times.Init()),
	})
	var names []string
	for _, span := range append(done1["spans"].([]any), report["spans"].([]any)...) {
		names = append(names, span.(map[string]any)["name"].(string))
	}
	if diff := cmp.Diff([]string{"responseLatency", "responseDuration", "runtimeOverhead", "extensionOverhead"}, names); diff != "" {
		t.Errorf("spans (-want +got):\n%s", diff)
	}
}

// TestSubscribeRefused covers what is wrong with a subscription.
func TestSubscribeRefused(t *testing.T) {
	body := func(version, types, buffering, destination string) string {
		return `{"schemaVersion":` + version + `,"types":` + types + `,"buffering":` + buffering + `,"destination":` + destination + `}`
	}
	const (
		v, all = `"2022-12-13"`, `["platform"]`
		here   = `{"protocol":"HTTP","URI":"http://sandbox.localdomain:8080"}`
	)
	tests := []struct{ name, body, want string }{
		{"AWS's example", body(v, `[]`, `{}`, `{"protocol":"HTTP","URI":"http://sandbox.localdomain/"}`), "URI port is not provided; types should not be empty"},
		{"empty", ``, "request body is not a subscription: unexpected end of JSON input"},
		{"no object", `[]`, "request body is not a subscription: json: cannot unmarshal array into Go value"},
		{"nothing", `{}`, `destination protocol is not provided; types should not be empty; schemaVersion "" is not supported; expected one of 2025-01-29, 2022-12-13, 2022-07-01`},
		{"version", body(`"2020-08-15"`, all, `{}`, here), `schemaVersion "2020-08-15" is not supported; expected one of 2025-01-29, 2022-12-13, 2022-07-01`},
		{"type", body(v, `["logs"]`, `{}`, here), `type "logs" is not supported; expected platform, function or extension`},
		{"types twice", body(v, `["platform","platform"]`, `{}`, here), "types should be unique"},
		{"few items", body(v, all, `{"maxItems":999}`, here), "maxItems should be between 1000 and 10000"},
		{"many items", body(v, all, `{"maxItems":10001}`, here), "maxItems should be between 1000 and 10000"},
		{"few bytes", body(v, all, `{"maxBytes":262143}`, here), "maxBytes should be between 262144 and 1048576"},
		{"many bytes", body(v, all, `{"maxBytes":1048577}`, here), "maxBytes should be between 262144 and 1048576"},
		{"short", body(v, all, `{"timeoutMs":24}`, here), "timeoutMs should be between 25 and 30000"},
		{"long", body(v, all, `{"timeoutMs":30001}`, here), "timeoutMs should be between 25 and 30000"},
		{"fraction", body(v, all, `{"timeoutMs":25.5}`, here), "timeoutMs should be between 25 and 30000"},
		{"https", body(v, all, `{}`, `{"protocol":"HTTP","URI":"https://sandbox.localdomain:8080"}`), "URI scheme should be http"},
		{"elsewhere", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://example.com:8080"}`), "URI host should be sandbox.localdomain"},
		{"loopback", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://127.0.0.1:8080"}`), "URI host should be sandbox.localdomain"},
		{"port 0", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://sandbox.localdomain:0"}`), "URI port should be between 1 and 65535"},
		{"port 65536", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://sandbox.localdomain:65536"}`), "URI port should be between 1 and 65535"},
		{"own port", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://sandbox.localdomain:9001"}`), "port 9001 is reserved"},
		{"malformed", body(v, all, `{}`, `{"protocol":"HTTP","URI":"http://[::1"}`), "URI is malformed"},
		{"no URI", body(v, all, `{}`, `{"protocol":"HTTP"}`), "URI is not provided"},
		{"protocol", body(v, all, `{}`, `{"protocol":"UDP"}`), `destination protocol "UDP" is not supported; expected HTTP or TCP`},
		{"TCP", body(v, all, `{}`, `{"protocol":"TCP"}`), "port should be between 1 and 65535"},
	}
	s := serve(t, Config{Extensions: []string{"ext"}})
	id := s.register("ext", bothEvents)
	for _, test := range tests {
		a := s.do("PUT", pathTelem, test.body, headerIdentifier, id)
		var e errorResponse
		if err := json.Unmarshal([]byte(a.body), &e); err != nil || a.status != 400 || e.ErrorType != "ValidationError" || !strings.HasPrefix(e.ErrorMessage, test.want) {
			t.Errorf("%s: %d %s, want 400 %q", test.name, a.status, a.body, test.want)
		}
	}
	if got := s.SubscribeOutcome("ext"); got != SubscribeRefused {
		t.Errorf("outcome %q", got)
	}
	for _, accepted := range []string{
		body(`"2025-01-29"`, all, `{}`, `{"protocol":"HTTP","URI":"http://sandbox:8080/path?q=1"}`),
		body(`"2022-07-01"`, all, `{"maxItems":10000,"maxBytes":1048576,"timeoutMs":30000}`, here),
		body(v, all, `{}`, `{"protocol":"TCP","port":8080}`),
		`{"schemaVersion":"2022-12-13","types":["function"],"destination":` + here + `}`,
	} {
		if a := s.do("PUT", pathTelem+"/", accepted, headerIdentifier, id); a.status != 200 {
			t.Errorf("%s: %d %s", accepted, a.status, a.body)
		}
	}
}

func TestSubscriptionDefaults(t *testing.T) {
	got, err := parseSubscription([]byte(`{"schemaVersion":"2022-12-13","types":["platform"],"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:8999/a?b=c"}}`))
	if err != nil {
		t.Fatal(err)
	}
	want := subscription{types: []string{"platform"}, maxItems: 10000, maxBytes: 262144, timeout: time.Second, port: 8999, path: "/a?b=c", host: "sandbox.localdomain:8999"}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(subscription{})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestFailureReported: subscribers hear of an INIT and of invokes that fail.
func TestFailureReported(t *testing.T) {
	t.Run("INIT", func(t *testing.T) {
		c := collect(t)
		s := serve(t, Config{Extensions: []string{"ext", "other"}, ExternalRuntime: true})
		id, other := s.register("ext", bothEvents), s.register("other", bothEvents)
		s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, id)
		s.do("POST", pathInitErr, "{}", headerIdentifier, other, headerErrorType, "Fatal.X")
		for _, kind := range []string{"platform.initRuntimeDone", "platform.initReport"} {
			if r := c.record(t, kind); r["status"] != "error" || r["errorType"] != "Extension.InitError" {
				t.Errorf("%s: %v", kind, r)
			}
		}
	})
	t.Run("invoke", func(t *testing.T) {
		c := collect(t)
		s := serve(t, Config{Extensions: []string{"ext"}, Timeout: 20 * time.Millisecond})
		id := s.register("ext", bothEvents)
		s.do("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, id)
		s.next(id)
		within(t, "InitDone", s.InitDone())
		within(t, "Invoke", s.invokeLater("{}")) // ext never asks for next again
		if r := c.record(t, "platform.runtimeDone"); r["status"] != "success" {
			t.Errorf("runtimeDone: %v", r)
		}
		if r := c.record(t, "platform.report"); r["status"] != "timeout" || r["errorType"] != "Sandbox.Timeout" {
			t.Errorf("report: %v", r)
		}
	})
}
