package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask drives the handler without a network. Calls that would block end at once:
// their client is gone. answered is false for those.
func ask(t testing.TB, e *Env, method, path string, body []byte, header http.Header) (response *httptest.ResponseRecorder, answered bool) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, bytes.NewReader(body))
	if err != nil {
		return nil, false // no such request can be made
	}
	request.Header = header
	response = httptest.NewRecorder()
	defer func() {
		if r := recover(); r != nil {
			if err, ok := r.(error); !ok || !errors.Is(err, http.ErrAbortHandler) {
				panic(r)
			}
		}
	}()
	e.serveHTTP(response, request)
	return response, true
}

var fuzzEndpoints = []struct{ method, path string }{
	{"POST", pathRegister},
	{"GET", pathNext},
	{"POST", pathInitErr},
	{"POST", pathExitErr},
	{"PUT", pathTelem},
	{"PUT", "/2020-08-15/logs"},
	{"GET", pathRtNext},
	{"POST", pathRtInit},
	{"POST", pathRtInvoke + "ID/response"},
	{"POST", pathRtInvoke + "ID/error"},
	{"GET", "/2018-06-01/ping"},
	{"GET", "/elsewhere"},
}

// FuzzEndpoints puts arbitrary sequences of calls, with arbitrary headers and
// bodies, to one environment. Each byte of script is a call, and what its
// identifier and error type are. Whatever happens, the answer is one that
// Lambda knows, and the environment can be closed.
func FuzzEndpoints(f *testing.F) {
	f.Add([]byte{0, 1, 4, 6}, "ext", "Fatal.X", []byte(bothEvents))
	f.Add([]byte{0, 4, 1, 16 + 1, 6, 8, 9, 6}, "ext", "Function.Y", []byte(subscribeBody(8080)))
	f.Add([]byte{0, 16 + 4, 32 + 4, 2, 3, 3}, "other", "", []byte(`{"events":["INVOKE"],"types":[null]}`))
	f.Add([]byte{7, 6, 0, 11, 10, 5}, "\x00", "\n", []byte{})
	f.Fuzz(func(t *testing.T, script []byte, name, errorType string, body []byte) {
		e := newEnv(Config{Extensions: []string{"ext"}, ExternalRuntime: true, Timeout: time.Second, StrictNames: len(body)%2 == 0})
		defer func() {
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		}()
		e.relay.dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("no listener") }
		ids := []string{"", name, unknownID, e.extensions[0].id}
		for i, b := range script {
			if i > 20 {
				break
			}
			endpoint := fuzzEndpoints[int(b&0x0f)%len(fuzzEndpoints)]
			header := http.Header{}
			header.Set(headerName, name)
			header.Set(headerErrorType, errorType)
			header.Set(headerRuntimeErrorType, errorType)
			header.Set(headerIdentifier, ids[3-int(b>>4)%4])
			r, answered := ask(t, e, endpoint.method, endpoint.path, body, header)
			if answered {
				checkAnswer(t, endpoint.method+" "+endpoint.path, r.Code, r.Body.Bytes(), r.Header().Get("Content-Type"))
			}
			select {
			case <-e.InitDone():
				if e.InitOutcome().Status == InitSuccess && i%3 == 0 {
					ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
					e.Invoke(ctx, body)
					cancel()
				}
			default:
			}
		}
		if n := len(e.Requests()); n > 21 {
			t.Errorf("%d requests in the log", n)
		}
	})
}

// checkAnswer fails for an answer that no document of Lambda's has.
func checkAnswer(t *testing.T, call string, status int, body []byte, contentType string) {
	t.Helper()
	if !slices.Contains([]int{200, 202, 400, 403, 404, 405, 413}, status) {
		t.Errorf("%s: status %d", call, status)
	}
	if contentType == contentJSON && !json.Valid(body) && !strings.HasPrefix(call, "GET "+pathRtNext) {
		t.Errorf("%s: body %q is no JSON", call, body)
	}
	if status == 400 || status == 403 || status == 413 {
		var e errorResponse
		if err := json.Unmarshal(body, &e); err != nil || e.ErrorType == "" || e.ErrorMessage == "" {
			t.Errorf("%s: %d with body %q", call, status, body)
		}
	}
}

// FuzzRequest puts one arbitrary request to a fresh environment.
func FuzzRequest(f *testing.F) {
	for _, e := range fuzzEndpoints {
		f.Add(e.method, e.path, []byte(`{}`))
	}
	f.Add("GET", "/%zz", []byte{})
	f.Add("PATCH", "/2018-06-01/runtime/invocation//", []byte("x"))
	f.Fuzz(func(t *testing.T, method, path string, body []byte) {
		e := newEnv(Config{Extensions: []string{"ext"}})
		defer func() { _ = e.Close() }()
		header := http.Header{}
		header.Set(headerName, "ext")
		if r, answered := ask(t, e, method, path, body, header); answered && r != nil {
			checkAnswer(t, method+" "+path, r.Code, r.Body.Bytes(), r.Header().Get("Content-Type"))
		}
	})
}

// FuzzSubscription: what parseSubscription accepts keeps to Lambda's limits.
func FuzzSubscription(f *testing.F) {
	f.Add([]byte(subscribeBody(8080)))
	f.Add([]byte(`{"schemaVersion":"2025-01-29","types":["platform"],"destination":{"protocol":"TCP","port":1}}`))
	f.Add([]byte(`{"schemaVersion":"2022-07-01","types":["function"],"buffering":{"maxItems":1e3},"destination":{"protocol":"HTTP","URI":"http://sandbox:1"}}`))
	f.Add([]byte(`{"buffering":{"timeoutMs":null}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		s, err := parseSubscription(body)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		if s.maxItems < 1000 || s.maxItems > 10000 || s.maxBytes < 262144 || s.maxBytes > 1048576 ||
			s.timeout < 25*time.Millisecond || s.timeout > 30*time.Second || len(s.types) == 0 || len(s.types) > 3 ||
			s.port == 0 || s.port == runtimeAPIPort {
			t.Errorf("%s → %+v", body, s)
		}
		if !s.tcp {
			if _, err := http.NewRequest("POST", "http://"+s.host+s.path, nil); err != nil {
				t.Errorf("%s → %+v: %v", body, s, err)
			}
		}
	})
}

// FuzzWire puts arbitrary bytes to a connection: the server answers or closes,
// and does not hang after the client has closed its side.
func FuzzWire(f *testing.F) {
	f.Add(rawRequest("POST", pathRegister, bothEvents, headerName, "ext"))
	f.Add(append(rawRequest("GET", "/2018-06-01/ping", ""), rawRequest("GET", pathRtNext, "")...))
	f.Add([]byte("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	f.Add([]byte("GET / HTTP/1.0\r\n\r\n"))
	f.Fuzz(func(t *testing.T, sent []byte) {
		e := newEnv(Config{Extensions: []string{"ext"}})
		listener := &pipeListener{conns: make(chan net.Conn, 1), closed: make(chan struct{})}
		client, server := net.Pipe()
		listener.conns <- server
		served := make(chan error, 1)
		go func() { served <- e.Serve(listener) }()
		go func() {
			_, _ = client.Write(sent)
			_ = client.Close()
		}()
		_, _ = io.Copy(io.Discard, client)
		if err := e.Close(); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}
