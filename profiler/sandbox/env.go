package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"
)

// logStream is the name of the log stream, which Lambda also calls the
// instance's ID.
const logStream = "sandbox"

// ErrClosed is returned by what needs an environment that was closed.
var ErrClosed = errors.New("the execution environment is closed")

// Env is one execution environment, from the release of its first process to
// Close. Its methods may be called from any goroutine.
type Env struct {
	config  Config
	server  *http.Server
	relay   *relay
	log     requestLog
	closing chan struct{} // closed by Close
	cancel  context.CancelFunc
	ctx     context.Context // ends with Close
	work    sync.WaitGroup  // everything that Close waits for

	registered chan struct{} // closed when all external extensions registered
	initDone   chan struct{} // closed when INIT ended, well or not

	mu         sync.Mutex
	phase      machine
	extensions []*process // the expected ones, then internal ones
	runtime    *process
	outcome    InitOutcome
	initStart  int64
	initEnd    int64
	invoke     *invocation // the running one
	invokes    []InvokeTimes
	shutdown   int64
	failure    *failure // the first fatal thing, in INIT or later
	warnings   []string
	exits      chan struct{} // has room for one: a process ended
}

// New makes an environment in which nothing was released yet.
func New(config Config) (*Env, error) {
	config.setDefaults()
	if err := config.validate(); err != nil {
		return nil, fmt.Errorf("sandbox: %w", err)
	}
	warmOnce.Do(warm)
	return newEnv(config), nil
}

func newEnv(config Config) *Env {
	config.setDefaults()
	e := &Env{
		config:     config,
		closing:    make(chan struct{}),
		registered: make(chan struct{}),
		initDone:   make(chan struct{}),
		exits:      make(chan struct{}, 1),
		phase:      machine{table: phaseTable, at: phaseCreated},
		runtime:    newProcess(Runtime, runtimeTable),
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.relay = newRelay(e.ctx, &e.work, config.Dial, config.ListenerHost)
	e.server = newServer(e)
	for _, name := range config.Extensions {
		e.extensions = append(e.extensions, newProcess(name, extensionTable))
	}
	if len(e.extensions) == 0 {
		close(e.registered)
	}
	return e
}

// Serve answers on a listener until Close. It may be called for several
// listeners, each in its own goroutine. It returns nil after Close, else why
// the listener failed.
func (e *Env) Serve(listener net.Listener) error {
	// Close waits for Serve, and so for every connection that it accepts.
	e.mu.Lock()
	if e.phase.at == phaseClosed {
		e.mu.Unlock()
		_ = listener.Close()
		return nil
	}
	e.work.Add(1)
	e.mu.Unlock()
	defer e.work.Done()
	err := e.server.Serve(&stampingListener{listener})
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve the runtime API: %w", err)
}

// Close ends all calls and connections, telemetry included, and waits until
// nothing of the environment runs any more. Listeners given to Serve are closed.
func (e *Env) Close() error {
	e.mu.Lock()
	if e.phase.to(phaseClosed) != nil {
		e.mu.Unlock()
		e.work.Wait()
		return nil
	}
	e.endInitLocked(InitOutcome{Status: InitAborted, Message: ErrClosed.Error()})
	if e.invoke != nil {
		e.invoke.finish(ErrClosed)
	}
	close(e.closing)
	e.mu.Unlock()
	e.cancel()
	err := e.server.Close()
	e.work.Wait()
	e.relay.closeIdle()
	if err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("close the runtime API: %w", err)
	}
	return nil
}

// ReleaseExtension says that the extension of this file name is let go now. The
// first release begins INIT.
func (e *Env) ReleaseExtension(name string) error {
	now := monotonic()
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.external(name)
	if p == nil {
		return fmt.Errorf("extension %q: not among the expected ones", name)
	}
	e.releaseLocked(p, now)
	return nil
}

// ReleaseRuntime says that the external runtime is let go now. Without
// extensions it begins INIT.
func (e *Env) ReleaseRuntime() {
	now := monotonic()
	e.mu.Lock()
	defer e.mu.Unlock()
	e.releaseLocked(e.runtime, now)
}

// CorrectRelease replaces the time of a release by a more exact one, once that
// is known: the instant at which the holder was let go. An empty name is the
// runtime.
func (e *Env) CorrectRelease(name string, at int64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.runtime
	if name != Runtime {
		p = e.external(name)
	}
	if p == nil || p.times.Released == 0 {
		return
	}
	if e.initStart == p.times.Released {
		e.initStart = at
	}
	p.times.Released = at
}

func (e *Env) releaseLocked(p *process, now int64) {
	if p.times.Released == 0 {
		p.times.Released = now
	}
	e.beginInitLocked(now)
}

// beginInitLocked starts INIT's clock, unless it runs.
func (e *Env) beginInitLocked(now int64) {
	if e.phase.at != phaseCreated || e.phase.to(phaseInit) != nil {
		return
	}
	e.initStart = now
	e.relay.emit(categoryPlatform, "platform.initStart", initStartRecord{
		InitializationType: e.config.InitializationType,
		Phase:              "init",
		RuntimeVersion:     e.config.RuntimeVersion,
		RuntimeVersionARN:  "arn:aws:lambda:" + e.config.Region + "::runtime:sandbox",
		FunctionName:       e.config.FunctionName,
		FunctionVersion:    e.config.FunctionVersion,
		InstanceID:         logStream,
		InstanceMaxMemory:  e.config.MemoryMB,
	})
	if !e.config.ExternalRuntime {
		e.work.Go(e.playRuntime)
	}
}

// Registered is closed when all expected extensions have registered: the
// instant at which Lambda starts the runtime. It stays open if INIT fails first.
func (e *Env) Registered() <-chan struct{} { return e.registered }

// InitDone is closed at the end of INIT: when every extension and the runtime
// asked for next, or when INIT failed. InitOutcome tells which.
func (e *Env) InitDone() <-chan struct{} { return e.initDone }

// ProcessExited tells the environment that a process ended: an extension by its
// file name, or Runtime. err is how (nil: status 0). Before a shutdown the end
// of any process is a failure, in Lambda as here, whatever its status.
func (e *Env) ProcessExited(name string, err error) {
	now := monotonic()
	e.mu.Lock()
	p := e.runtime
	if name != Runtime {
		p = e.external(name)
	}
	if p == nil || p.exited {
		e.mu.Unlock()
		return
	}
	p.exited = true
	p.times.Exited = now
	if err == nil || p.name == Runtime {
		_ = p.machine.to(stateExited)
	} else {
		_ = p.machine.to(stateShutdownFailed)
	}
	if e.phase.at != phaseShutdown && e.phase.at != phaseClosed {
		e.failLocked(crashOf(p, err))
	}
	select {
	case e.exits <- struct{}{}:
	default:
	}
	e.mu.Unlock()
	e.relay.unsubscribe(p.name)
}

// AbortInit ends an INIT that took too long, as Lambda does after 10 s. It does
// nothing once INIT has ended.
func (e *Env) AbortInit() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.phase.at == phaseInit || e.phase.at == phaseCreated {
		e.failLocked(&failure{status: InitTimeout, errorType: errorTimeout, process: e.lateLocked(), message: "INIT took too long"})
	}
}

// lateLocked names the first process that INIT still waits for.
func (e *Env) lateLocked() string {
	for _, p := range e.extensions {
		if p.times.FirstNext == 0 {
			return p.name
		}
	}
	return Runtime
}

// LogLine hands one line of a process's output to the telemetry subscribers: of
// an extension by its file name, or of the function (Runtime). The line ending
// is cut off; longer lines than 256 KiB go out in pieces, as in Lambda.
func (e *Env) LogLine(source, line string) {
	kind := categoryFunction
	if source != Runtime {
		kind = categoryExtension
	}
	e.relay.logLine(kind, line)
}

// Warnings are things that Lambda would take otherwise, or that the user should
// know, in the order in which they happened.
func (e *Env) Warnings() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.warnings)
}

func (e *Env) warnLocked(format string, args ...any) {
	e.warnings = append(e.warnings, fmt.Sprintf(format, args...))
}

// external finds an expected extension by its file name.
func (e *Env) external(name string) *process {
	for _, p := range e.extensions {
		if p.name == name && !p.internal {
			return p
		}
	}
	return nil
}

// byID finds an extension by its identifier.
func (e *Env) byID(id string) *process {
	for _, p := range e.extensions {
		if p.id == id && p.registered() {
			return p
		}
	}
	return nil
}

// milliseconds is Lambda's unit of durations, with microseconds behind the point.
func milliseconds(d time.Duration) float64 {
	return float64(d.Microseconds()) / 1000
}
