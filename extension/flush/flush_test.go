package flush

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

// fake takes requests, or fails those of an address that has an error.
type fake struct {
	mu    sync.Mutex
	err   map[string]error
	tried int
	sent  []string
	idle  int
}

func (f *fake) Post(_ context.Context, r intake.Request) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tried++
	if err := f.err[r.Address]; err != nil {
		return err
	}
	f.sent = append(f.sent, r.Address+" "+r.ContentType)
	return nil
}

func (f *fake) Idle() { f.idle++ }

func (f *Flusher) waits(t *testing.T, want int) {
	t.Helper()
	if n, _ := f.Waiting(); n != want {
		t.Errorf("%d requests wait, want %d", n, want)
	}
}

// over ends all pauses, as time would.
func (f *Flusher) over() {
	for address, p := range f.pauses {
		f.pauses[address] = pause{p.failures, time.Time{}}
	}
}

func TestFlush(t *testing.T) {
	var a metrics.Aggregator
	var log bytes.Buffer
	logger := logging.New(&log, logging.Warn)
	down := errors.New("down")
	client := &fake{err: map[string]error{"http://x/api/v2/series": down, "http://x/api/beta/sketches": down}}
	f := &Flusher{
		Client: client, Log: logger,
		Sources: []Source{Metrics(&a, "http://x", func() []string { return []string{"env:t"} }, func(uint64) {})},
	}
	if err := f.Flush(t.Context(), false); err != nil || client.tried != 0 || client.idle != 0 {
		t.Errorf("nothing to send: %v, %d requests", err, client.tried)
	}
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	a.Add(metrics.Sample{Name: "d", Type: metrics.Distribution, Value: 2})
	if err := f.Flush(t.Context(), false); !errors.Is(err, down) {
		t.Error(err)
	}
	f.waits(t, 2)
	client.err = nil
	f.over()
	if err := f.Flush(t.Context(), false); err != nil {
		t.Error(err)
	}
	f.waits(t, 0)
	slices.Sort(client.sent)
	if want := []string{"http://x/api/beta/sketches application/x-protobuf", "http://x/api/v2/series application/json"}; !slices.Equal(client.sent, want) {
		t.Errorf("%q", client.sent)
	}
	client.err = map[string]error{"http://x/api/v2/series": fmt.Errorf("403: %w", intake.ErrRejected)}
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	if err := f.Flush(t.Context(), false); err != nil {
		t.Error(err)
	}
	f.waits(t, 0) // what the intake rejects is not kept
	if !strings.Contains(log.String(), "403") {
		t.Error(log.String())
	}
}

// TestBackOff: an intake that is down costs one attempt a pause, and another
// intake nothing.
func TestBackOff(t *testing.T) {
	client := &fake{err: map[string]error{"down": errors.New("refused"), "busy": &intake.BusyError{RetryAfter: 30 * time.Second}}}
	f := &Flusher{Client: client, Log: logging.New(&bytes.Buffer{}, logging.Off)}
	f.Sources = []Source{func(_ bool, emit func(intake.Request)) {
		for _, address := range []string{"down", "busy", "up"} {
			emit(intake.Request{Address: address})
		}
	}}
	for range 5 {
		_ = f.Flush(t.Context(), false)
	}
	if client.tried != 2+5 || len(client.sent) != 5 {
		t.Errorf("%d requests, %d sent", client.tried, len(client.sent))
	}
	f.waits(t, 10)
	if p := time.Until(f.pauses["busy"].until); p < 20*time.Second {
		t.Errorf("busy for %v", p)
	}
	last := time.Duration(0)
	for range 12 {
		f.over()
		_ = f.Flush(t.Context(), false)
		p := time.Until(f.pauses["down"].until)
		if p < last || p > maxPause {
			t.Errorf("a pause of %v after one of %v", p, last)
		}
		last = p - time.Second
	}
	client.err = nil
	if err := f.Flush(t.Context(), true); err != nil { // SHUTDOWN does not wait for a pause
		t.Error(err)
	}
	f.waits(t, 0)
}

func TestQueueIsBounded(t *testing.T) {
	var log bytes.Buffer
	client := &fake{err: map[string]error{"x": errors.New("down")}}
	f := &Flusher{Client: client, Log: logging.New(&log, logging.Warn)}
	body := make([]byte, maxWaitingBytes/4)
	f.Sources = []Source{func(_ bool, emit func(intake.Request)) { emit(intake.Request{Address: "x", Body: body}) }}
	for range 7 {
		_ = f.Flush(t.Context(), false)
	}
	if n, dropped := f.Waiting(); n != 4 || dropped != 3 || strings.Count(log.String(), "dropped") != 1 {
		t.Errorf("%d waiting, %d dropped, log %s", n, dropped, log.String())
	}
	f = &Flusher{Client: client, Log: logging.New(&log, logging.Warn)}
	f.Sources = []Source{func(_ bool, emit func(intake.Request)) { emit(intake.Request{Address: "x"}) }}
	for range maxWaiting + 5 {
		_ = f.Flush(t.Context(), false)
	}
	if n, dropped := f.Waiting(); n != maxWaiting || dropped != 5 {
		t.Errorf("%d waiting, %d dropped", n, dropped)
	}
}
