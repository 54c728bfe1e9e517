package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"
)

// How delivery is retried: "Lambda retries the attempt to send telemetry (with
// backoff) if there is no listener, or if the POST request results in an
// error" (Lambda developer guide, Telemetry API). The figures are this
// environment's own.
const (
	firstBackoff    = time.Millisecond
	lastBackoff     = 250 * time.Millisecond
	deliveryTimeout = 10 * time.Second
)

const dropReason = "Consumer seems to have fallen behind as it has not acknowledged receipt of logs."

// subscriber delivers telemetry to one extension. Events gather in queue until
// there are maxItems, or maxBytes of them, or the first is timeout old; then
// they are a batch. One batch can be on its way and one wait behind it, so that
// at most about three buffers are held; what comes beyond is dropped and
// counted.
type subscriber struct {
	relay *relay
	ctx   context.Context
	stop  context.CancelFunc
	conn  net.Conn // of a TCP destination; run's own

	mu      sync.Mutex
	config  subscription
	queue   batch
	full    *batch    // waits to be sent
	since   time.Time // when queue got its first event
	hurry   bool      // send queue now
	dropped droppedRecord
	wake    chan struct{} // has room for one: something of the above changed
}

type batch struct {
	events []([]byte)
	bytes  int
}

func newSubscriber(r *relay, config subscription) *subscriber {
	s := &subscriber{relay: r, config: config, wake: make(chan struct{}, 1)}
	s.ctx, s.stop = context.WithCancel(r.ctx)
	return s
}

func (s *subscriber) reconfigure(config subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.config = config
	s.notify()
}

func (s *subscriber) notify() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *subscriber) flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hurry = true
	s.notify()
}

func (s *subscriber) addDropped(d droppedRecord) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropped.DroppedBytes += d.DroppedBytes
	s.dropped.DroppedRecords += d.DroppedRecords
}

// add takes an event, if it is of a category that was subscribed to.
func (s *subscriber) add(e telemetryEvent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !slices.Contains(s.config.types, e.category) {
		return
	}
	if len(s.queue.events) >= s.config.maxItems || s.queue.bytes >= s.config.maxBytes {
		if s.full != nil {
			s.dropped.DroppedRecords++
			s.dropped.DroppedBytes += len(e.json)
			return
		}
		s.sealLocked()
	}
	if len(s.queue.events) == 0 {
		s.since = time.Now()
		s.notify()
	}
	s.queue.events = append(s.queue.events, e.json)
	s.queue.bytes += len(e.json)
	if len(s.queue.events) >= s.config.maxItems || s.queue.bytes >= s.config.maxBytes {
		s.notify()
	}
}

// sealLocked makes a batch of the queue.
func (s *subscriber) sealLocked() {
	if d := s.dropped; d.DroppedRecords > 0 {
		s.dropped = droppedRecord{}
		if slices.Contains(s.config.types, categoryPlatform) {
			d.Reason = dropReason
			body, err := json.Marshal(struct {
				Time   string        `json:"time"`
				Type   string        `json:"type"`
				Record droppedRecord `json:"record"`
			}{time.Now().UTC().Format(timeFormat), "platform.logsDropped", d})
			if err != nil {
				panic("sandbox: encode platform.logsDropped: " + err.Error()) // integers and a constant
			}
			s.queue.events = append(s.queue.events, body)
			s.queue.bytes += len(body)
		}
	}
	full := s.queue
	s.full = &full
	s.queue = batch{}
}

// take returns the batch that is due, or how long to wait for one; a negative
// wait is for ever.
func (s *subscriber) take() (*batch, time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.full == nil {
		if len(s.queue.events) == 0 && s.dropped.DroppedRecords == 0 {
			s.hurry = false
			return nil, -1
		}
		wait := time.Until(s.since.Add(s.config.timeout))
		ripe := s.hurry || wait <= 0 || len(s.queue.events) >= s.config.maxItems || s.queue.bytes >= s.config.maxBytes
		if !ripe {
			return nil, wait
		}
		s.hurry = false
		s.sealLocked()
	}
	b := s.full
	s.full = nil
	if len(b.events) == 0 {
		return nil, -1 // only losses, which this subscriber is not told
	}
	return b, 0
}

// run delivers until the extension or the environment ends.
func (s *subscriber) run() {
	defer s.stop()
	defer s.disconnect()
	for s.ctx.Err() == nil {
		b, wait := s.take()
		if b != nil {
			s.deliver(b)
			continue
		}
		var timer <-chan time.Time
		if wait >= 0 {
			timer = time.After(wait)
		}
		select {
		case <-timer:
		case <-s.wake:
		case <-s.ctx.Done():
		}
	}
}

// deliver sends one batch, again and again until it arrives.
func (s *subscriber) deliver(b *batch) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, lastBackoff) {
		s.mu.Lock()
		config := s.config
		s.mu.Unlock()
		err := s.send(config, b)
		if err == nil || s.ctx.Err() != nil {
			return
		}
		select {
		case <-time.After(backoff):
		case <-s.ctx.Done():
			return
		}
	}
}

func (s *subscriber) send(config subscription, b *batch) error {
	ctx, cancel := context.WithTimeout(s.ctx, deliveryTimeout)
	defer cancel()
	if config.tcp {
		return s.sendTCP(ctx, config, b)
	}
	body := make([]byte, 0, b.bytes+len(b.events)+2)
	body = append(body, '[')
	body = append(body, bytes.Join(b.events, []byte{','})...)
	body = append(body, ']')
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+config.host+config.path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", contentJSON)
	answer, err := s.relay.client.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	_, _ = io.CopyN(io.Discard, answer.Body, 1<<20) // so that the connection can be used again
	if answer.StatusCode >= http.StatusMultipleChoices {
		return fmt.Errorf("telemetry listener answered %s", answer.Status)
	}
	return nil
}

// sendTCP sends newline-delimited JSON over a connection that stays open.
func (s *subscriber) sendTCP(ctx context.Context, config subscription, b *batch) error {
	if s.conn == nil {
		conn, err := s.relay.dial(ctx, "tcp", net.JoinHostPort(s.relay.host, strconv.Itoa(int(config.port))))
		if err != nil {
			return err
		}
		s.conn = conn
	}
	deadline, _ := ctx.Deadline()
	_ = s.conn.SetWriteDeadline(deadline)
	conn := s.conn
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	if _, err := s.conn.Write(append(bytes.Join(b.events, []byte{'\n'}), '\n')); err != nil {
		s.disconnect()
		return err
	}
	return nil
}

func (s *subscriber) disconnect() {
	if s.conn != nil {
		_ = s.conn.Close()
		s.conn = nil
	}
}
