package lifecycle

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/traceagent"
)

func TestInvocation(t *testing.T) {
	var log bytes.Buffer
	spans := make(chan Span, 1)
	s, err := Listen("127.0.0.1:0", Hooks{Request: func() string { return "r1" }, Done: func(span Span) { spans <- span }}, logging.New(&log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	ask := func(method, path, body string, header ...string) *http.Response {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr().String()+path, strings.NewReader(body))
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp
	}
	if r := ask("GET", "/lambda/hello", ""); r.StatusCode != 200 {
		t.Error(r.Status)
	}
	r := ask("POST", "/lambda/start-invocation", `{"headers":{"x-datadog-trace-id":"7","X-Datadog-Parent-Id":"8","x-datadog-sampling-priority":"2","multi":["a"]}}`)
	if r.Header.Get(headerTrace) != "7" || r.Header.Get(headerPriority) != "2" || r.Header.Get(headerParent) == "8" {
		t.Errorf("%v", r.Header)
	}
	ask("POST", "/lambda/end-invocation", "{}", headerError, "true", headerError+"-Msg", "broken")
	span := <-spans
	if span.TraceID != 7 || span.ParentID != 8 || span.Priority != 2 || !span.Error || span.RequestID != "r1" || span.Duration <= 0 {
		t.Errorf("%+v", span)
	}
	var body []byte
	err = traceagent.Encode([]traceagent.Payload{{Version: "v0.4", Body: span.Payload("", "f")}}, traceagent.Identity{}, func(b []byte) { body = b })
	if err != nil || !bytes.Contains(body, []byte("aws.lambda")) || !bytes.Contains(body, []byte("broken")) {
		t.Errorf("%v %q", err, body)
	}
	r = ask("POST", "/lambda/start-invocation", "not JSON")
	if r.Header.Get(headerTrace) == "" || r.Header.Get(headerTrace) == "7" {
		t.Errorf("%v", r.Header)
	}
	ask("POST", "/lambda/end-invocation", "")
	<-spans
	ask("POST", "/lambda/end-invocation", "") // twice
	if !strings.Contains(log.String(), "had not started") {
		t.Error(log.String())
	}
	if r := ask("GET", "/lambda/end-invocation", ""); r.StatusCode != 405 {
		t.Error(r.Status)
	}
	if r := ask("POST", "/lambda/start-invocation", strings.Repeat("x", maxBody+1)); r.StatusCode != 413 {
		t.Error(r.Status)
	}
}

// Whoever inspects invocations gets the event when it comes, and the answer with
// the identifier of its request; of a function that failed, no answer.
func TestInspect(t *testing.T) {
	var told []string
	s, err := Listen("127.0.0.1:0", Hooks{
		Request: func() string { return "r1" }, Done: func(Span) {},
		Inspect: func(event []byte) func(string, []byte) {
			told = append(told, string(event))
			if string(event) == "of no interest" {
				return nil
			}
			return func(id string, answer []byte) { told = append(told, id+" "+string(answer)) }
		},
	}, logging.New(&bytes.Buffer{}, logging.Off))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(t.Context()) })
	post := func(path, body string, failed string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.Addr().String()+"/lambda/"+path, strings.NewReader(body))
		req.Header.Set(headerError, failed)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	post("start-invocation", "event", "")
	post("end-invocation", "answer", "")
	post("start-invocation", "of no interest", "")
	post("end-invocation", "answer", "")
	post("start-invocation", "event", "")
	post("end-invocation", "stack trace", "true")
	if got := strings.Join(told, "; "); got != "event; r1 answer; of no interest; event; r1 " {
		t.Error(got)
	}
}

// FuzzInvocation gives events and headers of any content to both ends.
func FuzzInvocation(f *testing.F) {
	f.Add(`{"headers":{"x-datadog-trace-id":"7","multi":["a"]}}`, "7", "-1")
	f.Add("[", "", "99999999999999999999")
	s, err := Listen("127.0.0.1:0", Hooks{Request: func() string { return "r" }, Done: func(span Span) {
		body := span.Payload("s", "f")
		if err := traceagent.Encode([]traceagent.Payload{{Version: "v0.4", Body: body}}, traceagent.Identity{}, func([]byte) {}); err != nil {
			f.Errorf("%+v: %v", span, err)
		}
	}}, logging.New(&bytes.Buffer{}, logging.Off))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close(context.Background()) })
	f.Fuzz(func(_ *testing.T, event, trace, priority string) {
		header := http.Header{headerTrace: {trace}, headerPriority: {priority}, headerError: {"true"}, headerError + "-Msg": {event}}
		s.start(httptest.NewRecorder(), http.Header{}, []byte(event))
		s.end(httptest.NewRecorder(), header, nil)
	})
}
