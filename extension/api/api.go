package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Error is an answer of the API with a status that is not 2xx.
type Error struct {
	Request string // "POST /2020-01-01/extension/register"
	Status  int
	Type    string // errorType of the body, "" if it has none
	Message string // errorMessage of the body, or its beginning
}

func (e *Error) Error() string {
	s := e.Request + ": status " + strconv.Itoa(e.Status)
	if e.Type != "" {
		s += " " + e.Type
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// ErrNotRegistered is returned by calls that need the identifier of Register.
var ErrNotRegistered = errors.New("the extension has not registered")

// Client speaks to the API for one extension. Its methods may be called
// concurrently; each uses its own connection, kept for the next call.
type Client struct {
	address string
	name    string
	dialer  net.Dialer

	mu         sync.Mutex
	idle       []*conn
	identifier string
	closed     bool
}

// New makes a client for the API at address, the value of
// AWS_LAMBDA_RUNTIME_API, and the extension whose file has that name. It does
// not connect.
func New(address, name string) *Client {
	// The API stands on this machine, which may be frozen: nothing to keep alive.
	return &Client{address: address, name: name, dialer: net.Dialer{KeepAlive: -1}}
}

// Close closes the idle connections. Calls under way are ended by their
// contexts.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	for _, cn := range c.idle {
		_ = cn.Close()
	}
	c.idle = nil
}

// Registration is the answer to Register.
type Registration struct {
	Identifier string
	body       []byte
}

// Function says what the extension was registered for.
type Function struct {
	Name      string `json:"functionName"`
	Version   string `json:"functionVersion"`
	Handler   string `json:"handler"`
	AccountID string `json:"accountId"` // only with the accountId feature
}

// Function decodes the body of the answer. That is left to whoever needs it,
// behind the first Next.
func (r *Registration) Function() (Function, error) {
	var f Function
	if err := json.Unmarshal(r.body, &f); err != nil {
		return f, fmt.Errorf("answer to register: %w", err)
	}
	return f, nil
}

// Register registers for INVOKE and SHUTDOWN.
func (c *Client) Register(ctx context.Context) (*Registration, error) {
	const path = "/2020-01-01/extension/register"
	resp, err := c.do(ctx, "POST", path,
		"Lambda-Extension-Name: "+c.name+"\r\nLambda-Extension-Accept-Feature: accountId\r\n",
		[]byte(`{"events":["INVOKE","SHUTDOWN"]}`), nil)
	if err != nil {
		return nil, err
	}
	if resp.status != 200 {
		return nil, apiError("POST "+path, resp)
	}
	if resp.identifier == "" {
		return nil, fmt.Errorf("POST %s: no Lambda-Extension-Identifier in the answer", path)
	}
	c.mu.Lock()
	c.identifier = resp.identifier
	c.mu.Unlock()
	return &Registration{Identifier: resp.identifier, body: resp.body}, nil
}

// Types of events.
const (
	Invoke   = "INVOKE"
	Shutdown = "SHUTDOWN"
)

// Event is what Next returns.
type Event struct {
	Type               string
	Deadline           time.Time
	RequestID          string // INVOKE
	InvokedFunctionARN string // INVOKE
	TraceType          string // INVOKE: X-Amzn-Trace-Id
	TraceValue         string
	ShutdownReason     string // SHUTDOWN: spindown, timeout, failure
}

// Next asks for the next event. It blocks until there is one or ctx ends. sent is
// called when the request is on its way, which ends the extension's part of INIT;
// it may be nil.
func (c *Client) Next(ctx context.Context, sent func()) (*Event, error) {
	const path = "/2020-01-01/extension/event/next"
	id, err := c.id()
	if err != nil {
		return nil, err
	}
	resp, err := c.do(ctx, "GET", path, "Lambda-Extension-Identifier: "+id+"\r\n", nil, sent)
	if err != nil {
		return nil, err
	}
	if resp.status != 200 {
		return nil, apiError("GET "+path, resp)
	}
	var e struct {
		EventType          string `json:"eventType"`
		DeadlineMs         int64  `json:"deadlineMs"`
		RequestID          string `json:"requestId"`
		InvokedFunctionARN string `json:"invokedFunctionArn"`
		ShutdownReason     string `json:"shutdownReason"`
		Tracing            struct {
			Type  string `json:"type"`
			Value string `json:"value"`
		} `json:"tracing"`
	}
	if err := json.Unmarshal(resp.body, &e); err != nil {
		return nil, fmt.Errorf("GET %s: %w", path, err)
	}
	return &Event{
		Type: e.EventType, Deadline: time.UnixMilli(e.DeadlineMs), RequestID: e.RequestID,
		InvokedFunctionARN: e.InvokedFunctionARN, ShutdownReason: e.ShutdownReason,
		TraceType: e.Tracing.Type, TraceValue: e.Tracing.Value,
	}, nil
}

// InitError reports that the extension cannot initialise. errorType is like
// "Extension.ConfigInvalid". The environment ends INIT on it.
func (c *Client) InitError(ctx context.Context, errorType string, cause error) error {
	return c.report(ctx, "/2020-01-01/extension/init/error", errorType, cause)
}

// ExitError reports why the extension is about to exit.
func (c *Client) ExitError(ctx context.Context, errorType string, cause error) error {
	return c.report(ctx, "/2020-01-01/extension/exit/error", errorType, cause)
}

func (c *Client) report(ctx context.Context, path, errorType string, cause error) error {
	id, err := c.id()
	if err != nil {
		return err
	}
	body, err := json.Marshal(map[string]any{
		"errorMessage": cause.Error(), "errorType": errorType, "stackTrace": []string{},
	})
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, "POST", path, "Lambda-Extension-Identifier: "+id+
		"\r\nLambda-Extension-Function-Error-Type: "+errorType+"\r\n", body, nil)
	if err != nil {
		return err
	}
	if resp.status/100 != 2 {
		return apiError("POST "+path, resp)
	}
	return nil
}

// Subscription says what the Telemetry API shall deliver, and where.
type Subscription struct {
	Port     int           // of the extension's HTTP listener
	Types    []string      // platform, function, extension
	MaxItems int           // at least 1000, which 0 stands for
	MaxBytes int           // at least 262144, which 0 stands for
	Timeout  time.Duration // at least 25 ms, which 0 stands for
}

// Subscribe subscribes to the Telemetry API. The listener must be bound
// already: the environment may deliver at once.
func (c *Client) Subscribe(ctx context.Context, s Subscription) error {
	const path = "/2022-07-01/telemetry"
	id, err := c.id()
	if err != nil {
		return err
	}
	resp, err := c.do(ctx, "PUT", path, "Lambda-Extension-Identifier: "+id+"\r\n", s.body(), nil)
	if err != nil {
		return err
	}
	if resp.status/100 != 2 {
		return apiError("PUT "+path, resp)
	}
	return nil
}

func (s Subscription) body() []byte {
	b := make([]byte, 0, 256)
	b = append(b, `{"schemaVersion":"2022-12-13","types":[`...)
	for i, t := range s.Types {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendQuote(b, t)
	}
	b = append(b, `],"buffering":{"maxItems":`...)
	b = strconv.AppendInt(b, int64(max(s.MaxItems, 1000)), 10)
	b = append(b, `,"maxBytes":`...)
	b = strconv.AppendInt(b, int64(max(s.MaxBytes, 262144)), 10)
	b = append(b, `,"timeoutMs":`...)
	b = strconv.AppendInt(b, max(s.Timeout.Milliseconds(), 25), 10)
	b = append(b, `},"destination":{"protocol":"HTTP","URI":"http://sandbox.localdomain:`...)
	b = strconv.AppendInt(b, int64(s.Port), 10)
	return append(b, `/"}}`...)
}

func (c *Client) id() (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.identifier == "" {
		return "", ErrNotRegistered
	}
	return c.identifier, nil
}

func apiError(request string, resp *response) error {
	e := &Error{Request: request, Status: resp.status}
	var body struct {
		Type    string `json:"errorType"`
		Message string `json:"errorMessage"`
	}
	if json.Unmarshal(resp.body, &body) == nil {
		e.Type, e.Message = body.Type, body.Message
	} else if text := strings.TrimSpace(string(resp.body)); text != "" {
		e.Message = text[:min(len(text), 200)]
	}
	return e
}
