package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/initprof/initprof/extension/logging"
)

// watcher writes down what it is told.
type watcher struct {
	mu   sync.Mutex
	told []string
}

func (w *watcher) tell(what, id string, body []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	text := string(body)
	if len(text) > 100 {
		text = fmt.Sprint(len(text), " bytes")
	}
	if body == nil {
		text = "nothing"
	}
	w.told = append(w.told, what+" "+id+" "+text)
}

func (w *watcher) Event(id string, event []byte) { w.tell("event", id, event) }
func (w *watcher) Answer(id string, body []byte) { w.tell("answer", id, body) }

func (w *watcher) take() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := strings.Join(w.told, "; ")
	w.told = nil
	return told
}

// start puts a proxy before a Runtime API.
func start(t *testing.T, api http.HandlerFunc) (base string, w *watcher, log *bytes.Buffer) {
	t.Helper()
	upstream := httptest.NewServer(api)
	t.Cleanup(upstream.Close)
	w, log = &watcher{}, &bytes.Buffer{}
	s, err := Listen("127.0.0.1:0", upstream.Listener.Addr().String(), w, logging.New(log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return "http://" + s.Addr().String(), w, log
}

func send(t *testing.T, method, url string, body io.Reader) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Lambda-Runtime-Function-Xray-Error-Cause", "kept")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(text)
}

const invocations = "/2018-06-01/runtime/invocation/"

func TestInvocation(t *testing.T) {
	base, w, _ := start(t, func(rw http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Header.Get("X-Forwarded-For") != "" {
			t.Errorf("%v", r.Header)
		}
		switch r.URL.Path {
		case invocations + "next":
			rw.Header().Set("Lambda-Runtime-Aws-Request-Id", "r1")
			_, _ = io.WriteString(rw, `{"path":"/"}`)
		default:
			rw.Header().Set("Asked", r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Lambda-Runtime-Function-Xray-Error-Cause")+" "+string(body))
			rw.WriteHeader(http.StatusAccepted)
		}
	})
	resp, body := send(t, "GET", base+invocations+"next", nil)
	if body != `{"path":"/"}` || resp.Header.Get("Lambda-Runtime-Aws-Request-Id") != "r1" {
		t.Errorf("%v %s", resp.Header, body)
	}
	if got := w.take(); got != `event r1 {"path":"/"}` {
		t.Error(got)
	}
	for _, c := range []struct {
		method, path string
		body         io.Reader
		asked, told  string
	}{
		{"POST", invocations + "r1/response", strings.NewReader("{}"), "kept {}", "answer r1 {}"},
		{"POST", invocations + "r2/response", struct{ io.Reader }{strings.NewReader("chunks")}, "kept chunks", "answer r2 chunks"},
		{"POST", invocations + "r3/response", nil, "kept", "answer r3 "},
		{"POST", invocations + "r4/error", strings.NewReader("broken"), "kept broken", "answer r4 nothing"},
		{"POST", "/2018-06-01/runtime/init/error?a=b", strings.NewReader("x"), "kept x", ""},
		{"GET", "/anything/else", nil, "kept", ""},
	} {
		resp, _ := send(t, c.method, base+c.path, c.body)
		if want := c.method + " " + c.path + " " + c.asked; resp.StatusCode != http.StatusAccepted || strings.TrimSpace(resp.Header.Get("Asked")) != want {
			t.Errorf("%s\n got %s\nwant %s", resp.Status, resp.Header.Get("Asked"), want)
		}
		if got := w.take(); got != c.told {
			t.Errorf("%s: told %q, want %q", c.path, got, c.told)
		}
	}
}

// Both directions pass whole, whatever their size; the watcher gets no more than
// its share.
func TestLargeBodies(t *testing.T) {
	large := strings.Repeat("x", maxCopy+1)
	base, w, _ := start(t, func(rw http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		rw.Header().Set("Asked", fmt.Sprint(n))
		_, _ = io.WriteString(rw, large)
	})
	if _, body := send(t, "GET", base+invocations+"next", nil); body != large {
		t.Errorf("%d bytes arrived", len(body))
	}
	resp, _ := send(t, "POST", base+invocations+"r1/response", strings.NewReader(large))
	if got := w.take(); resp.Header.Get("Asked") != fmt.Sprint(len(large)) || got != "answer r1 nothing" {
		t.Errorf("%s of %d bytes arrived; told %s", resp.Header.Get("Asked"), len(large), got)
	}
}

// A streamed answer reaches the environment while the function still writes it.
func TestStreaming(t *testing.T) {
	first := make(chan string, 1)
	base, w, _ := start(t, func(_ http.ResponseWriter, r *http.Request) {
		b := make([]byte, 5)
		_, _ = io.ReadFull(r.Body, b)
		first <- string(b)
		_, _ = io.Copy(io.Discard, r.Body)
	})
	in, out := io.Pipe()
	go func() {
		_, _ = io.WriteString(out, "first")
		select {
		case got := <-first:
			if got != "first" {
				t.Error(got)
			}
		case <-time.After(10 * time.Second):
			t.Error("the beginning is held back")
		}
		_, _ = io.WriteString(out, " last")
		_ = out.Close()
	}()
	send(t, "POST", base+invocations+"r1/response", in)
	if got := w.take(); got != "answer r1 first last" {
		t.Error(got)
	}
}

func TestAbsentRuntimeAPI(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody := l.Addr().String()
	_ = l.Close()
	var log bytes.Buffer
	s, err := Listen("127.0.0.1:0", nobody, &watcher{}, logging.New(&log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	resp, _ := send(t, "GET", "http://"+s.Addr().String()+invocations+"next", nil)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if resp.StatusCode != http.StatusBadGateway || !strings.Contains(log.String(), "runtime API proxy") {
		t.Errorf("%s %s", resp.Status, log.String())
	}
	if _, err := Listen("256.0.0.1:0", nobody, nil, nil); err == nil {
		t.Error("an address that is none is bound")
	}
}

// Closing does not wait for the runtime's next, which is never answered.
func TestCloseWhileNextWaits(t *testing.T) {
	asked, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { close(asked); <-end }))
	var log bytes.Buffer
	s, err := Listen("127.0.0.1:0", upstream.Listener.Addr().String(), &watcher{}, logging.New(&log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		if resp, err := http.Get("http://" + s.Addr().String() + invocations + "next"); err == nil {
			_ = resp.Body.Close()
		}
		close(ended)
	}()
	<-asked
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Error("next still waits")
	}
}

func TestWanted(t *testing.T) {
	for _, c := range []struct{ appsec, wrapper, lwa, want string }{
		{"", Wrapper, "", ""},
		{"false", Wrapper, "127.0.0.1:9002", ""},
		{"true", "", "", ""},
		{"true", "/opt/other", "", ""},
		{"1", Wrapper, "", Address},
		{"TRUE", "", "127.0.0.1:9002", "127.0.0.1:9002"},
		{"true", "", "0.0.0.0:9002", "error"},
		{"true", "", "nonsense", "error"},
	} {
		env := map[string]string{
			"DD_SERVERLESS_APPSEC_ENABLED": c.appsec, "AWS_LAMBDA_EXEC_WRAPPER": c.wrapper, "AWS_LWA_LAMBDA_RUNTIME_API_PROXY": c.lwa,
		}
		got, err := Wanted(func(name string) string { return env[name] })
		if err != nil {
			got = "error"
		}
		if got != c.want {
			t.Errorf("%+v: %q %v", c, got, err)
		}
	}
}

// FuzzProxy sends requests of any path and body: the Runtime API gets what was
// sent, and the runtime what was answered.
func FuzzProxy(f *testing.F) {
	f.Add("2018-06-01/runtime/invocation/r1/response", "body", "answer")
	f.Add("2018-06-01/runtime/invocation/next", "", `{"requestContext":{}}`)
	f.Add("//..;/%2e%2e/runtime/invocation///error?x=%zz", "\x00", "")
	var mu sync.Mutex
	var got, answer string
	upstream := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = r.Method + " " + r.URL.RequestURI() + " " + string(body)
		_, _ = io.WriteString(w, answer)
	}))
	f.Cleanup(upstream.Close)
	s, err := Listen("127.0.0.1:0", upstream.Listener.Addr().String(), &watcher{}, logging.New(io.Discard, logging.Off))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.Close() })
	client := &http.Client{Timeout: 10 * time.Second}
	f.Fuzz(func(t *testing.T, path, body, want string) {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.Addr().String()+"/"+path, strings.NewReader(body))
			if err != nil {
				t.Skip("no URL")
			}
			mu.Lock()
			got, answer = "", want
			mu.Unlock()
			resp, err := client.Do(req)
			if errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			} else if err != nil {
				t.Skip("refused by the client: ", err)
			}
			text, _ := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			mu.Lock()
			if got == "" && resp.StatusCode == http.StatusBadRequest {
				mu.Unlock()
				t.Skip("no HTTP")
			}
			sent := method + " " + req.URL.RequestURI() + " " + body
			if got != sent || string(text) != want {
				t.Errorf("\n got %q\nsent %q\nanswered %q, want %q", got, sent, text, want)
			}
			mu.Unlock()
		}
	})
}
