package boot

import (
	"context"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/initprof/initprof/extension/flush"
	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logs"
	"github.com/initprof/initprof/extension/tags"
	"github.com/initprof/initprof/extension/traceagent"
)

// losses counts what found no room in a buffer. Each buffer says so when it fills
// for the first time; SHUTDOWN says how much it was.
type losses struct {
	samples  atomic.Uint64 // of metrics
	payloads atomic.Uint64 // of traces
	lines    atomic.Uint64 // of logs
}

// sources says what is flushed, and where to. It is built at the first flush,
// behind the first next.
func (e *extension) sources() []flush.Source {
	makeTags := func() []string { return tags.Make(e.config, e.invokes.function(), e.opts.Getenv) }
	if e.changes.Tags {
		makeTags = sync.OnceValue(makeTags)
	}
	return []flush.Source{
		flush.Metrics(&e.metrics, e.config.MetricsURL, makeTags, func(n uint64) { e.lost.samples.Add(n) }),
		func(_ bool, emit func(intake.Request)) {
			payloads, dropped := e.traces.Take()
			e.lost.payloads.Add(dropped)
			if len(payloads) == 0 {
				return
			}
			err := traceagent.Encode(payloads, traceagent.Identity{
				Env: e.config.Env, Version: e.config.Version, Tags: strings.Join(makeTags(), ","), More: e.spanTags,
			}, func(body []byte) {
				emit(intake.Pack(e.config.TracesURL+"/api/v0.2/traces", "application/x-protobuf", body))
			})
			if err != nil {
				e.log.Warnf("trace agent: traces that cannot be read were left out: %v", err)
			}
		},
		func(last bool, emit func(intake.Request)) {
			e.lost.lines.Add(e.logs.Take(last, func() logs.Identity {
				return logs.Identity{ARN: e.invokes.function().ARN, Service: e.config.Service, Tags: strings.Join(makeTags(), ",")}
			}, func(body []byte) {
				emit(intake.Pack(e.config.LogsURL+"/api/v2/logs", "application/json", body))
			}))
		},
	}
}

// discard empties the buffers where there is no API key: nothing will be sent.
func (e *extension) discard() {
	e.metrics.Reset()
	_, _ = e.traces.Take()
	e.logs.Reset()
}

// flush sends what is buffered, for as long as DD_FLUSH_TIMEOUT allows.
func (e *extension) flush(ctx context.Context, last bool) {
	f := &e.flusher
	e.flushing.Do(func() {
		e.loadRoots()
		f.Client, f.Log, f.Sources = e.intake, e.log, e.sources()
	})
	ctx, cancel := context.WithTimeout(ctx, e.config.FlushTimeout)
	defer cancel()
	e.settle(ctx, last)
	e.schedule.flushed(time.Now())
	if err := f.Flush(ctx, last); err != nil {
		e.log.Warnf("%v", err)
	}
}
