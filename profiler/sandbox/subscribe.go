package sandbox

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Telemetry's categories.
const (
	categoryPlatform  = "platform"
	categoryFunction  = "function"
	categoryExtension = "extension"
)

const (
	errValidation         = "ValidationError"
	errSubscriptionClosed = "Telemetry.SubscriptionClosed"
)

// Limits of a subscription (Lambda developer guide, Telemetry API reference).
// maxItems' default is 10,000 in one of its pages and 1,000 in the other; the
// emulator of managed instances has 10,000.
var bufferingLimits = []struct {
	name               string
	least, most, value int
}{
	{"maxItems", 1000, 10000, 10000},
	{"maxBytes", 262144, 1048576, 262144},
	{"timeoutMs", 25, 30000, 1000},
}

var schemaVersions = []string{"2025-01-29", "2022-12-13", "2022-07-01"}

// runtimeAPIPort is the one port that no listener can have: Lambda's own.
const runtimeAPIPort = 9001

// subscription is a valid subscription request.
type subscription struct {
	types    []string
	maxItems int
	maxBytes int
	timeout  time.Duration
	tcp      bool   // newline-delimited JSON instead of HTTP
	port     uint16 // on ListenerHost
	path     string // of the HTTP destination, with its query
	host     string // as the URI has it
}

// parseSubscription decodes and checks the body of a subscription. What is wrong
// with it is one sentence, its parts joined by "; " as in AWS's example
// ("URI port is not provided; types should not be empty").
func parseSubscription(body []byte) (subscription, error) {
	var request struct {
		SchemaVersion string   `json:"schemaVersion"`
		Types         []string `json:"types"`
		Buffering     map[string]json.Number
		Destination   struct {
			Protocol string `json:"protocol"`
			URI      string `json:"URI"`
			Port     int    `json:"port"`
		} `json:"destination"`
	}
	if err := json.Unmarshal(body, &request); err != nil {
		return subscription{}, fmt.Errorf("request body is not a subscription: %w", err)
	}
	var wrong []string
	complain := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }

	var s subscription
	switch d := request.Destination; d.Protocol {
	case "HTTP":
		s.parseURI(d.URI, complain)
	case "TCP":
		s.tcp = true
		if d.Port < 1 || d.Port > 65535 {
			complain("port should be between 1 and 65535")
		}
		s.port = uint16(d.Port)
	case "":
		complain("destination protocol is not provided")
	default:
		complain("destination protocol %q is not supported; expected HTTP or TCP", d.Protocol)
	}
	if s.port == runtimeAPIPort {
		complain("port %d is reserved", runtimeAPIPort)
	}
	if len(request.Types) == 0 {
		complain("types should not be empty")
	}
	for i, t := range request.Types {
		if t != categoryPlatform && t != categoryFunction && t != categoryExtension {
			complain("type %q is not supported; expected platform, function or extension", t)
		} else if slices.Contains(request.Types[:i], t) {
			complain("types should be unique")
		}
	}
	s.types = request.Types
	if !slices.Contains(schemaVersions, request.SchemaVersion) {
		complain("schemaVersion %q is not supported; expected one of %s", request.SchemaVersion, strings.Join(schemaVersions, ", "))
	}
	var values [3]int
	for i, limit := range bufferingLimits {
		values[i] = limit.value
		number, given := request.Buffering[limit.name]
		if !given {
			continue
		}
		n, err := strconv.Atoi(number.String())
		if err != nil || n < limit.least || n > limit.most {
			complain("%s should be between %d and %d", limit.name, limit.least, limit.most)
			continue
		}
		values[i] = n
	}
	s.maxItems, s.maxBytes, s.timeout = values[0], values[1], time.Duration(values[2])*time.Millisecond
	if len(wrong) > 0 {
		return subscription{}, fmt.Errorf("%s", strings.Join(wrong, "; "))
	}
	return s, nil
}

// parseURI reads the destination of a subscription over HTTP.
func (s *subscription) parseURI(uri string, complain func(string, ...any)) {
	if uri == "" {
		complain("URI is not provided")
		return
	}
	u, err := url.Parse(uri)
	if err != nil {
		complain("URI is malformed")
		return
	}
	if u.Scheme != "http" {
		complain("URI scheme should be http")
	}
	if h := u.Hostname(); h != "sandbox.localdomain" && h != "sandbox" {
		complain("URI host should be sandbox.localdomain")
	}
	port, err := strconv.ParseUint(u.Port(), 10, 16)
	switch {
	case u.Port() == "":
		complain("URI port is not provided")
	case err != nil || port == 0:
		complain("URI port should be between 1 and 65535")
	}
	s.port, s.host = uint16(port), u.Host
	s.path = u.RequestURI()
}

// telemetry is PUT /2022-07-01/telemetry.
func (e *Env) telemetry(c *call) *reply {
	e.mu.Lock()
	_, refusal := e.identifyLocked(c)
	e.mu.Unlock()
	if refusal != nil {
		return refusal
	}
	body, refusal := c.readBody()
	if refusal != nil {
		return refusal
	}
	s, err := parseSubscription(body)
	if err != nil {
		return refuse(http.StatusBadRequest, errValidation, "%s", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	p, refusal := e.identifyLocked(c)
	if refusal != nil {
		return refusal
	}
	if e.outcome.Status != InitPending {
		return forbid(errSubscriptionClosed, "Telemetry API subscription is closed already")
	}
	state := "Subscribed"
	if e.relay.subscribe(p.name, s) {
		state = "Already subscribed"
	}
	e.relay.emit(categoryPlatform, "platform.telemetrySubscription", subscriptionRecord{Name: p.name, State: state, Types: s.types})
	return &reply{status: http.StatusOK, body: []byte(`"OK"`)}
}

// logs is PUT /2020-08-15/logs, which the Telemetry API superseded. The answer
// is the one that AWS documents for local testing environments.
func (e *Env) logs(c *call) *reply {
	if _, refusal := c.readBody(); refusal != nil {
		return refusal
	}
	return jsonReply(http.StatusAccepted, errorResponse{ErrorType: "Logs.NotSupported", ErrorMessage: "Logs API is not supported"})
}
