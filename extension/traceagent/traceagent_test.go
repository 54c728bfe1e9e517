package traceagent

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/initprof/initprof/extension/logging"
)

func TestServer(t *testing.T) {
	var log bytes.Buffer
	s, err := Listen("127.0.0.1:0", logging.New(&log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	base := "http://" + s.Addr().String()
	ask := func(method, path, body string) (int, string) {
		t.Helper()
		req, _ := http.NewRequestWithContext(t.Context(), method, base+path, strings.NewReader(body))
		req.Header.Set("Content-Type", "application/msgpack")
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		answer, _ := io.ReadAll(resp.Body)
		return resp.StatusCode, string(answer)
	}
	if code, body := ask("GET", "/info", ""); code != 200 || !strings.Contains(body, "/v0.5/traces") {
		t.Error(code, body)
	}
	for _, path := range []string{"/v0.4/traces", "/v0.5/traces"} {
		if code, body := ask("PUT", path, "\x90"); code != 200 || !strings.Contains(body, "rate_by_service") {
			t.Error(path, code, body)
		}
	}
	if code, _ := ask("GET", "/v0.4/traces", ""); code != 405 {
		t.Error(code)
	}
	for path, want := range map[string]int{
		"/v0.6/stats": 202, "/telemetry/proxy/api/v2/apmtelemetry": 202, "/v0.1/pipeline_stats": 202, // taken, not forwarded
		"/v0.7/config": 404, "/profiling/v1/input": 404, "/evp_proxy/v2/api/v2/llmobs": 404, "/nowhere": 404, // not listed by /info
	} {
		if code, _ := ask("POST", path, "\x80"); code != want {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code, _ := ask("PUT", "/v0.4/traces", strings.Repeat("x", maxBody+1)); code != 413 {
		t.Error(code)
	}
	payloads, dropped := s.Take()
	if len(payloads) != 2 || dropped != 0 || payloads[1].Version != "v0.5" || string(payloads[0].Body) != "\x90" {
		t.Errorf("%+v %d", payloads, dropped)
	}
	s.bytes = maxBytes
	if code, _ := ask("PUT", "/v0.4/traces", "\x90"); code != 429 {
		t.Error(code)
	}
	if _, dropped := s.Take(); dropped != 1 || !strings.Contains(log.String(), "dropped") {
		t.Errorf("%d dropped; %s", dropped, log.String())
	}
	if _, err := Listen(s.Addr().String(), nil); err == nil {
		t.Error("a port in use is accepted")
	}
}
