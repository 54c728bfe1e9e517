package sandbox

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// telemetryEvent is one event as it goes to subscribers.
type telemetryEvent struct {
	category string
	json     []byte
}

// The relay keeps what happened during INIT for who subscribes later; so much
// of it at most, the largest buffer that a subscriber may ask for.
const (
	historyItems = 10000
	historyBytes = 1 << 20
)

// maxLogLine is the length from which Lambda cuts a log line in pieces.
const maxLogLine = 256 << 10

// relay passes telemetry on to the subscribers.
type relay struct {
	ctx    context.Context
	work   *sync.WaitGroup
	client *http.Client
	dial   func(ctx context.Context, network, address string) (net.Conn, error)
	host   string

	mu             sync.Mutex
	history        []telemetryEvent
	historyBytes   int
	historyDropped droppedRecord
	initOver       bool
	subscribers    map[string]*subscriber // by extension
}

func newRelay(ctx context.Context, work *sync.WaitGroup, dial func(context.Context, string, string) (net.Conn, error), host string) *relay {
	return &relay{
		ctx: ctx, work: work, dial: dial, host: host,
		subscribers: map[string]*subscriber{},
		client: &http.Client{
			Transport: &http.Transport{
				// The name in the URI is one of the environment's, not of the host.
				DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
					_, port, err := net.SplitHostPort(address)
					if err != nil {
						return nil, err
					}
					return dial(ctx, network, net.JoinHostPort(host, port))
				},
				DisableCompression: true,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// emit sends an event to who subscribed to its category, and keeps it for who
// does so before INIT ends.
func (r *relay) emit(category, kind string, record any) {
	body, err := json.Marshal(struct {
		Time   string `json:"time"`
		Type   string `json:"type"`
		Record any    `json:"record"`
	}{time.Now().UTC().Format(timeFormat), kind, record})
	if err != nil {
		panic("sandbox: encode telemetry: " + err.Error()) // structs of strings and numbers only
	}
	e := telemetryEvent{category: category, json: body}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subscribers {
		s.add(e)
	}
	if r.initOver {
		return
	}
	if len(r.history) == historyItems || r.historyBytes+len(body) > historyBytes {
		r.historyDropped.DroppedRecords++
		r.historyDropped.DroppedBytes += len(body)
		return
	}
	r.history = append(r.history, e)
	r.historyBytes += len(body)
}

// logLine emits a line of output.
func (r *relay) logLine(category, line string) {
	line = strings.TrimRight(line, "\r\n")
	for len(line) > maxLogLine {
		at := maxLogLine
		for at > maxLogLine-utf8.UTFMax && !utf8.RuneStart(line[at]) {
			at--
		}
		r.emit(category, category, line[:at])
		line = line[at:]
	}
	r.emit(category, category, line)
}

// subscribe begins delivery to an extension, with what happened so far. A
// second subscription of the same extension takes the place of its first and
// is not told the past again; then subscribe returns true. The caller must
// know that the environment is not closed.
func (r *relay) subscribe(extension string, config subscription) (already bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if old := r.subscribers[extension]; old != nil {
		old.reconfigure(config)
		return true
	}
	s := newSubscriber(r, config)
	r.subscribers[extension] = s
	for _, e := range r.history {
		s.add(e)
	}
	s.addDropped(r.historyDropped)
	r.work.Go(s.run)
	return false
}

// unsubscribe ends delivery to an extension that is gone.
func (r *relay) unsubscribe(extension string) {
	r.mu.Lock()
	s := r.subscribers[extension]
	delete(r.subscribers, extension)
	r.mu.Unlock()
	if s != nil {
		s.stop()
	}
}

// endInit forgets what was kept for late subscribers: there are none any more.
func (r *relay) endInit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.initOver = true
	r.history = nil
}

// flush makes every subscriber send what it has, without waiting for it.
func (r *relay) flush() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.subscribers {
		s.flush()
	}
}

func (r *relay) closeIdle() { r.client.CloseIdleConnections() }
