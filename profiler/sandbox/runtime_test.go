package sandbox

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"
)

// function is an environment without extensions whose runtime asks over HTTP.
func function(t *testing.T) (*served, <-chan answer) {
	t.Helper()
	s := serve(t, Config{ExternalRuntime: true, FunctionName: "f", Timeout: 10 * time.Second})
	s.ReleaseRuntime()
	next := s.later("GET", pathRtNext, "")
	within(t, "InitDone", s.InitDone())
	return s, next
}

func (s *served) invokeLater(payload string) <-chan InvokeResult {
	done := make(chan InvokeResult, 1)
	go func() { done <- s.Invoke(context.Background(), []byte(payload)) }()
	return done
}

func TestRuntimeNext(t *testing.T) {
	s, next := function(t)
	done := s.invokeLater(`{"key":"value"}`)
	event := within(t, "event", next)
	id := event.header.Get("Lambda-Runtime-Aws-Request-Id")
	if event.status != 200 || event.body != `{"key":"value"}` || !isUUID(id) ||
		event.header.Get("Content-Type") != contentJSON ||
		event.header.Get("Lambda-Runtime-Invoked-Function-Arn") != "arn:aws:lambda:us-east-1:123456789012:function:f" ||
		!strings.HasPrefix(event.header.Get("Lambda-Runtime-Trace-Id"), "Root=1-") ||
		len(event.header.Get("Lambda-Runtime-Deadline-Ms")) != 13 {
		t.Errorf("event %+v", event)
	}
	// A runtime that lost the answer gets it again.
	again := s.do("GET", pathRtNext, "")
	if again.header.Get("Lambda-Runtime-Aws-Request-Id") != id || again.body != event.body {
		t.Errorf("again %+v", again)
	}
	if a := s.do("POST", pathRtInvoke+unknownID+"/response", "x"); a.status != 400 || a.errorType(t) != errInvalidRequestID {
		t.Errorf("another invoke's response: %d %s", a.status, a.body)
	}
	if a := s.do("POST", pathRtInit, "{}"); a.status != 403 || a.body != errorBody(errInvalidTransition, "State transition from Running to InitError failed for runtime. Error: State transition is not allowed") {
		t.Errorf("init/error: %d %s", a.status, a.body)
	}
	if a := s.do("POST", pathRtInvoke+id+"/response", `"done"`); a.status != 202 || a.body != `{"status":"OK"}`+"\n" {
		t.Errorf("response: %d %s", a.status, a.body)
	}
	if a := s.do("POST", pathRtInvoke+id+"/response", `"done"`); a.status != 403 || a.body != errorBody(errInvalidTransition, "State transition from RuntimeResponseSentState to InvocationResponse failed for runtime. Error: State transition is not allowed") {
		t.Errorf("second response: %d %s", a.status, a.body)
	}
	s.later("GET", pathRtNext, "")
	r := within(t, "Invoke", done)
	if r.Err != nil || r.Status != "success" || string(r.Response) != `"done"` || r.RequestID != id {
		t.Errorf("result %+v", r)
	}
	if a := s.do("POST", pathRtInvoke+id+"/error", ""); a.status != 400 {
		t.Errorf("after the invoke: %d %s", a.status, a.body)
	}
}

func TestRuntimeFails(t *testing.T) {
	big := strings.Repeat("x", maxPayload+1)
	tests := []struct {
		name, verb, body string
		header           []string
		status           int
		errorType        string // of the result
		response         string
	}{
		{"error", "error", `{"errorMessage":"m"}`, []string{headerRuntimeErrorType, "Runtime.Boom"}, 202, "Runtime.Boom", `{"errorMessage":"m"}`},
		{"function's error", "error", "", []string{headerRuntimeErrorType, "Function.9"}, 202, "Function.Unknown", ""},
		{"nameless error", "error", "", nil, 202, "Runtime.Unknown", ""},
		{"response mode", "response", "x", []string{headerResponseMode, "buffered"}, 400, "Runtime.InvalidResponseModeHeader", ""},
		{"streaming", "response", "x", []string{headerResponseMode, "streaming"}, 202, "", "x"},
		{"too large", "response", big, nil, 413, "Function.ResponseSizeTooLarge", ""},
		{"largest", "response", big[1:], nil, 202, "", big[1:]},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s, next := function(t)
			done := s.invokeLater("{}")
			id := within(t, "event", next).header.Get("Lambda-Runtime-Aws-Request-Id")
			if a, err := s.try("POST", pathRtInvoke+id+"/"+test.verb, test.body, test.header...); err == nil && a.status != test.status {
				t.Errorf("got %d %s, want %d", a.status, a.body, test.status)
			}
			s.later("GET", pathRtNext, "")
			r := within(t, "Invoke", done)
			if r.Err != nil || r.ErrorType != test.errorType || string(r.Response) != test.response || (r.Status == "success") != (test.errorType == "") {
				t.Errorf("result %s %s %v, %d bytes", r.Status, r.ErrorType, r.Err, len(r.Response))
			}
			// The environment lives on.
			s.invokeLater("{}")
			eventually(t, "second invoke", func() bool {
				s.mu.Lock()
				defer s.mu.Unlock()
				return s.invoke != nil
			})
		})
	}
}

// TestStreamedError: a response that fails midway says so in its trailer.
func TestStreamedError(t *testing.T) {
	s, next := function(t)
	done := s.invokeLater("{}")
	id := within(t, "event", next).header.Get("Lambda-Runtime-Aws-Request-Id")
	c := dial(t, s.addr)
	response, _ := c.exchange(t, []byte("POST "+pathRtInvoke+id+"/response HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"+
		"Lambda-Runtime-Function-Response-Mode: streaming\r\nTrailer: Lambda-Runtime-Function-Error-Type\r\n\r\n"+
		"4\r\npart\r\n0\r\nLambda-Runtime-Function-Error-Type: Function.Broke\r\n\r\n"))
	if response.StatusCode != 202 {
		t.Errorf("got %s", response.Status)
	}
	s.later("GET", pathRtNext, "")
	if r := within(t, "Invoke", done); r.Status != "error" || r.ErrorType != "Function.Broke" || string(r.Response) != "part" {
		t.Errorf("result %+v", r)
	}
}

// TestTruncated: the runtime's connection breaks within its response.
func TestTruncated(t *testing.T) {
	s, next := function(t)
	done := s.invokeLater("{}")
	id := within(t, "event", next).header.Get("Lambda-Runtime-Aws-Request-Id")
	c := dial(t, s.addr)
	if _, err := c.conn.Write([]byte("POST " + pathRtInvoke + id + "/response HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf")); err != nil {
		t.Fatal(err)
	}
	_ = c.conn.Close()
	eventually(t, "response taken up", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.runtime.machine.at == stateResponseSent
	})
	s.later("GET", pathRtNext, "")
	if r := within(t, "Invoke", done); r.ErrorType != "Runtime.TruncatedResponse" {
		t.Errorf("result %+v", r)
	}
}

func TestRuntimeInitError(t *testing.T) {
	s := serve(t, Config{ExternalRuntime: true})
	s.ReleaseRuntime()
	if a := s.do("POST", pathRtInit, `{"errorType":"x"}`, headerRuntimeErrorType, "Runtime.NoSuchHandler"); a.status != 202 || a.body != `{"status":"OK"}`+"\n" {
		t.Errorf("got %d %s", a.status, a.body)
	}
	within(t, "InitDone", s.InitDone())
	if got := s.InitOutcome(); got.Status != InitReported || got.Process != Runtime || got.ErrorType != "Runtime.NoSuchHandler" {
		t.Errorf("outcome %+v", got)
	}
	if a := s.do("GET", pathRtNext, ""); a.status != 403 || a.body != errorBody(errInvalidTransition, "State transition from InitError to Ready failed for runtime. Error: State transition is not allowed") {
		t.Errorf("next: %d %s", a.status, a.body)
	}
}

// TestDeaths ends processes at each point of an environment's life.
func TestDeaths(t *testing.T) {
	boom := errors.New("signal: killed")
	t.Run("before register", func(t *testing.T) {
		s := serve(t, Config{Extensions: []string{"ext"}})
		if err := s.ReleaseExtension("ext"); err != nil {
			t.Fatal(err)
		}
		s.ProcessExited("ext", nil)
		within(t, "InitDone", s.InitDone())
		if got := s.InitOutcome(); got.Status != InitCrashed || got.ErrorType != "Extension.Crash" || got.Message != "extension ext ended by itself: exit status 0" {
			t.Errorf("outcome %+v", got)
		}
		select {
		case <-s.Registered():
			t.Error("Registered is closed")
		default:
		}
	})
	t.Run("runtime", func(t *testing.T) {
		s := serve(t, Config{ExternalRuntime: true})
		s.ReleaseRuntime()
		s.ProcessExited(Runtime, boom)
		within(t, "InitDone", s.InitDone())
		if got := s.InitOutcome(); got.Status != InitCrashed || got.ErrorType != "Runtime.ExitError" || !errors.Is(got.Err, boom) {
			t.Errorf("outcome %+v", got)
		}
	})
	t.Run("after INIT", func(t *testing.T) {
		s, _, _ := ready(t, Config{}, bothEvents)
		s.ProcessExited("ext", boom)
		if got := s.InitOutcome().Status; got != InitSuccess {
			t.Errorf("outcome %q", got)
		}
		if r := s.Invoke(context.Background(), nil); !errors.Is(r.Err, boom) || r.Status != "failure" || r.ErrorType != "Extension.Crash" {
			t.Errorf("result %+v", r)
		}
	})
	t.Run("during an invoke", func(t *testing.T) {
		s, _, next := ready(t, Config{}, bothEvents)
		done := s.invokeLater("{}")
		within(t, "INVOKE", next)
		s.ProcessExited("ext", boom)
		if r := within(t, "Invoke", done); !errors.Is(r.Err, boom) || r.Status != "error" || r.ErrorType != "Extension.Crash" || r.Complete != 0 {
			t.Errorf("result %+v", r)
		}
	})
	t.Run("timeout", func(t *testing.T) {
		s, id, next := ready(t, Config{Timeout: 20 * time.Millisecond}, bothEvents)
		done := s.invokeLater("{}")
		within(t, "INVOKE", next)
		if r := within(t, "Invoke", done); r.Status != "timeout" || r.Err == nil {
			t.Errorf("result %+v", r)
		}
		next = s.next(id)
		go s.Shutdown(context.Background(), ReasonTimeout, 100*time.Millisecond)
		if event := within(t, "SHUTDOWN", next); !strings.Contains(event.body, `"shutdownReason":"timeout"`) {
			t.Errorf("got %s", event.body)
		}
	})
	t.Run("init timeout", func(t *testing.T) {
		s := serve(t, Config{Extensions: []string{"quick", "slow"}})
		id := s.register("quick", bothEvents)
		s.next(id)
		eventually(t, "next", func() bool { return s.Times().Extensions["quick"].FirstNext != 0 })
		s.AbortInit()
		if got := s.InitOutcome(); got.Status != InitTimeout || got.Process != "slow" {
			t.Errorf("outcome %+v", got)
		}
	})
	t.Run("unknown", func(t *testing.T) {
		s := serve(t, Config{Extensions: []string{"ext"}})
		s.ProcessExited("other", boom)
		if err := s.ReleaseExtension("other"); err == nil {
			t.Error("an unexpected extension was released")
		}
		if got := s.InitOutcome().Status; got != InitPending {
			t.Errorf("outcome %q", got)
		}
	})
}

// TestShutdown covers the order of a shutdown with an external runtime and an
// extension that does not obey.
func TestShutdown(t *testing.T) {
	var s *served
	var order []string
	terminated := make(chan struct{})
	s = serve(t, Config{
		Extensions: []string{"obeys", "ignores", "silent"}, ExternalRuntime: true,
		TerminateRuntime: func() { order = append(order, "SIGTERM"); close(terminated) },
	})
	obeys := s.next(s.register("obeys", `{"events":["SHUTDOWN"]}`))
	ignores := s.next(s.register("ignores", bothEvents))
	silent := s.next(s.register("silent", `{"events":["INVOKE"]}`))
	s.ReleaseRuntime()
	s.later("GET", pathRtNext, "")
	within(t, "InitDone", s.InitDone())

	shut := make(chan ShutdownResult, 1)
	start := time.Now()
	go func() { shut <- s.Shutdown(context.Background(), ReasonSpindown, 300*time.Millisecond) }()
	within(t, "SIGTERM", terminated)
	select {
	case <-obeys:
		t.Error("SHUTDOWN before the runtime ended")
	case <-time.After(10 * time.Millisecond):
	}
	s.ProcessExited(Runtime, errors.New("signal: terminated"))
	within(t, "SHUTDOWN", obeys)
	within(t, "SHUTDOWN", ignores)
	s.ProcessExited("obeys", nil)
	r := within(t, "Shutdown", shut)
	if took := time.Since(start); took < 300*time.Millisecond {
		t.Errorf("gave up after %s", took)
	}
	if strings.Join(r.Exited, ",") != "obeys" || strings.Join(r.Late, ",") != "ignores" || strings.Join(r.Remaining, ",") != "ignores,silent" {
		t.Errorf("result %+v", r)
	}
	if got := s.InitOutcome().Status; got != InitSuccess {
		t.Errorf("outcome %q", got)
	}
	select {
	case a := <-silent:
		t.Errorf("an extension that did not register for SHUTDOWN got %+v", a)
	default:
	}
	if len(order) != 1 {
		t.Errorf("SIGTERM %d times", len(order))
	}
}

// TestShutdownAlone: without extensions the runtime is not asked, only killed.
func TestShutdownAlone(t *testing.T) {
	s := serve(t, Config{ExternalRuntime: true, TerminateRuntime: func() { t.Error("SIGTERM without extensions") }})
	s.ReleaseRuntime()
	s.later("GET", pathRtNext, "")
	within(t, "InitDone", s.InitDone())
	start := time.Now()
	r := s.Shutdown(context.Background(), ReasonSpindown, 0)
	if len(r.Remaining) != 1 || r.Remaining[0] != Runtime || time.Since(start) > time.Second {
		t.Errorf("result %+v after %s", r, time.Since(start))
	}
	if r := s.Invoke(context.Background(), nil); r.Err == nil {
		t.Error("invoked after the shutdown")
	}
}

func TestInvokeRefused(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"ext"}})
	if r := s.Invoke(context.Background(), nil); r.Err == nil || !strings.Contains(r.Err.Error(), "created") {
		t.Errorf("before INIT: %+v", r)
	}
	if r := s.Invoke(context.Background(), make([]byte, maxPayload+1)); r.Err == nil {
		t.Error("a payload beyond the limit was taken")
	}
	canceled, cancel := context.WithCancel(context.Background())
	cancel()
	s2, _, _ := ready(t, Config{}, bothEvents)
	if r := s2.Invoke(canceled, nil); !errors.Is(r.Err, context.Canceled) || r.Status != "failure" {
		t.Errorf("canceled: %+v", r)
	}
}

func TestConfig(t *testing.T) {
	for name, config := range map[string]Config{
		"eleven":     {Extensions: strings.Split("a,b,c,d,e,f,g,h,i,j,k", ",")},
		"folder":     {Extensions: []string{"/opt/extensions/a"}},
		"nameless":   {Extensions: []string{""}},
		"twice":      {Extensions: []string{"a", "a"}},
		"type":       {InitializationType: "snap-start"},
		"negative":   {RuntimeInit: -1},
		"both":       {RuntimeInit: 1, ExternalRuntime: true},
		"bad memory": {MemoryMB: -1},
	} {
		if _, err := New(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestCorrectRelease: the holder knows better when it was let go.
func TestCorrectRelease(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"a", "b"}})
	for _, name := range []string{"a", "b"} {
		if err := s.ReleaseExtension(name); err != nil {
			t.Fatal(err)
		}
	}
	first := s.Times()
	exactA, exactB := first.InitStart+1000, first.Extensions["b"].Released+7
	s.CorrectRelease("a", exactA)
	s.CorrectRelease("b", exactB)
	s.CorrectRelease("c", 1)
	s.CorrectRelease(Runtime, 1) // not released
	got := s.Times()
	if got.InitStart != exactA || got.Extensions["a"].Released != exactA || got.Extensions["b"].Released != exactB || got.Runtime.Released != 0 {
		t.Errorf("times %+v", got)
	}
}
