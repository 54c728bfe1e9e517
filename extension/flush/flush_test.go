package flush

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
)

type fake struct {
	err  error
	sent []string
}

func (f *fake) Post(_ context.Context, address, _ string, body []byte) error {
	if f.err == nil {
		f.sent = append(f.sent, address+" "+string(body))
	}
	return f.err
}

func TestFlush(t *testing.T) {
	var a metrics.Aggregator
	var log bytes.Buffer
	client := &fake{err: errors.New("down")}
	f := &Flusher{
		Metrics: &a, MetricsURL: "http://x", Client: client, Log: logging.New(&log, logging.Warn),
		Tags: func() []string { return []string{"env:t"} },
	}
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	a.Add(metrics.Sample{Name: "d", Type: metrics.Distribution, Value: 2})
	if err := f.Flush(t.Context()); err == nil || f.Waiting() != 2 {
		t.Errorf("%v, %d waiting", err, f.Waiting())
	}
	client.err = nil
	if err := f.Flush(t.Context()); err != nil || f.Waiting() != 0 || len(client.sent) != 2 {
		t.Fatalf("%v %q", err, client.sent)
	}
	if !strings.HasPrefix(client.sent[0], "http://x/api/v2/series {") || !strings.Contains(client.sent[1], `distribution_points {"series":[{"metric":"d"`) ||
		!strings.Contains(client.sent[0], `"env:t"`) {
		t.Errorf("%q", client.sent)
	}
	client.err = intake.ErrRejected
	a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
	if err := f.Flush(t.Context()); err != nil || f.Waiting() != 0 {
		t.Error("what the intake rejects must not be kept", err)
	}
}

func TestQueueIsBounded(t *testing.T) {
	var a metrics.Aggregator
	f := &Flusher{Metrics: &a, Client: &fake{err: errors.New("down")}, Log: logging.New(&bytes.Buffer{}, logging.Off)}
	for range maxQueue + 5 {
		a.Add(metrics.Sample{Name: "c", Type: metrics.Count, Value: 1})
		_ = f.Flush(t.Context())
	}
	if f.Waiting() != maxQueue || f.dropped != 5 {
		t.Errorf("%d waiting, %d dropped", f.Waiting(), f.dropped)
	}
}
