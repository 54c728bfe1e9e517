package flush

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

type fake struct {
	mu   sync.Mutex
	err  error
	sent []string
}

func (f *fake) Post(_ context.Context, address, _ string, body []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err == nil {
		f.sent = append(f.sent, address+" "+string(body))
	}
	return f.err
}

func TestFlush(t *testing.T) {
	var a metrics.Aggregator
	var log bytes.Buffer
	logger := logging.New(&log, logging.Warn)
	client := &fake{err: errors.New("down")}
	f := &Flusher{
		Client: client, Log: logger,
		Sources: []Source{Metrics(&a, "http://x", func() []string { return []string{"env:t"} }, logger)},
	}
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	a.Add(metrics.Sample{Name: "d", Type: metrics.Distribution, Value: 2})
	if err := f.Flush(t.Context(), false); err == nil || f.Waiting() != 2 {
		t.Errorf("%v, %d waiting", err, f.Waiting())
	}
	client.err = nil
	if err := f.Flush(t.Context(), false); err != nil || f.Waiting() != 0 || len(client.sent) != 2 {
		t.Fatalf("%v %q", err, client.sent)
	}
	slices.Sort(client.sent)
	if !strings.HasPrefix(client.sent[1], "http://x/api/v2/series {") || !strings.Contains(client.sent[0], `distribution_points {"series":[{"metric":"d"`) ||
		!strings.Contains(client.sent[1], `"env:t"`) {
		t.Errorf("%q", client.sent)
	}
	client.err = intake.ErrRejected
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	if err := f.Flush(t.Context(), true); err != nil || f.Waiting() != 0 {
		t.Error("what the intake rejects must not be kept", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	f := &Flusher{Client: &fake{err: errors.New("down")}, Log: logging.New(&bytes.Buffer{}, logging.Off)}
	body := make([]byte, maxWaitingSize/4)
	f.Sources = []Source{func(bool) []Request { return []Request{{"http://x", "a/b", body}} }}
	for range 7 {
		_ = f.Flush(t.Context(), false)
	}
	if f.Waiting() != 4 || f.dropped != 3 {
		t.Errorf("%d waiting, %d dropped", f.Waiting(), f.dropped)
	}
}
