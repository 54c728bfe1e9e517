package coldstart

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/sandbox"
)

// Options describes the cold starts of one subject.
type Options struct {
	Command []string // the subject's file, absolute, and its arguments
	Dir     string
	Name    string // register's name; default the file's

	AsRuntime   bool     // the subject is the function's runtime, not an extension
	Function    []string // the runtime beside an extension; empty: the built-in one
	Extensions  [][]string
	RuntimeInit time.Duration
	Invokes     int // after INIT; negative: none
	Strict      bool

	MemoryMB           int // default 1024
	InitializationType string
	CPUs               int
	CPUQuota           float64
	NoLimits           bool
	HostNetwork        bool
	User               *launch.User
	Copies             []string // files to be replaced by copies of which no page is in memory
	Latency            sandbox.Latency
	Timeout            time.Duration // of INIT, default 10 s
	Env                []string      // NAME=VALUE, added to Lambda's own
	Echo               *os.File      // where the subject's output goes too; may be nil

	// Boxed, if not nil, is called when the box is made and nothing runs in it.
	Boxed func(*launch.Box)
}

// Outcomes of a cold start, as reports name them.
const (
	OK            = "ok"
	Crashed       = "crashed"
	Exited        = "exited"
	Killed        = "killed"
	InitError     = "init_error"
	Timeout       = "timeout"
	NotExecutable = "not_executable"
	Interrupted   = "interrupted"
)

// Result is what one cold start showed from outside. Times are CLOCK_MONOTONIC
// in nanoseconds, 0 where they were not reached.
type Result struct {
	Outcome    string
	Detail     string // a sentence, when the outcome is not OK
	LastOutput []byte // at most 64 KiB

	Released      int64
	Registered    int64
	FirstNext     int64 // received by the environment
	InitStart     int64
	InitEnd       int64
	Times         sandbox.Times // of all processes
	FirstInvoke   time.Duration // invoke sent → all asked next again; 0 if there was none
	Ready         time.Duration // the figure that the subject prints; 0 if it prints none
	Subscribe     string        // ok, refused, pending or none
	Requests      []sandbox.Request
	Box           launch.Settings
	Usage         syscall.Rusage // of the subject, once it ended
	Warnings      []string
	Raw           *capture.Raw // nil when untraced
	Subject       string       // its name in the environment
	TracedProcess int          // the subject's PID as initprof sees it
}

// Tracer watches a cold start; *capture.Tracer is one.
type Tracer interface {
	Arm(nonce uint64, apiPort uint16) error
	Stop() (*capture.Raw, error)
}

const (
	apiAddress     = "127.0.0.1:9001"
	defaultTimeout = 10 * time.Second
	shutdownTime   = 2 * time.Second
)

// runner is one cold start under way.
type runner struct {
	opts    Options
	box     *launch.Box
	env     *sandbox.Env
	config  sandbox.Config
	api     string
	tracer  Tracer
	subject *launch.Process
	ready   readyFinder

	mu    sync.Mutex
	procs map[string]*launch.Process
}

// Run makes one cold start. atEnd, if not nil, is called at the end of INIT,
// while the subject still waits for its first event: then objects that exist
// only in its memory can be read. An error is initprof's own; what the subject
// does wrong is an outcome.
func Run(ctx context.Context, opts Options, tracer Tracer, atEnd func(*Result)) (*Result, error) {
	setDefaults(&opts)
	r := &runner{opts: opts, tracer: tracer, procs: map[string]*launch.Process{}}
	result := &Result{}
	err := r.run(ctx, result, atEnd)
	return result, err
}

func setDefaults(o *Options) {
	if o.Name == "" {
		o.Name = filepath.Base(o.Command[0])
	}
	if o.MemoryMB == 0 {
		o.MemoryMB = 1024
	}
	if o.Timeout == 0 {
		o.Timeout = defaultTimeout
	}
	if o.InitializationType == "" {
		o.InitializationType = sandbox.OnDemand
	}
	if o.CPUs == 0 {
		o.CPUs = 2
	}
	if o.CPUQuota == 0 {
		o.CPUQuota = 1 // the boost of an on-demand INIT
		if o.InitializationType == sandbox.ProvisionedConcurrency {
			o.CPUQuota = float64(o.MemoryMB) / 1769
		}
	}
}

func (r *runner) run(ctx context.Context, result *Result, atEnd func(*Result)) (err error) {
	r.box, err = launch.New(ctx, launch.Options{
		Isolated: !r.opts.HostNetwork && os.Geteuid() == 0, User: r.opts.User,
		CPUs: r.opts.CPUs, CPUQuota: r.opts.CPUQuota, MemoryMB: r.opts.MemoryMB, NoLimits: r.opts.NoLimits, Copies: r.opts.Copies,
		Hosts: map[string]string{"sandbox.localdomain": "127.0.0.1", "sandbox": "127.0.0.1"},
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.box.Close()) }()
	if r.opts.Boxed != nil {
		r.opts.Boxed(r.box)
	}
	listener, err := r.listen()
	if err != nil {
		return fmt.Errorf("listen for the runtime API: %w", err)
	}
	r.api = listener.Addr().String()
	if err := r.newEnvironment(); err != nil {
		return errors.Join(err, listener.Close())
	}
	served := make(chan error, 1)
	go func() { served <- r.env.Serve(listener) }()
	defer func() { err = errors.Join(err, r.env.Close(), <-served) }()

	nonce := rand.Uint64() | 1
	if err := r.arm(nonce, listener); err != nil {
		return err
	}
	stopped := false
	stop := func() error {
		if r.tracer == nil || stopped {
			return nil
		}
		stopped = true
		raw, err := r.tracer.Stop()
		result.Raw = raw
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if err := r.start(ctx, nonce, result); err != nil {
		return err
	}
	r.waitForInit(ctx, result)
	if err := stop(); err != nil {
		return err
	}
	r.describe(result)
	if atEnd != nil {
		atEnd(result)
	}
	if result.Outcome == OK {
		r.invoke(ctx, result)
	}
	r.shutdown(ctx, result)
	return nil
}

// listen takes the port that Lambda uses, or any free one in the host's network.
func (r *runner) listen() (net.Listener, error) {
	l, err := r.box.Listen("tcp", apiAddress)
	if err != nil && !r.box.Settings().Isolated {
		return r.box.Listen("tcp", "127.0.0.1:0")
	}
	return l, err
}

func (r *runner) newEnvironment() (err error) {
	r.config = sandbox.Config{
		StrictNames: r.opts.Strict, RuntimeInit: r.opts.RuntimeInit, MemoryMB: r.opts.MemoryMB,
		InitializationType: r.opts.InitializationType, Latency: r.opts.Latency, Dial: r.box.DialContext,
		ExternalRuntime:  r.opts.AsRuntime || len(r.opts.Function) > 0,
		TerminateRuntime: func() { r.signal(sandbox.Runtime, syscall.SIGTERM) },
	}
	if !r.opts.AsRuntime {
		r.config.Extensions = append(r.config.Extensions, r.opts.Name)
	}
	for _, e := range r.opts.Extensions {
		r.config.Extensions = append(r.config.Extensions, filepath.Base(e[0]))
	}
	r.env, err = sandbox.New(r.config)
	return err
}

func (r *runner) arm(nonce uint64, listener net.Listener) error {
	if r.tracer == nil {
		return nil
	}
	port := uint16(0)
	if a, ok := listener.Addr().(*net.TCPAddr); ok {
		port = uint16(a.Port)
	}
	return r.tracer.Arm(nonce, port)
}

// hold starts a process of the environment; name is its extension's file name,
// or sandbox.Runtime.
func (r *runner) hold(name string, command []string, nonce uint64) (*launch.Process, error) {
	extra := sandbox.Environ{RuntimeAPI: r.api, Extra: r.opts.Env}
	env := r.config.ExtensionEnviron(extra)
	if name == sandbox.Runtime {
		env = r.config.RuntimeEnviron(extra)
	}
	c := launch.Command{
		Path: command[0], Args: command, Env: env, Dir: r.opts.Dir, Nonce: nonce,
		Line: func(line []byte) {
			if nonce != 0 {
				r.ready.see(line)
			}
			r.env.LogLine(name, string(line))
		},
	}
	if r.opts.Echo != nil {
		c.Echo = r.opts.Echo
	}
	p, err := r.box.Hold(c)
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	r.procs[name] = p
	r.mu.Unlock()
	go func() {
		r.env.ProcessExited(name, exitError(p.Wait()))
	}()
	return p, nil
}

func exitError(e launch.Exit) error {
	switch {
	case e.Err != nil:
		return e.Err
	case e.Signal != 0:
		return fmt.Errorf("signal: %v", e.Signal)
	case e.Status != 0:
		return fmt.Errorf("exit status %d", e.Status)
	}
	return nil
}

func (r *runner) signal(name string, s syscall.Signal) {
	r.mu.Lock()
	p := r.procs[name]
	r.mu.Unlock()
	if p != nil {
		_ = p.Signal(s) // it may be gone
	}
}

// start releases the extensions, and the runtime once they have registered.
func (r *runner) start(ctx context.Context, nonce uint64, result *Result) error {
	type pending struct {
		name    string
		process *launch.Process
	}
	var all []pending
	if r.opts.AsRuntime {
		result.Subject = sandbox.Runtime
	} else {
		result.Subject = r.opts.Name
		p, err := r.hold(r.opts.Name, r.opts.Command, nonce)
		if err != nil {
			return err
		}
		r.subject = p
		all = append(all, pending{r.opts.Name, p})
	}
	for _, e := range r.opts.Extensions {
		p, err := r.hold(filepath.Base(e[0]), e, 0)
		if err != nil {
			return err
		}
		all = append(all, pending{filepath.Base(e[0]), p})
	}
	var runtime *launch.Process
	var err error
	switch {
	case r.opts.AsRuntime:
		runtime, err = r.hold(sandbox.Runtime, r.opts.Command, nonce)
		r.subject = runtime
	case len(r.opts.Function) > 0:
		runtime, err = r.hold(sandbox.Runtime, r.opts.Function, 0)
	}
	if err != nil {
		return err
	}
	result.TracedProcess = r.subject.PID()
	for _, p := range all {
		if err := r.env.ReleaseExtension(p.name); err != nil {
			return err
		}
		at, err := p.process.Release()
		if err != nil {
			return err
		}
		r.env.CorrectRelease(p.name, at)
	}
	if runtime == nil {
		return nil
	}
	select {
	case <-r.env.Registered():
	case <-r.env.InitDone():
		return nil
	case <-time.After(r.opts.Timeout):
		return nil
	case <-ctx.Done():
		return nil
	}
	r.env.ReleaseRuntime()
	at, err := runtime.Release()
	if err != nil {
		return err
	}
	r.env.CorrectRelease(sandbox.Runtime, at)
	return nil
}

// waitForInit waits for the end of INIT and says how it ended.
func (r *runner) waitForInit(ctx context.Context, result *Result) {
	timeout := time.NewTimer(r.opts.Timeout)
	defer timeout.Stop()
	select {
	case <-r.env.InitDone():
	case <-timeout.C:
		r.env.AbortInit()
	case <-ctx.Done():
		result.Outcome, result.Detail = Interrupted, "interrupted before the end of INIT"
		return
	}
	result.Outcome, result.Detail = r.outcome()
}

func (r *runner) outcome() (string, string) {
	o := r.env.InitOutcome()
	switch o.Status {
	case sandbox.InitSuccess:
		return OK, ""
	case sandbox.InitTimeout:
		return Timeout, fmt.Sprintf("INIT did not end within %v: %s", r.opts.Timeout, r.waitingFor())
	case sandbox.InitReported:
		return InitError, o.Message
	}
	var refused *launch.NotExecutableError
	if errors.As(o.Err, &refused) {
		return NotExecutable, refused.Error()
	}
	r.mu.Lock()
	p := r.procs[o.Process]
	r.mu.Unlock()
	if p == nil {
		return Crashed, o.Message
	}
	exit := p.Wait()
	who := "the subject"
	if p != r.subject {
		who = "a process beside the subject, " + cmp.Or(o.Process, "the function")
	}
	switch {
	case exit.Signal == syscall.SIGKILL:
		if r.box.Settings().OOMKilled {
			return Killed, fmt.Sprintf("%s was killed at the memory limit of %d MB", who, r.opts.MemoryMB)
		}
		return Killed, who + " was killed (SIGKILL) before the end of INIT"
	case exit.Signal != 0:
		return Crashed, fmt.Sprintf("%s died of %v before the end of INIT", who, exit.Signal)
	}
	return Exited, fmt.Sprintf("%s exited with status %d before the end of INIT", who, exit.Status)
}

// waitingFor tells who has not asked for next yet.
func (r *runner) waitingFor() string {
	times := r.env.Times()
	for name, t := range times.Extensions {
		switch {
		case t.Registered == 0:
			return name + " has not registered"
		case t.FirstNext == 0:
			return name + " has registered and not asked for its first event (/next)"
		}
	}
	return "the runtime has not asked for its first event"
}

// describe copies what the environment saw.
func (r *runner) describe(result *Result) {
	times := r.env.Times()
	own := times.Extensions[r.opts.Name]
	if r.opts.AsRuntime {
		own = times.Runtime
	}
	result.Released, result.Registered, result.FirstNext = own.Released, own.Registered, own.FirstNext
	result.InitStart, result.Times = times.InitStart, times
	if result.Outcome == OK {
		result.InitEnd = times.InitEnd
	}
	result.Requests = r.env.Requests()
	result.Warnings = r.env.Warnings()
	if !r.opts.AsRuntime {
		result.Subscribe = r.env.SubscribeOutcome(r.opts.Name)
	}
	result.Box = r.box.Settings()
	result.LastOutput = r.subject.LastOutput()
	result.Ready = r.ready.found()
}

func (r *runner) invoke(ctx context.Context, result *Result) {
	for i := range max(r.opts.Invokes, 0) {
		res := r.env.Invoke(ctx, []byte(`{}`))
		if res.Err != nil {
			result.Warnings = append(result.Warnings, fmt.Sprintf("invoke %d: %v", i+1, res.Err))
			return
		}
		if i == 0 && res.Complete > 0 {
			result.FirstInvoke = time.Duration(res.Complete - res.Sent)
		}
	}
	result.Ready = r.ready.found()
}

// shutdown ends the processes as Lambda does; what is left ends with the box.
func (r *runner) shutdown(ctx context.Context, result *Result) {
	if result.Outcome == OK && ctx.Err() == nil {
		r.env.Shutdown(ctx, sandbox.ReasonSpindown, shutdownTime)
	}
	select {
	case <-r.subject.Done():
		result.Usage = r.subject.Wait().Usage
	default:
	}
}
