package boot

import (
	"runtime"
	"time"

	"github.com/initprof/initprof/extension/lifecycle"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/extension/telemetry"
	"github.com/initprof/initprof/extension/traceagent"
	"github.com/initprof/initprof/extension/usage"
)

// endSpan hands the span of an invocation to the traces.
func (e *extension) endSpan(s lifecycle.Span) {
	name := e.opts.Getenv("AWS_LAMBDA_FUNCTION_NAME")
	// The end of the runtime's part is told up to 25 ms later by telemetry, with the
	// invocation's last log lines. Where logs are not wanted, this end will do, or
	// that of the answer where AppSec's proxy sees it.
	if !e.config.LogsEnabled && e.proxy == nil {
		defer e.invocationEnds(s.RequestID, 0)
	}
	e.traces.Add(traceagent.Payload{Version: "v0.4", Body: s.Payload(e.config.Service, name)})
}

// handleTelemetry takes one delivery.
func (e *extension) handleTelemetry(events []telemetry.Event) {
	if e.config.LogsEnabled {
		e.logs.Add(events)
	}
	for i := range events {
		event := &events[i]
		switch event.Type {
		case "platform.initStart":
			if p, err := event.Platform(); err == nil {
				e.invokes.initStarted(p.RuntimeVersion)
			}
		case "platform.runtimeDone":
			if p, err := event.Platform(); err == nil {
				e.runtimeDone(event.Time, &p)
			}
		case "platform.report":
			if p, err := event.Platform(); err == nil {
				e.report(event.Time, &p)
			}
		}
	}
}

// enhanced is whether metrics of invocations are made.
func (e *extension) enhanced() bool { return e.config.EnhancedMetrics && e.config.APIKey != "" }

// add takes in a metric of an invocation.
func (e *extension) add(at time.Time, name string, v float64) {
	e.metrics.Add(metrics.Sample{Name: "aws.lambda.enhanced." + name, Type: metrics.Distribution, Value: v, Time: at})
}

// invocationBegins counts an invocation and reads what its environment has used
// so far.
func (e *extension) invocationBegins() *usage.Snapshot {
	if !e.enhanced() {
		return nil
	}
	e.add(time.Now(), "invocations", 1)
	before, err := usage.Read("/proc")
	if err != nil {
		e.log.WarnOnce("usage", "no metrics of CPU and network: %v", err)
		return nil
	}
	return &before
}

// invocationEnds makes metrics of what the invocation used.
func (e *extension) invocationEnds(requestID string, ms float64) {
	before := e.invokes.finished(requestID, ms)
	if before == nil {
		return
	}
	if after, err := usage.Read("/proc"); err == nil {
		now := time.Now()
		add := func(name string, v float64) { e.add(now, name, v) }
		after.Since(before, add)
		usage.Held("/proc", "/tmp", add)
	}
}

func (e *extension) runtimeDone(at time.Time, p *telemetry.Platform) {
	if e.enhanced() {
		e.add(at, "runtime_duration", p.Metrics.DurationMs)
		if p.Metrics.ProducedBytes > 0 {
			e.add(at, "produced_bytes", p.Metrics.ProducedBytes)
		}
		if p.Status != "success" {
			e.add(at, "errors", 1)
		}
		if p.Status == "timeout" {
			e.add(at, "timeouts", 1)
		}
		if p.ErrorType == "Runtime.OutOfMemory" {
			e.add(at, "out_of_memory", 1)
		}
	}
	e.invocationEnds(p.RequestID, p.Metrics.DurationMs) // last: the flush may follow
}

// Prices in US dollars of a request and of a second of 1 GB, as Datadog's
// extension has them for aws.lambda.enhanced.estimated_cost.
const (
	requestPrice       = 0.0000002
	secondPriceOfX86   = 0.0000166667
	secondPriceOfArm64 = 0.0000133334
)

func (e *extension) report(at time.Time, p *telemetry.Platform) {
	if !e.enhanced() {
		return
	}
	m := &p.Metrics
	e.add(at, "duration", m.DurationMs/1000)
	e.add(at, "billed_duration", m.BilledDurationMs/1000)
	e.add(at, "max_memory_used", m.MaxMemoryUsedMB)
	e.add(at, "memorysize", m.MemorySizeMB)
	price := secondPriceOfX86
	if runtime.GOARCH == "arm64" {
		price = secondPriceOfArm64
	}
	e.add(at, "estimated_cost", requestPrice+m.BilledDurationMs/1000*m.MemorySizeMB/1024*price)
	if ms := e.invokes.runtimeDuration(p.RequestID); ms > 0 {
		e.add(at, "post_runtime_duration", m.DurationMs-ms) // in ms, as runtime_duration
	}
	if m.InitDurationMs > 0 {
		e.add(at, "init_duration", m.InitDurationMs/1000)
	}
}
