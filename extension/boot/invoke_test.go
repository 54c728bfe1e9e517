package boot

import (
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const (
	pathNext      = "/2020-01-01/extension/event/next"
	pathRegister  = "/2020-01-01/extension/register"
	pathTelemetry = "/2022-07-01/telemetry"
)

func (w *world) nexts() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := 0
	for _, path := range w.asked {
		if strings.HasSuffix(path, pathNext) {
			n++
		}
	}
	return n
}

// TestNothingIsWaitedFor: where nothing is flushed at the end of an invocation,
// the extension asks for the next event while the function still runs, so that
// the environment never waits for it.
func TestNothingIsWaitedFor(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no key":       {"DD_API_KEY": ""},
		"periodically": {"DD_SERVERLESS_FLUSH_STRATEGY": "periodically,60000"},
	} {
		w := newWorld(t)
		for k, v := range env {
			w.env[k] = v
		}
		w.during = func() {
			for i := 0; w.nexts() < 2; i++ {
				if i == 5000 {
					t.Errorf("%s: the extension waits for the end of the function", name)
					return
				}
				time.Sleep(time.Millisecond)
			}
		}
		if code := w.run(t.Context()); code != 0 {
			t.Errorf("%s: exit status %d\n%s", name, code, w.logs.String())
		}
		if said := strings.Contains(w.logs.String(), "no DD_API_KEY"); said != (name == "no key") {
			t.Errorf("%s: the log says\n%s", name, w.logs.String())
		}
		if sent := len(w.series) > 0; sent != (name != "no key") {
			t.Errorf("%s: sent %q", name, w.series)
		}
	}
}

// TestEndOfInvocation: by default, what an invocation has made is with the intake
// before the environment may freeze.
func TestEndOfInvocation(t *testing.T) {
	w := newWorld(t)
	w.first = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == pathNext && w.nexts() == 2 {
			w.mu.Lock()
			defer w.mu.Unlock()
			all := strings.Join(w.series, "\n")
			for _, want := range []string{`"orders"`, "_dd.tags.function", "END RequestId: r1"} {
				if !strings.Contains(all, want) {
					t.Errorf("no %s when the second event was asked for", want)
				}
			}
		}
		return false
	}
	if code := w.run(t.Context()); code != 0 {
		t.Errorf("exit status %d\n%s", code, w.logs.String())
	}
}

// TestEarlyEventsAreKept: under h2 the environment may deliver before it has
// answered the subscription.
func TestEarlyEventsAreKept(t *testing.T) {
	for _, set := range []string{"none", "h2", "h18", "all"} {
		w := newWorld(t)
		w.env["INITPROF_EXTENSION_CHANGES"] = set
		port := regexp.MustCompile(`sandbox\.localdomain:(\d+)`)
		w.first = func(_ http.ResponseWriter, r *http.Request, body []byte) bool {
			if r.URL.Path != pathTelemetry {
				return false
			}
			resp, err := http.Post("http://127.0.0.1:"+port.FindStringSubmatch(string(body))[1], "application/json", strings.NewReader(
				`[{"time":"2024-01-01T00:00:00Z","type":"function","record":"an early line"}]`))
			if err != nil {
				t.Errorf("%s: %v", set, err)
				return false
			}
			_ = resp.Body.Close()
			return false
		}
		if code := w.run(t.Context()); code != 0 || !strings.Contains(strings.Join(w.series, "\n"), "an early line") {
			t.Errorf("%s: exit status %d, sent %q", set, code, w.series)
		}
	}
}

// TestSpans: whatever overlaps, each subsystem's span is there once and shows its
// own cost.
func TestSpans(t *testing.T) {
	const slow = 30 * time.Millisecond
	line := regexp.MustCompile(`(?m)span (\w+) id=1 own_ms=(\d+\.\d+)`)
	for _, set := range []string{"none", "h2", "h4", "all"} {
		w := newWorld(t)
		w.env["INITPROF_EXTENSION_CHANGES"] = set
		w.first = func(_ http.ResponseWriter, r *http.Request, _ []byte) bool {
			if r.URL.Path == pathRegister || r.URL.Path == pathTelemetry {
				time.Sleep(slow)
			}
			return false
		}
		if code := w.run(t.Context()); code != 0 {
			t.Fatalf("%s: exit status %d\n%s", set, code, w.logs.String())
		}
		own := map[string]float64{}
		var order []string
		for _, m := range line.FindAllStringSubmatch(w.logs.String(), -1) {
			own[m[1]], _ = strconv.ParseFloat(m[2], 64)
			order = append(order, m[1])
		}
		got := slices.Sorted(slices.Values(order))
		want := []string{"config", "dogstatsd", "lifecycle", "register", "shared_client", "telemetry_subscribe", "tls_client", "trace_agent"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: each span once: %s", set, diff)
		}
		for _, name := range []string{"register", "telemetry_subscribe"} {
			if own[name] < float64(slow)/1e6 {
				t.Errorf("%s: %s took %v ms of its own, the answer %v", set, name, own[name], slow)
			}
		}
		before := func(a, b string) bool { return slices.Index(order, a) < slices.Index(order, b) }
		// Overlapped or not, what does not wait for the answer ends first.
		if !before("config", "register") || !before("shared_client", "register") {
			t.Errorf("%s: register ended before what does not depend on it: %q", set, order)
		}
		if overlapped := before("trace_agent", "telemetry_subscribe") && before("lifecycle", "telemetry_subscribe"); !overlapped {
			t.Errorf("%s: the services waited for the subscription: %q", set, order)
		}
	}
}

// TestErrorsAreReported: the environment is told why the extension ends.
func TestErrorsAreReported(t *testing.T) {
	w := newWorld(t)
	w.first = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != pathNext || w.nexts() < 2 {
			return false
		}
		http.Error(rw, `{"errorType":"Extension.InvalidState","errorMessage":"not now"}`, http.StatusForbidden)
		return true
	}
	if code := w.run(t.Context()); code != 1 || len(w.errors) != 1 ||
		!strings.HasPrefix(w.errors[0], "Extension.NextFailed ") || !strings.Contains(w.errors[0], "not now") {
		t.Errorf("exit status %d, told %q", code, w.errors)
	}
	if !slices.Contains(w.asked, "POST /2020-01-01/extension/exit/error") || !strings.Contains(strings.Join(w.series, "\n"), `"orders"`) {
		t.Errorf("asked %q, sent %q", w.asked, w.series)
	}
}

// TestSecondRegister: the environment refuses an extension that has registered
// already, or too late.
func TestSecondRegister(t *testing.T) {
	w := newWorld(t)
	w.first = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path != pathRegister {
			return false
		}
		http.Error(rw, `{"errorType":"Extension.AlreadyRegistered","errorMessage":"has registered already"}`, http.StatusForbidden)
		return true
	}
	if code := w.run(t.Context()); code != 1 || !strings.Contains(w.logs.String(), "Extension.AlreadyRegistered: has registered already") {
		t.Errorf("exit status %d\n%s", code, w.logs.String())
	}
}

// TestUnknownEvents are passed over, one of the API and one of telemetry.
func TestUnknownEvents(t *testing.T) {
	w := newWorld(t)
	w.first = func(rw http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.URL.Path == pathNext && w.nexts() == 1 {
			_, _ = io.WriteString(rw, `{"eventType":"FROM_THE_FUTURE"}`)
			return true
		}
		return false
	}
	w.during = func() {
		w.mu.Lock()
		telemetry := w.telemetry
		w.mu.Unlock()
		resp, err := http.Post(telemetry, "application/json", strings.NewReader(`[7,{"time":"2024-01-01T00:00:00Z","type":"platform.future","record":[]},`+
			`{"time":"2024-01-01T00:00:00Z","type":"function","record":"beside it"}]`))
		if err != nil {
			t.Error(err)
			return
		}
		_ = resp.Body.Close()
	}
	if code := w.run(t.Context()); code != 0 || !strings.Contains(w.logs.String(), "FROM_THE_FUTURE") ||
		!strings.Contains(strings.Join(w.series, "\n"), "beside it") {
		t.Errorf("exit status %d\n%s\n%q", code, w.logs.String(), w.series)
	}
}

// TestSecretsAreHidden: the key comes from a file, and the proxy has a password;
// nothing can be sent, and is complained of at length.
func TestSecretsAreHidden(t *testing.T) {
	w := newWorld(t)
	w.env["DD_DD_URL"] = "https://user:the-password@127.0.0.1:1/path"
	w.env["DD_APM_DD_URL"] = "https://trace.invalid"
	w.env["DD_PROXY_HTTPS"] = "http://someone:another-password@127.0.0.1:1"
	w.env["DD_TAGS"] = "leak:the-secret-key"
	if code := w.run(t.Context()); code != 1 {
		t.Errorf("exit status %d", code)
	}
	text := w.logs.String()
	if strings.Contains(text, "password") || !strings.Contains(text, "could not be sent") {
		t.Error(text)
	}
}

// TestSummary: at debug level, one line of JSON carries all nine checkpoints.
func TestSummary(t *testing.T) {
	w := newWorld(t)
	if code := w.run(t.Context()); code != 0 {
		t.Fatal(code)
	}
	i := strings.Index(w.logs.String(), `{"checkpoints":[`)
	if i < 0 {
		t.Fatal(w.logs.String())
	}
	line, _, _ := strings.Cut(w.logs.String()[i:], "\n")
	for _, name := range h0 {
		if !strings.Contains(line, fmt.Sprintf("%q", name)) {
			t.Errorf("no %s in %s", name, line)
		}
	}
	if n := strings.Count(line, "minor_faults"); n != len(h0) {
		t.Errorf("%d records", n)
	}
}
