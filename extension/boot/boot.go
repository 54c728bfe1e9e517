// Package boot is the extension's init path: it builds every part in the order
// of the H0 checkpoints, or overlapped as the changes say, and then runs the
// loop of invocations. It knows all other packages of extension; the command
// only calls Run.
package boot

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/initprof/initprof/extension/api"
	"github.com/initprof/initprof/extension/appsec"
	"github.com/initprof/initprof/extension/changes"
	"github.com/initprof/initprof/extension/checkpoint"
	"github.com/initprof/initprof/extension/config"
	"github.com/initprof/initprof/extension/dogstatsd"
	"github.com/initprof/initprof/extension/flush"
	"github.com/initprof/initprof/extension/intake"
	"github.com/initprof/initprof/extension/lifecycle"
	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/logs"
	"github.com/initprof/initprof/extension/metrics"
	"github.com/initprof/initprof/extension/proxy"
	"github.com/initprof/initprof/extension/telemetry"
	"github.com/initprof/initprof/extension/traceagent"
)

// Options is what the command hands over.
type Options struct {
	Start   time.Time           // first instant of main
	Getenv  func(string) string // the environment
	Program string              // os.Args[0]: its file name is registered
	Log     io.Writer           // standard error
	// Telemetry is the address of the telemetry listener; empty stands for
	// 0.0.0.0:8999. All interfaces, since the environment delivers to
	// sandbox.localdomain, which is not a loopback address in Lambda.
	Telemetry string
	// Helper is the program that runs AppSec's firewall; empty stands for where
	// the layer has it.
	Helper string
}

// gcPercent is what the runtime starts with; h16 goes back to it.
const gcPercent = 100

// memoryDuringInit is the heap limit while h16 keeps the collector off.
const memoryDuringInit = 48 << 20

// extension is the running extension.
type extension struct {
	opts    Options
	changes changes.Set
	log     *logging.Logger
	config  *config.Config

	api     *api.Client
	tls     *tls.Config
	intake  *intake.Client
	metrics metrics.Aggregator
	dogstat *dogstatsd.Server
	traces  *traceagent.Server
	life    *lifecycle.Server
	events  *telemetry.Server
	logs    logs.Collector
	flusher flush.Flusher
	lost    losses
	invokes invocations
	waf     atomic.Pointer[appsec.WAF] // nil: AppSec is off, or not read of yet
	proxy   *proxy.Server
	watched watched

	memoryLimit int64 // what h16 goes back to

	schedule   schedule
	flushing   sync.Once       // makes the flusher's sources
	ticking    sync.Once       // starts to flush by the clock
	background context.Context // ends when SHUTDOWN begins, by stop
	stop       context.CancelFunc

	subscribed chan error    // closed or sent to when the subscription was answered
	asked      chan struct{} // closed when the first next is on its way
}

// failure is an error with the type that init/error reports.
type failure struct {
	kind  string
	cause error
}

func (f *failure) Error() string { return f.cause.Error() }
func (f *failure) Unwrap() error { return f.cause }

func fail(kind string, err error) error { return &failure{kind, err} }

// Run is the whole life of the extension. It returns the exit status.
func Run(ctx context.Context, opts Options) int {
	level, _ := logging.ParseLevel(opts.Getenv("DD_LOG_LEVEL")) // config tells of mistakes
	e := &extension{opts: opts, log: logging.New(opts.Log, level), asked: make(chan struct{})}
	e.logs.Log = e.log
	if level >= logging.Debug {
		checkpoint.LogTo(opts.Log)
	}
	address := opts.Getenv("AWS_LAMBDA_RUNTIME_API")
	if address == "" {
		e.log.Errorf("AWS_LAMBDA_RUNTIME_API is not set: this program is started by Lambda from /opt/extensions")
		return 2
	}
	e.api = api.New(address, filepath.Base(opts.Program))
	defer e.api.Close()
	defer e.closeAppSec()
	if err := e.init(ctx); err != nil {
		e.initError(ctx, err)
		return 1
	}
	return e.loop(ctx)
}

// initError tells the environment why INIT failed. It registers first where
// that had not been done, since only registered extensions are listened to.
func (e *extension) initError(ctx context.Context, err error) {
	e.tellProblems()
	e.log.Errorf("init: %v", err)
	kind := "Extension.InitFailed"
	var f *failure
	if errors.As(err, &f) {
		kind = f.kind
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	told := e.api.InitError(ctx, kind, err)
	if errors.Is(told, api.ErrNotRegistered) {
		if _, told = e.api.Register(ctx); told == nil {
			told = e.api.InitError(ctx, kind, err)
		}
	}
	if told != nil {
		e.log.Errorf("init/error could not be reported: %v", told)
	}
}

// span runs a part of the init path between the marks of a span.
func span(name string, part func() error) error {
	checkpoint.Begin(name, 1)
	err := part()
	checkpoint.End(name, 1)
	return err
}

func (e *extension) init(ctx context.Context) error {
	set, err := changes.Parse(e.opts.Getenv(changes.Variable))
	if err != nil {
		return fail("Extension.ConfigInvalid", err)
	}
	e.changes = set
	if set.H15 {
		runtime.GOMAXPROCS(threads(e.opts.Getenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")))
	}
	if set.H16 {
		e.memoryLimit = debug.SetMemoryLimit(memoryDuringInit)
		debug.SetGCPercent(-1)
	}

	// Go's crypto needs no provider installed; what there is to choose is the
	// lowest protocol version.
	e.tls = &tls.Config{MinVersion: tls.VersionTLS12}
	checkpoint.Reach("crypto_provider_ready")

	// Before register: the runtime starts when all extensions have registered.
	if err := e.startProxy(); err != nil {
		return fail("Extension.ListenFailed", err)
	}
	registered := make(chan error, 1)
	register := func() error {
		return span("register", func() error {
			_, err := e.api.Register(ctx)
			return err
		})
	}
	if set.H4 {
		go func() {
			err := e.buildRegisterClient()
			if err == nil {
				err = register()
			}
			registered <- err
		}()
	} else if err := e.buildRegisterClient(); err != nil {
		return err
	}
	if err := span("config", e.readConfig); err != nil {
		return fail("Extension.ConfigInvalid", err)
	}
	checkpoint.Reach("config_parse")
	if err := span("shared_client", e.buildSharedClient); err != nil {
		return fail("Extension.ConfigInvalid", err)
	}
	checkpoint.Reach("shared_client_ready")
	if set.H4 {
		err = <-registered
	} else {
		err = register()
	}
	if err != nil {
		return fail("Extension.RegisterFailed", err)
	}
	checkpoint.Reach("register_ready")
	return e.startServices(ctx)
}

// buildRegisterClient is H0's "TLS client": the client for register and next.
// It speaks plain HTTP, but the extension that the order comes from gives it
// certificates all the same, and so does the baseline here.
func (e *extension) buildRegisterClient() error {
	defer checkpoint.Reach("tls_client_build")
	return span("tls_client", func() error {
		if e.changes.H1 != changes.NativeEager {
			return nil
		}
		_, err := x509.SystemCertPool()
		return err
	})
}

func (e *extension) readConfig() (err error) {
	if e.config, err = config.Load(e.opts.Getenv); err != nil {
		return err
	}
	e.log.Hide(string(e.config.APIKey))
	e.log.SetLevel(e.config.LogLevel) // the file may name another than the environment
	return nil
}

// tellProblems logs which settings were ignored, once INIT has ended.
func (e *extension) tellProblems() {
	if e.config == nil {
		return
	}
	for _, p := range e.config.Problems {
		e.log.Warnf("%s", p)
	}
}

func (e *extension) buildSharedClient() error {
	var roots *x509.CertPool
	if e.config.CAFile == "" && !e.config.SkipTLSVerify {
		switch e.changes.H1 {
		case changes.NativeEager:
			pool, err := x509.SystemCertPool() // kept by the register client's build
			if err != nil {
				return err
			}
			roots = pool
		case changes.Embedded, changes.Deferred: // behind the first next
		}
	}
	var err error
	if e.tls, err = intake.TLSConfig(e.config, roots); err != nil {
		return err
	}
	e.intake, err = intake.New(e.config, e.tls)
	return err
}

// startServices starts what listens, and subscribes to telemetry.
func (e *extension) startServices(ctx context.Context) error {
	e.subscribed = make(chan error, 1)
	if e.changes.H2 { // the socket first: the environment may deliver at once
		if err := e.listenTelemetry(); err != nil {
			return err
		}
		go e.subscribe(ctx)
	}
	if err := span("dogstatsd", e.startDogStatsD); err != nil {
		return err
	}
	checkpoint.Reach("dogstatsd_started")
	e.startAppSec(ctx)
	if err := span("trace_agent", e.startTraceAgent); err != nil {
		return err
	}
	checkpoint.Reach("trace_agent_started")
	if err := span("lifecycle", e.startLifecycle); err != nil {
		return err
	}
	if !e.changes.H2 {
		if err := e.listenTelemetry(); err != nil {
			return err
		}
	}
	switch {
	case e.changes.H18:
		go func() {
			e.subscribe(ctx)
			checkpoint.Reach("telemetry_subscribed")
		}()
	default:
		if !e.changes.H2 {
			e.subscribe(ctx)
		}
		if err := <-e.subscribed; err != nil {
			e.log.Warnf("telemetry: %v", err)
		}
		checkpoint.Reach("telemetry_subscribed")
	}
	e.ready()
	return nil
}

func (e *extension) ready() {
	checkpoint.Reach("ready")
	checkpoint.Summary()
	ms := strconv.FormatFloat(float64(time.Since(e.opts.Start).Nanoseconds())/1e6, 'f', 3, 64)
	e.log.Line("DD_EXTENSION | INFO | initprof-extension ready in " + ms + " ms")
}

// threads is the number of threads that run Go code for a memory size in MB:
// Lambda gives one vCPU for each 1769 MB.
func threads(memory string) int {
	mb, err := strconv.Atoi(memory)
	if err != nil || mb <= 0 {
		return 2
	}
	return min(max((mb+1769/2)/1769, 1), 4)
}

func (e *extension) startDogStatsD() (err error) {
	e.dogstat, err = dogstatsd.Listen(address(e.config.ListenHost, e.config.DogStatsDPort), &e.metrics, e.log)
	if err != nil {
		return fail("Extension.ListenFailed", err)
	}
	return nil
}

func (e *extension) startTraceAgent() (err error) {
	e.traces, err = traceagent.Listen(address(e.config.ListenHost, e.config.TracePort), e.log)
	if err != nil {
		return fail("Extension.ListenFailed", err)
	}
	return nil
}

func (e *extension) startLifecycle() (err error) {
	hooks := lifecycle.Hooks{Request: e.invokes.requestID, Done: e.endSpan}
	if e.config.AppSec && e.proxy == nil { // the proxy sees the same events
		hooks.Inspect = e.inspect
	}
	e.life, err = lifecycle.Listen(address(e.config.ListenHost, e.config.LifecyclePort), hooks, e.log)
	if err != nil {
		return fail("Extension.ListenFailed", err)
	}
	return nil
}

func (e *extension) listenTelemetry() (err error) {
	at := e.opts.Telemetry
	if at == "" {
		at = "0.0.0.0:8999"
	}
	e.events, err = telemetry.Listen(at, e.handleTelemetry, e.log)
	if err != nil {
		return fail("Extension.ListenFailed", err)
	}
	return nil
}

func (e *extension) subscribe(ctx context.Context) {
	port := e.events.Addr().(*net.TCPAddr).Port
	types := []string{"platform", "function"}
	if !e.config.LogsEnabled {
		types = types[:1]
	}
	e.subscribed <- span("telemetry_subscribe", func() error {
		err := e.api.Subscribe(ctx, api.Subscription{Port: port, Types: types})
		e.invokes.setSubscribed(err == nil)
		if err != nil {
			return fmt.Errorf("no platform events and logs: %w", err)
		}
		return nil
	})
}

func address(host string, port int) string { return net.JoinHostPort(host, strconv.Itoa(port)) }
