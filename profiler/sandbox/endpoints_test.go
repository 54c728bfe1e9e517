package sandbox

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const unknownID = "aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee"

func errorBody(errorType, message string) string {
	body, err := json.Marshal(errorResponse{ErrorType: errorType, ErrorMessage: message})
	if err != nil {
		panic(err)
	}
	return string(body) + "\n"
}

// TestRegister covers what a register can be answered.
func TestRegister(t *testing.T) {
	ok := `{"functionName":"f","functionVersion":"$LATEST","handler":"h"}` + "\n"
	tests := []struct {
		name   string
		strict bool
		body   string
		header []string
		status int
		want   string
		events []string
		warns  int
	}{
		{name: "both events", body: bothEvents, header: []string{headerName, "ext"}, status: 200, want: ok, events: []string{"INVOKE", "SHUTDOWN"}},
		{name: "no events", body: `{}`, header: []string{headerName, "ext"}, status: 200, want: ok},
		{name: "null", body: `null`, header: []string{headerName, "ext"}, status: 200, want: ok},
		{name: "unknown fields", body: `{"events":[],"x":1}`, header: []string{headerName, "ext"}, status: 200, want: ok, events: []string{}},
		{
			name: "account", body: `{}`, header: []string{headerName, "ext", headerFeature, "other, accountId"}, status: 200,
			want: `{"accountId":"42","functionName":"f","functionVersion":"$LATEST","handler":"h"}` + "\n",
		},
		{name: "no name", body: bothEvents, status: 403, want: errorBody(errInvalidName, "Empty extension name")},
		{name: "no body", header: []string{headerName, "ext"}, status: 403, want: errorBody(errInvalidFormat, "unexpected end of JSON input")},
		{name: "malformed", body: `{"events":`, header: []string{headerName, "ext"}, status: 403, want: errorBody(errInvalidFormat, "unexpected end of JSON input")},
		{name: "configuration keys", body: `{"configurationKeys":["a"]}`, header: []string{headerName, "ext"}, status: 403, want: errorBody(errInvalidFormat, "configurationKeys are deprecated; use environment variables instead")},
		{name: "unknown event", body: `{"events":["INVOKE","TICK"]}`, header: []string{headerName, "ext"}, status: 403, want: errorBody(errInvalidEventType, "TICK: ErrorInvalidEventType")},
		{name: "another name", body: bothEvents, header: []string{headerName, "other"}, status: 200, want: ok, events: []string{"INVOKE", "SHUTDOWN"}, warns: 1},
		{name: "another name, strict", strict: true, body: bothEvents, header: []string{headerName, "other"}, status: 403, want: errorBody(errInvalidEventType, "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension")},
		{name: "another name without SHUTDOWN, strict", strict: true, body: `{"events":["INVOKE"]}`, header: []string{headerName, "other"}, status: 403, want: errorBody(errInvalidName, "Extension name other is not the file name of an extension")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := serve(t, Config{Extensions: []string{"ext"}, StrictNames: test.strict, FunctionName: "f", Handler: "h", AccountID: "42", ExternalRuntime: true})
			a := s.do("POST", pathRegister, test.body, test.header...)
			if a.status != test.status || a.body != test.want {
				t.Fatalf("got %d %s want %d %s", a.status, a.body, test.status, test.want)
			}
			if a.header.Get("Content-Type") != contentJSON {
				t.Errorf("Content-Type %q", a.header.Get("Content-Type"))
			}
			if id := a.header.Get(headerIdentifier); isUUID(id) != (test.status == 200) {
				t.Errorf("identifier %q", id)
			}
			if got := len(s.Warnings()); got != test.warns {
				t.Errorf("warnings %q", s.Warnings())
			}
			registered := false
			select {
			case <-s.Registered():
				registered = true
			default:
			}
			if registered != (test.status == 200) {
				t.Errorf("Registered is closed: %v", registered)
			}
			if test.status == 200 {
				if diff := cmp.Diff(test.events, s.external("ext").events); diff != "" {
					t.Errorf("events (-want +got):\n%s", diff)
				}
				again := s.do("POST", pathRegister, bothEvents, headerName, "ext")
				want := errorBody(errInvalidState, "State transition from Registered to Registered failed for extension ext. Error: State transition is not allowed")
				if again.status != 403 || again.body != want {
					t.Errorf("second register: %d %s", again.status, again.body)
				}
			}
		})
	}
}

// TestInternalExtensions: who registers under another name once all external
// extensions have, lives inside the runtime.
func TestInternalExtensions(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	ext := s.register("ext", bothEvents)
	refused := s.do("POST", pathRegister, bothEvents, headerName, "inner")
	if want := errorBody(errInvalidEventType, "SHUTDOWN: ShutdownEventNotSupportedForInternalExtension"); refused.status != 403 || refused.body != want {
		t.Errorf("SHUTDOWN: %d %s", refused.status, refused.body)
	}
	inner := s.register("inner", `{"events":["INVOKE"]}`)
	if a := s.do("POST", pathRegister, `{}`, headerName, "inner"); a.body != errorBody(errInvalidState, "Extension with this name already registered") {
		t.Errorf("twice: %d %s", a.status, a.body)
	}
	for i := range 8 {
		s.register(strings.Repeat("x", i+1), `{}`)
	}
	if a := s.do("POST", pathRegister, `{}`, headerName, "eleventh"); a.status != 403 || a.body != errorBody(errTooManyExtensions, "Extension limit (10) reached") {
		t.Errorf("eleventh: %d %s", a.status, a.body)
	}
	runtime := s.later("GET", pathRtNext, "")
	eventually(t, "the runtime asks for next", func() bool { return s.Times().Runtime.FirstNext != 0 })
	if a := s.do("POST", pathRegister, `{}`, headerName, "late"); a.status != 403 || a.body != errorBody(errRegistrationClosed, "Extension registration closed already") {
		t.Errorf("late: %d %s", a.status, a.body)
	}
	s.next(ext)
	s.next(inner)
	select {
	case <-s.InitDone():
		t.Error("INIT ended without eight of the internal extensions")
	case <-time.After(10 * time.Millisecond):
	}
	for _, p := range s.extensions[2:] {
		s.next(p.id)
	}
	within(t, "InitDone", s.InitDone())
	if got := s.InitOutcome(); got.Status != InitSuccess {
		t.Errorf("outcome %+v", got)
	}
	_ = s.Close()
	within(t, "the runtime's next", runtime)
}

// TestIdentifier covers the calls that need a Lambda-Extension-Identifier.
func TestIdentifier(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	id := s.register("ext", bothEvents)
	for _, call := range []struct{ method, path, body, unknown string }{
		{"GET", pathNext, "", "Unknown extension " + unknownID},
		{"PUT", pathTelem, subscribeBody(1), "Unknown extension " + unknownID},
		{"POST", pathInitErr, "{}", "Unknown Lambda-Extension-Identifier"},
		{"POST", pathExitErr, "{}", "Unknown Lambda-Extension-Identifier"},
	} {
		t.Run(call.path, func(t *testing.T) {
			for _, test := range []struct {
				name   string
				header []string
				want   string
			}{
				{"none", nil, errorBody(errMissingIdentifier, "Missing Lambda-Extension-Identifier header")},
				{"no UUID", []string{headerIdentifier, "ext"}, errorBody(errInvalidIdentifier, "Invalid Lambda-Extension-Identifier")},
				{"nearly", []string{headerIdentifier, id[:35] + "g"}, errorBody(errInvalidIdentifier, "Invalid Lambda-Extension-Identifier")},
				{"unknown", []string{headerIdentifier, unknownID}, errorBody(errUnknownIdentifier, call.unknown)},
			} {
				a := s.do(call.method, call.path, call.body, test.header...)
				if a.status != 403 || a.body != test.want {
					t.Errorf("%s: got %d %s want 403 %s", test.name, a.status, a.body, test.want)
				}
			}
		})
	}
	for _, path := range []string{pathInitErr, pathExitErr} {
		if a := s.do("POST", path, "{}", headerIdentifier, id); a.status != 403 || a.body != errorBody(errMissingHeader, "Lambda-Extension-Function-Error-Type not found") {
			t.Errorf("%s without a type: %d %s", path, a.status, a.body)
		}
	}
	if got := s.InitOutcome().Status; got != InitPending {
		t.Errorf("refused calls ended INIT: %q", got)
	}
	s.next(strings.ToUpper(id))
	eventually(t, "next of an identifier in upper case", func() bool { return s.Times().Extensions["ext"].FirstNext != 0 })
	if a := s.do("GET", pathNext, "", headerIdentifier, id); a.status != 403 ||
		a.body != errorBody(errInvalidState, "State transition from Ready to Ready failed for extension "+id+". Error: State transition is not allowed") {
		t.Errorf("second next: %d %s", a.status, a.body)
	}
	if a := s.do("POST", pathInitErr, "{}", headerIdentifier, id, headerErrorType, "X.Y"); a.status != 403 ||
		a.body != errorBody(errInvalidState, "State transition from Ready to InitError failed for extension "+id+". Error: State transition is not allowed") {
		t.Errorf("init/error after next: %d %s", a.status, a.body)
	}
}

// TestPaths covers what is no call of Lambda's.
func TestPaths(t *testing.T) {
	s := serve(t, Config{ExternalRuntime: true})
	const ran = pathRtInvoke + unknownID
	tests := []struct {
		method, path string
		status       int
		body, allow  string
	}{
		{"GET", "/2018-06-01/ping", 200, "pong", ""},
		{"GET", "/", 404, "404 page not found\n", ""},
		{"GET", "/2020-01-01/extension", 404, "404 page not found\n", ""},
		{"POST", pathRegister + "/", 404, "404 page not found\n", ""},
		{"POST", "/2020-01-01/extension%2Fregister", 404, "404 page not found\n", ""},
		{"POST", "//2020-01-01/extension/register", 404, "404 page not found\n", ""},
		{"GET", "/2018-06-01/runtime/restore/next", 404, "404 page not found\n", ""},
		{"POST", pathRtInvoke + "response", 404, "404 page not found\n", ""},
		{"POST", pathRtInvoke + "/response", 404, "404 page not found\n", ""},
		{"POST", ran + "/answer", 404, "404 page not found\n", ""},
		{"GET", pathRegister, 405, "", "POST"},
		{"POST", pathNext, 405, "", "GET"},
		{"HEAD", pathNext, 405, "", "GET"},
		{"POST", pathTelem, 405, "", "PUT"},
		{"OPTIONS", pathTelem, 405, "", "PUT"},
		{"POST", pathRtNext, 405, "", "GET"},
		{"GET", ran + "/response", 405, "", "POST"},
		{"PUT", pathRtInit, 405, "", "POST"},
		{"PUT", "/2020-08-15/logs", 202, errorBody("Logs.NotSupported", "Logs API is not supported"), ""},
		{"POST", ran + "/response", 400, errorBody(errInvalidRequestID, "Invalid request ID"), ""},
		{"POST", ran + "/error", 400, errorBody(errInvalidRequestID, "Invalid request ID"), ""},
	}
	for _, test := range tests {
		a := s.do(test.method, test.path, "")
		if a.status != test.status || a.body != test.body || a.header.Get("Allow") != test.allow {
			t.Errorf("%s %s: %d %q Allow %q, want %d %q %q", test.method, test.path, a.status, a.body, a.header.Get("Allow"), test.status, test.body, test.allow)
		}
	}
	log := s.Requests()
	if len(log) != len(tests) {
		t.Fatalf("%d requests in the log, want %d", len(log), len(tests))
	}
	for i, r := range log {
		if r.Method != tests[i].method || r.Path != tests[i].path || r.Status != tests[i].status || !ascending(r.Received, r.Answered) {
			t.Errorf("log %+v", r)
		}
	}
}

// TestGiveUp covers init/error and exit/error of extensions, before and after
// INIT.
func TestGiveUp(t *testing.T) {
	for _, test := range []struct {
		path, errorType string
		state           state
	}{
		{pathInitErr, "Extension.InitError", stateInitError},
		{pathExitErr, "Extension.ExitError", stateExitError},
	} {
		t.Run(string(test.state), func(t *testing.T) {
			s := serve(t, Config{Extensions: []string{"ext", "other"}, ExternalRuntime: true})
			id := s.register("ext", bothEvents)
			other := s.register("other", bothEvents)
			waiting := s.next(other)
			a := s.do("POST", test.path, `{"errorMessage":"m","errorType":"t","stackTrace":[]}`, headerIdentifier, id, headerErrorType, "Fatal.ConnectFailed")
			if a.status != 202 || a.body != `{"status":"OK"}`+"\n" {
				t.Fatalf("got %d %s", a.status, a.body)
			}
			within(t, "InitDone", s.InitDone())
			want := InitOutcome{
				Status: InitReported, Process: "ext", ErrorType: test.errorType, Reported: "Fatal.ConnectFailed",
				Message: "extension ext reported " + string(test.state) + " Fatal.ConnectFailed",
			}
			if diff := cmp.Diff(want, s.InitOutcome()); diff != "" {
				t.Errorf("outcome (-want +got):\n%s", diff)
			}
			// "After Lambda receives the error, no further API calls succeed."
			if a := s.do("GET", pathNext, "", headerIdentifier, id); a.status != 403 || a.errorType(t) != errInvalidState {
				t.Errorf("next: %d %s", a.status, a.body)
			}
			if a := s.do("PUT", pathTelem, subscribeBody(1), headerIdentifier, id); a.status != 403 || a.errorType(t) != errSubscriptionClosed {
				t.Errorf("telemetry: %d %s", a.status, a.body)
			}
			if a := s.do("POST", test.path, "", headerIdentifier, id, headerErrorType, "Fatal.Again"); a.status != 202 {
				t.Errorf("again: %d %s", a.status, a.body)
			}
			s.ProcessExited("ext", nil)
			if diff := cmp.Diff(want, s.InitOutcome()); diff != "" {
				t.Errorf("outcome after the exit (-want +got):\n%s", diff)
			}
			if r := s.Invoke(context.Background(), nil); r.Err == nil || r.ErrorType != test.errorType {
				t.Errorf("invoke after a failed INIT: %+v", r)
			}
			shut := make(chan ShutdownResult, 1)
			go func() { shut <- s.Shutdown(context.Background(), ReasonFailure, 0) }()
			if event := within(t, "SHUTDOWN", waiting); !strings.Contains(event.body, `"shutdownReason":"failure"`) {
				t.Errorf("other got %s", event.body)
			}
			s.ProcessExited("other", nil)
			if r := within(t, "Shutdown", shut); len(r.Exited) != 1 || r.Exited[0] != "other" || len(r.Remaining) != 0 {
				t.Errorf("shutdown %+v", r)
			}
		})
	}
}

// TestOversized: a body beyond Lambda's limit is refused, wherever it is sent.
func TestOversized(t *testing.T) {
	s := serve(t, Config{Extensions: []string{"ext"}, ExternalRuntime: true})
	a, err := s.try("POST", pathRegister, strings.Repeat(" ", maxPayload+1), headerName, "ext")
	// The client may see the connection break before it has written all.
	if err == nil && (a.status != http.StatusRequestEntityTooLarge || a.body != errorBody("RequestEntityTooLarge", "Exceeded maximum allowed payload size (6291556 bytes).")) {
		t.Errorf("got %d %s", a.status, a.body)
	}
	eventually(t, "413 in the log", func() bool { return s.Requests()[0].Status == http.StatusRequestEntityTooLarge })
	s.register("ext", strings.Repeat(" ", 1<<20)+bothEvents)
}
