package sandbox

import "time"

// What goes over the wire. Field names and order are those of AWS's event
// schema reference (Telemetry API 2022-12-13) and of the Extensions API.

const (
	traceHeader = "X-Amzn-Trace-Id"
	timeFormat  = "2006-01-02T15:04:05.000Z"
)

// invokeEvent and shutdownEvent are the answers of an extension's next.
type invokeEvent struct {
	EventType          string  `json:"eventType"`
	DeadlineMs         int64   `json:"deadlineMs"`
	RequestID          string  `json:"requestId"`
	InvokedFunctionARN string  `json:"invokedFunctionArn"`
	Tracing            tracing `json:"tracing"`
}

type shutdownEvent struct {
	EventType      string `json:"eventType"`
	DeadlineMs     int64  `json:"deadlineMs"`
	ShutdownReason string `json:"shutdownReason"`
}

type tracing struct {
	SpanID string `json:"spanId,omitempty"`
	Type   string `json:"type"`
	Value  string `json:"value"`
}

// registerResponse is the answer to a register; AccountID only for who asked.
type registerResponse struct {
	AccountID       string `json:"accountId,omitempty"`
	FunctionName    string `json:"functionName"`
	FunctionVersion string `json:"functionVersion"`
	Handler         string `json:"handler"`
}

// errorResponse is every refusal's body.
type errorResponse struct {
	ErrorMessage string `json:"errorMessage"`
	ErrorType    string `json:"errorType"`
}

type statusResponse struct {
	Status string `json:"status"`
}

type initStartRecord struct {
	InitializationType string `json:"initializationType"`
	Phase              string `json:"phase"`
	RuntimeVersion     string `json:"runtimeVersion"`
	RuntimeVersionARN  string `json:"runtimeVersionArn"`
	FunctionName       string `json:"functionName"`
	FunctionVersion    string `json:"functionVersion"`
	InstanceID         string `json:"instanceId"`
	InstanceMaxMemory  int    `json:"instanceMaxMemory"`
}

type initRuntimeDoneRecord struct {
	InitializationType string `json:"initializationType"`
	Phase              string `json:"phase"`
	Status             string `json:"status"`
	ErrorType          string `json:"errorType,omitempty"`
}

type initReportRecord struct {
	InitializationType string      `json:"initializationType"`
	Phase              string      `json:"phase"`
	Status             string      `json:"status"`
	ErrorType          string      `json:"errorType,omitempty"`
	Metrics            initMetrics `json:"metrics"`
}

type initMetrics struct {
	DurationMs float64 `json:"durationMs"`
}

type extensionRecord struct {
	Name      string   `json:"name"`
	State     string   `json:"state"`
	Events    []string `json:"events"`
	ErrorType string   `json:"errorType,omitempty"`
}

type subscriptionRecord struct {
	Name  string   `json:"name"`
	State string   `json:"state"`
	Types []string `json:"types"`
}

type startRecord struct {
	RequestID string   `json:"requestId"`
	Version   string   `json:"version"`
	Tracing   *tracing `json:"tracing,omitempty"`
}

type runtimeDoneRecord struct {
	RequestID string              `json:"requestId"`
	Status    string              `json:"status"`
	ErrorType string              `json:"errorType,omitempty"`
	Metrics   *runtimeDoneMetrics `json:"metrics,omitempty"`
	Tracing   *tracing            `json:"tracing,omitempty"`
	Spans     []span              `json:"spans,omitempty"`
}

type runtimeDoneMetrics struct {
	DurationMs    float64 `json:"durationMs"`
	ProducedBytes int     `json:"producedBytes"`
}

type reportRecord struct {
	RequestID string        `json:"requestId"`
	Status    string        `json:"status"`
	ErrorType string        `json:"errorType,omitempty"`
	Metrics   reportMetrics `json:"metrics"`
	Tracing   *tracing      `json:"tracing,omitempty"`
	Spans     []span        `json:"spans,omitempty"`
}

type reportMetrics struct {
	DurationMs       float64 `json:"durationMs"`
	BilledDurationMs int64   `json:"billedDurationMs"`
	MemorySizeMB     int     `json:"memorySizeMB"`
	MaxMemoryUsedMB  int64   `json:"maxMemoryUsedMB"`
	InitDurationMs   float64 `json:"initDurationMs,omitempty"`
}

type droppedRecord struct {
	DroppedBytes   int    `json:"droppedBytes"`
	DroppedRecords int    `json:"droppedRecords"`
	Reason         string `json:"reason"`
}

type span struct {
	Name       string  `json:"name"`
	Start      string  `json:"start"`
	DurationMs float64 `json:"durationMs"`
}

// newSpan takes its ends on CLOCK_MONOTONIC.
func newSpan(name string, from, to int64) span {
	wall := time.Now().Add(-time.Duration(monotonic() - from))
	return span{Name: name, Start: wall.UTC().Format(timeFormat), DurationMs: millisecondsBetween(from, to)}
}
