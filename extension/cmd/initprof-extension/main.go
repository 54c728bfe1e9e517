// Command initprof-extension is a Datadog-compatible Lambda extension: it takes
// DogStatsD metrics and traces from the function beside it, subscribes to
// telemetry, and flushes metrics to the configured intake. Its start is the
// subject that initprof is built on, and passes the checkpoints that the field
// knows, in their order.
package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/initprof/initprof/extension/api"
	"github.com/initprof/initprof/extension/checkpoint"
	"github.com/initprof/initprof/extension/config"
	"github.com/initprof/initprof/extension/dogstatsd"
	"github.com/initprof/initprof/extension/flush"
	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/extension/tags"
	"github.com/initprof/initprof/extension/telemetry"
	"github.com/initprof/initprof/extension/traceagent"
)

// lastFlush bounds the flush at SHUTDOWN: Lambda kills what remains after 2 s.
const lastFlush = 1500 * time.Millisecond

// drainFor is how long datagrams that were sent before the end of an invocation
// are waited for.
const drainFor = 5 * time.Millisecond

func main() {
	start := time.Now()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, start); err != nil {
		fmt.Fprintln(os.Stderr, "DD_EXTENSION | ERROR |", err)
		os.Exit(1)
	}
}

// extension is a running extension.
type extension struct {
	cfg        *config.Config
	log        *logging.Logger
	client     *api.Client
	aggregator metrics.Aggregator
	flusher    flush.Flusher
	statsd     *dogstatsd.Server
	traces     *traceagent.Server
	events     *telemetry.Server
}

func run(ctx context.Context, start time.Time) error {
	address := os.Getenv("AWS_LAMBDA_RUNTIME_API")
	if address == "" {
		return errors.New("AWS_LAMBDA_RUNTIME_API is not set: this program is started by Lambda, or by initprof sandbox")
	}
	e := &extension{}
	if err := e.start(ctx, address); err != nil {
		return err
	}
	checkpoint.Reach("ready")
	fmt.Printf("DD_EXTENSION | Datadog-compatible extension ready in %dms\n", time.Since(start).Milliseconds())
	return e.serve(ctx)
}

// start brings up everything that must run before the first /next.
func (e *extension) start(ctx context.Context, address string) error {
	level, levelErr := logging.ParseLevel(os.Getenv("DD_LOG_LEVEL"))
	e.log = logging.New(os.Stderr, level)
	if levelErr != nil {
		e.log.Warnf("%v", levelErr)
	}
	if e.log.Enabled(logging.Debug) {
		checkpoint.LogTo(os.Stderr)
	}
	roots, err := x509.SystemCertPool()
	if err != nil {
		e.log.Warnf("no system certificates: %v", err)
	}
	checkpoint.Reach("crypto_provider_ready")
	e.client = api.New(address, filepath.Base(os.Args[0]))
	checkpoint.Reach("tls_client_build")

	problem := e.configure(roots)
	registration, err := e.client.Register(ctx)
	if err != nil {
		return fmt.Errorf("register: %w", err)
	}
	if problem != nil {
		return e.fail(ctx, "Extension.ConfigInvalid", problem)
	}
	checkpoint.Reach("register_ready")
	arn := ""
	if f, err := registration.Function(); err == nil {
		arn = f.Name
	}
	own := tags.Make(e.cfg, arn, os.Getenv)
	e.flusher.Tags = func() []string { return own }
	return e.listen(ctx)
}

func (e *extension) configure(roots *x509.CertPool) error {
	var err error
	if e.cfg, err = config.Load(os.Getenv); err != nil {
		return err
	}
	e.log.Hide(string(e.cfg.APIKey))
	for _, p := range e.cfg.Problems {
		e.log.Warnf("%s", p)
	}
	checkpoint.Reach("config_parse")
	settings, err := intake.TLSConfig(e.cfg, roots)
	if err != nil {
		return err
	}
	shared, err := intake.New(e.cfg, settings)
	if err != nil {
		return err
	}
	e.flusher = flush.Flusher{Metrics: &e.aggregator, MetricsURL: e.cfg.MetricsURL, Client: shared, Log: e.log}
	checkpoint.Reach("shared_client_ready")
	return nil
}

// listen opens the listeners and subscribes to telemetry.
func (e *extension) listen(ctx context.Context) (err error) {
	at := func(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
	if e.statsd, err = dogstatsd.Listen(at(e.cfg.ListenHost, e.cfg.DogStatsDPort), &e.aggregator, e.log); err != nil {
		return e.fail(ctx, "Extension.DogStatsDListen", err)
	}
	checkpoint.Reach("dogstatsd_started")
	if e.traces, err = traceagent.Listen(at(e.cfg.ListenHost, e.cfg.TracePort), e.log); err != nil {
		return e.fail(ctx, "Extension.TraceAgentListen", err)
	}
	checkpoint.Reach("trace_agent_started")
	// The environment delivers from outside of the loopback interface in Lambda.
	if e.events, err = telemetry.Listen(at("", e.cfg.TelemetryPort), e.observe, e.log); err != nil {
		return e.fail(ctx, "Extension.TelemetryListen", err)
	}
	if err := e.client.Subscribe(ctx, api.Subscription{
		Port: e.cfg.TelemetryPort, Types: []string{"platform", "function", "extension"},
	}); err != nil {
		e.log.Warnf("telemetry: %v", err) // metrics and traces work without it
	}
	checkpoint.Reach("telemetry_subscribed")
	return nil
}

func (e *extension) fail(ctx context.Context, errorType string, cause error) error {
	if err := e.client.InitError(ctx, errorType, cause); err != nil {
		e.log.Errorf("report init/error: %v", err)
	}
	return cause
}

func (e *extension) observe(events []telemetry.Event) {
	for _, event := range events {
		e.log.Debugf("telemetry %s %s", event.Time.Format(time.RFC3339Nano), event.Type)
	}
}

// serve answers events until SHUTDOWN or a signal.
func (e *extension) serve(ctx context.Context) error {
	defer e.close()
	for {
		event, err := e.client.Next(ctx)
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("next: %w", err)
		}
		if event.Type == api.Shutdown {
			return nil
		}
		e.flush(ctx, e.cfg.FlushTimeout)
	}
}

func (e *extension) flush(ctx context.Context, within time.Duration) {
	e.statsd.Drain(drainFor)
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	if err := e.flusher.Flush(ctx); err != nil {
		e.log.Warnf("flush: %v", err)
	}
}

func (e *extension) close() {
	e.flush(context.Background(), lastFlush)
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := errors.Join(e.statsd.Close(), e.traces.Close(ctx), e.events.Close(ctx)); err != nil {
		e.log.Debugf("close: %v", err)
	}
	e.client.Close()
}
