package sandbox

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Call names one call of the three APIs, for the latency model.
type Call string

// The calls.
const (
	CallRegister         Call = "register"           // POST /2020-01-01/extension/register
	CallNext             Call = "next"               // GET  /2020-01-01/extension/event/next
	CallInitError        Call = "init_error"         // POST /2020-01-01/extension/init/error
	CallExitError        Call = "exit_error"         // POST /2020-01-01/extension/exit/error
	CallTelemetry        Call = "telemetry"          // PUT  /2022-07-01/telemetry
	CallLogs             Call = "logs"               // PUT  /2020-08-15/logs
	CallRuntimeNext      Call = "runtime_next"       // GET  /2018-06-01/runtime/invocation/next
	CallRuntimeResponse  Call = "runtime_response"   // POST /2018-06-01/runtime/invocation/ID/response
	CallRuntimeError     Call = "runtime_error"      // POST /2018-06-01/runtime/invocation/ID/error
	CallRuntimeInitError Call = "runtime_init_error" // POST /2018-06-01/runtime/init/error
)

var calls = []Call{
	CallRegister, CallNext, CallInitError, CallExitError, CallTelemetry, CallLogs,
	CallRuntimeNext, CallRuntimeResponse, CallRuntimeError, CallRuntimeInitError,
}

// maxLatency bounds what one call may be delayed, so that a slip of the unit
// (25s for 25ms) does not look like a hang.
const maxLatency = time.Minute

// Latency is what the environment adds to each call before it answers: the
// user's assumption about a service that is not there, and printed as such.
// The decision (registered, subscribed, refused) falls when the request comes
// in; only the answer waits. A next waits for its event first. The zero value
// adds nothing.
type Latency map[Call]time.Duration

// lambdaLatency are the two figures that were seen of real Lambda: 2.49 ms from
// the shared client to the register response, 24.97 ms for the subscription
// (DataDog/datadog-lambda-extension#1284).
var lambdaLatency = Latency{CallRegister: 2 * time.Millisecond, CallTelemetry: 25 * time.Millisecond}

// ParseLatency reads "none", "lambda" or a list such as
// "register=2ms,telemetry=25ms". Elements add up from left to right, so that
// "lambda,next=1ms" is lambda and one call more.
func ParseLatency(s string) (Latency, error) {
	l := Latency{}
	for element := range strings.SplitSeq(s, ",") {
		element = strings.TrimSpace(element)
		switch element {
		case "", "none":
			continue
		case "lambda":
			maps.Copy(l, lambdaLatency)
			continue
		}
		name, value, ok := strings.Cut(element, "=")
		if !ok {
			return nil, fmt.Errorf("latency %q: want none, lambda or CALL=DURATION", element)
		}
		call := Call(strings.TrimSpace(name))
		if !slices.Contains(calls, call) {
			return nil, fmt.Errorf("latency %q: no such call; calls are %s", element, callNames())
		}
		d, err := time.ParseDuration(strings.TrimSpace(value))
		if err != nil {
			return nil, fmt.Errorf("latency %q: %w", element, err)
		}
		if d < 0 || d > maxLatency {
			return nil, fmt.Errorf("latency %q: must lie between 0 and %s", element, maxLatency)
		}
		if d == 0 {
			delete(l, call)
			continue
		}
		l[call] = d
	}
	return l, nil
}

func callNames() string {
	names := make([]string, len(calls))
	for i, c := range calls {
		names[i] = string(c)
	}
	return strings.Join(names, ", ")
}

// String is the form that ParseLatency reads, in alphabetical order; "none"
// when nothing is added.
func (l Latency) String() string {
	var parts []string
	for _, call := range slices.Sorted(maps.Keys(l)) {
		if l[call] != 0 {
			parts = append(parts, fmt.Sprintf("%s=%s", call, l[call]))
		}
	}
	if len(parts) == 0 {
		return "none"
	}
	return strings.Join(parts, ",")
}
