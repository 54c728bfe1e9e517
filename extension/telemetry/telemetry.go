// Package telemetry receives what the Telemetry API (2022-07-01) delivers to
// port 8999: platform events, and the log lines of the function. Listen binds
// the port at once, so that boot may subscribe as soon as it returns; decoding
// waits for the first delivery.
package telemetry

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/initprof/initprof/extension/listener"
	"github.com/initprof/initprof/extension/logging"
)

// maxBody is more than the buffering that is subscribed for ever delivers.
const maxBody = 4 << 20

// Event is one element of a delivery. Its record is decoded by who needs it.
type Event struct {
	Time   time.Time       `json:"time"`
	Type   string          `json:"type"`
	Record json.RawMessage `json:"record"`
}

// Platform is the record of the platform events, as far as they are used.
type Platform struct {
	RequestID      string `json:"requestId"`
	Status         string `json:"status"`
	ErrorType      string `json:"errorType"`
	RuntimeVersion string `json:"runtimeVersion"` // initStart
	Metrics        struct {
		DurationMs       float64 `json:"durationMs"`
		ProducedBytes    float64 `json:"producedBytes"`
		BilledDurationMs float64 `json:"billedDurationMs"`
		InitDurationMs   float64 `json:"initDurationMs"`
		MemorySizeMB     float64 `json:"memorySizeMB"`
		MaxMemoryUsedMB  float64 `json:"maxMemoryUsedMB"`
	} `json:"metrics"`
}

// Handler takes the events of one delivery, in their order.
type Handler func(events []Event)

// Server listens until it is closed.
type Server struct {
	listener.HTTP

	handle Handler
	log    *logging.Logger
}

// Listen binds the address and serves it. The environment delivers from outside
// of the extension's own addresses, so address names all interfaces in Lambda.
func Listen(address string, handle Handler, log *logging.Logger) (*Server, error) {
	s := &Server{handle: handle, log: log}
	if err := s.Listen(address, s, log); err != nil {
		return nil, fmt.Errorf("telemetry: %w", err)
	}
	return s, nil
}

// ServeHTTP takes one delivery. Whatever cannot be understood is answered as
// taken, since the environment would only repeat it.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost {
		http.Error(w, "POST", http.StatusMethodNotAllowed)
		return
	}
	body, err := s.Body(w, r, maxBody)
	if err != nil {
		s.Refuse(w, r, err)
		return
	}
	events, bad, err := Decode(body)
	if err != nil {
		s.log.WarnOnce("telemetry malformed", "telemetry: %v", err)
		return
	}
	if bad > 0 {
		s.log.WarnOnce("telemetry events", "telemetry: %d of %d events were not understood", bad, bad+len(events))
	}
	if len(events) > 0 {
		s.handle(events)
	}
}

// Decode reads a delivery. An element that is not understood costs only itself;
// bad counts them. Types that are not known are kept.
func Decode(body []byte) (events []Event, bad int, err error) {
	var raw []json.RawMessage
	if err := json.Unmarshal(body, &raw); err != nil {
		return nil, 0, fmt.Errorf("a delivery that is no JSON array: %w", err)
	}
	for _, element := range raw {
		var e Event
		if json.Unmarshal(element, &e) != nil || e.Type == "" {
			bad++
			continue
		}
		events = append(events, e)
	}
	return events, bad, nil
}

// Platform decodes the record of a platform event.
func (e *Event) Platform() (Platform, error) {
	var p Platform
	if err := json.Unmarshal(e.Record, &p); err != nil {
		return p, fmt.Errorf("%s: %w", e.Type, err)
	}
	return p, nil
}

// Line is the log line of a function or extension event: text as it is, a JSON
// record as JSON.
func (e *Event) Line() string {
	var text string
	if json.Unmarshal(e.Record, &text) == nil {
		return text
	}
	return string(e.Record)
}
