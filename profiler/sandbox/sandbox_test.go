package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// served is an environment that answers on a loopback port.
type served struct {
	*Env
	t    testing.TB
	addr string
}

func serve(t testing.TB, config Config) *served {
	t.Helper()
	env, err := New(config)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- env.Serve(ln) }()
	t.Cleanup(func() {
		if err := env.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &served{Env: env, t: t, addr: ln.Addr().String()}
}

// answer is what a request got.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a answer) errorType(t testing.TB) string {
	t.Helper()
	var e errorResponse
	if err := json.Unmarshal([]byte(a.body), &e); err != nil {
		t.Fatalf("body %q: %v", a.body, err)
	}
	return e.ErrorType
}

// try makes one request on a connection of its own.
func (s *served) try(method, path, body string, header ...string) (answer, error) {
	transport := &http.Transport{DisableKeepAlives: true, DisableCompression: true}
	defer transport.CloseIdleConnections()
	request, err := http.NewRequest(method, "http://"+s.addr+path, strings.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	for i := 0; i < len(header); i += 2 {
		request.Header.Set(header[i], header[i+1])
	}
	response, err := transport.RoundTrip(request)
	if err != nil {
		return answer{}, err
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	return answer{status: response.StatusCode, header: response.Header, body: string(got)}, err
}

func (s *served) do(method, path, body string, header ...string) answer {
	s.t.Helper()
	a, err := s.try(method, path, body, header...)
	if err != nil {
		s.t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

const (
	pathRegister = "/2020-01-01/extension/register"
	pathNext     = "/2020-01-01/extension/event/next"
	pathInitErr  = "/2020-01-01/extension/init/error"
	pathExitErr  = "/2020-01-01/extension/exit/error"
	pathTelem    = "/2022-07-01/telemetry"
	pathRtNext   = "/2018-06-01/runtime/invocation/next"
	pathRtInit   = "/2018-06-01/runtime/init/error"
	pathRtInvoke = "/2018-06-01/runtime/invocation/"
	bothEvents   = `{"events":["INVOKE","SHUTDOWN"]}`
)

// register registers an extension and returns its identifier.
func (s *served) register(name, body string) string {
	s.t.Helper()
	a := s.do("POST", pathRegister, body, headerName, name)
	if a.status != http.StatusOK {
		s.t.Fatalf("register %s: %d %s", name, a.status, a.body)
	}
	return a.header.Get(headerIdentifier)
}

// later makes a request in the background.
func (s *served) later(method, path, body string, header ...string) <-chan answer {
	got := make(chan answer, 1)
	go func() {
		a, _ := s.try(method, path, body, header...)
		got <- a
	}()
	return got
}

func (s *served) next(id string) <-chan answer {
	return s.later("GET", pathNext, "", headerIdentifier, id)
}

// within fails the test if nothing comes.
func within[T any](t testing.TB, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(5 * time.Second):
		t.Fatalf("%s: nothing within 5 s", what)
		panic("unreachable")
	}
}

// eventually fails the test if a condition does not come true.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 5 s", what)
		}
	}
}

// ready brings an environment with the extension "ext" to the end of INIT, its
// next pending.
func ready(t testing.TB, config Config, body string) (s *served, id string, next <-chan answer) {
	t.Helper()
	config.Extensions = []string{"ext"}
	s = serve(t, config)
	if err := s.ReleaseExtension("ext"); err != nil {
		t.Fatal(err)
	}
	id = s.register("ext", body)
	next = s.next(id)
	if !config.ExternalRuntime {
		within(t, "InitDone", s.InitDone())
	}
	return s, id, next
}

func TestInvoke(t *testing.T) {
	s, id, next := ready(t, Config{RuntimeInit: 3 * time.Millisecond, FunctionName: "hello"}, bothEvents)
	if got := s.InitOutcome(); got.Status != InitSuccess {
		t.Fatalf("outcome %+v", got)
	}
	done := make(chan InvokeResult, 1)
	go func() { done <- s.Invoke(context.Background(), []byte(`{"a":1}`)) }()

	event := within(t, "INVOKE", next)
	var invoke struct {
		EventType, RequestID, InvokedFunctionArn string
		DeadlineMs                               int64
		Tracing                                  struct{ Type, Value string }
	}
	if err := json.Unmarshal([]byte(event.body), &invoke); err != nil {
		t.Fatal(err)
	}
	if invoke.EventType != "INVOKE" || !isUUID(invoke.RequestID) || invoke.Tracing.Type != "X-Amzn-Trace-Id" ||
		!strings.HasPrefix(invoke.Tracing.Value, "Root=1-") || invoke.InvokedFunctionArn != "arn:aws:lambda:us-east-1:123456789012:function:hello" {
		t.Errorf("INVOKE %s", event.body)
	}
	if left := time.Until(time.UnixMilli(invoke.DeadlineMs)); left < 25*time.Second || left > 30*time.Second {
		t.Errorf("deadline in %s, want about 30 s", left)
	}
	if !isUUID(event.header.Get("Lambda-Extension-Event-Identifier")) || event.header.Get("Content-Type") != contentJSON {
		t.Errorf("INVOKE headers %v", event.header)
	}
	select {
	case r := <-done:
		t.Fatalf("invoke ended before the extension asked for next: %+v", r)
	case <-time.After(20 * time.Millisecond):
	}
	next = s.next(id)
	r := within(t, "Invoke", done)
	if r.Err != nil || r.Status != "success" || string(r.Response) != `{"a":1}` || r.RequestID != invoke.RequestID {
		t.Errorf("result %+v", r)
	}
	if !ascending(r.Sent, r.Responded, r.RuntimeDone, r.Complete) {
		t.Errorf("times out of order: %+v", r.InvokeTimes)
	}

	times := s.Times()
	ext := times.Extensions["ext"]
	if !ascending(ext.Released, ext.Registered, ext.FirstNext, times.InitEnd, r.Sent) ||
		!ascending(ext.Registered, times.Runtime.Released, times.Runtime.FirstNext-int64(3*time.Millisecond)) {
		t.Errorf("times out of order: %+v", times)
	}
	if times.InitStart != ext.Released || times.InitEnd != max(ext.FirstNext, times.Runtime.FirstNext) {
		t.Errorf("INIT is %d..%d in %+v", times.InitStart, times.InitEnd, times)
	}
	if times.Init() != time.Duration(times.InitEnd-times.InitStart) || len(times.Invokes) != 1 {
		t.Errorf("times %+v", times)
	}

	shut := make(chan ShutdownResult, 1)
	go func() { shut <- s.Shutdown(context.Background(), ReasonSpindown, 5*time.Second) }()
	event = within(t, "SHUTDOWN", next)
	var shutdown struct {
		EventType, ShutdownReason string
		DeadlineMs                int64
	}
	if err := json.Unmarshal([]byte(event.body), &shutdown); err != nil {
		t.Fatal(err)
	}
	if shutdown.EventType != "SHUTDOWN" || shutdown.ShutdownReason != "spindown" {
		t.Errorf("SHUTDOWN %s", event.body)
	}
	select {
	case r := <-shut:
		t.Fatalf("shutdown ended before the extension exited: %+v", r)
	case <-time.After(20 * time.Millisecond):
	}
	s.ProcessExited("ext", nil)
	result := within(t, "Shutdown", shut)
	if len(result.Exited) != 1 || len(result.Late) != 0 || len(result.Remaining) != 0 {
		t.Errorf("shutdown %+v", result)
	}
	if s.Times().Extensions["ext"].Exited == 0 || s.InitOutcome().Status != InitSuccess {
		t.Error("an exit at shutdown is no failure")
	}
}

// ascending tells whether instants were taken and follow one another.
func ascending(at ...int64) bool { return at[0] > 0 && slices.IsSorted(at) }

// TestNoLeak closes environments in every state and looks for what stays.
func TestNoLeak(t *testing.T) {
	before := runtime.NumGoroutine()
	for range 5 {
		env, err := New(Config{Extensions: []string{"ext", "never"}, RuntimeInit: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- env.Serve(ln) }()
		s := &served{Env: env, t: t, addr: ln.Addr().String()}
		if err := env.ReleaseExtension("ext"); err != nil {
			t.Fatal(err)
		}
		id := s.register("ext", bothEvents)
		s.do("PUT", pathTelem, subscribeBody(1), headerIdentifier, id) // nobody listens there: retried until Close
		next := s.next(id)
		idle, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		half, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = half.Write([]byte("POST " + pathRegister + " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\nLambda-Extension-Name: never\r\n\r\n{"))
		eventually(t, "all requests taken up", func() bool { return len(env.Requests()) == 4 })
		start := time.Now()
		if err := env.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took > 2*time.Second {
			t.Errorf("Close took %s", took)
		}
		if err := <-ended; err != nil {
			t.Errorf("Serve: %v", err)
		}
		within(t, "next", next)
		within(t, "InitDone", env.InitDone())
		if got := env.InitOutcome().Status; got != InitAborted {
			t.Errorf("outcome %q", got)
		}
		_ = idle.Close()
		_ = half.Close()
		if err := env.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
	}
	eventually(t, "goroutines gone", func() bool { return runtime.NumGoroutine() <= before })
	if runtime.NumGoroutine() > before {
		buf := make([]byte, 1<<16)
		t.Logf("%s", bytes.TrimSpace(buf[:runtime.Stack(buf, true)]))
	}
}
