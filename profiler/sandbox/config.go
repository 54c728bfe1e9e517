package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"
)

// Runtime is the name of the function's runtime wherever a process is named
// ([Env.ProcessExited], [Env.LogLine]). It is empty, so that no extension's
// file name can equal it.
const Runtime = ""

// maxExtensions is Lambda's limit of extensions in one environment.
const maxExtensions = 10

// How an environment comes to be initialized.
const (
	OnDemand               = "on-demand"
	ProvisionedConcurrency = "provisioned-concurrency"
)

// Why an environment shuts down, as SHUTDOWN events say it.
const (
	ReasonSpindown = "spindown" // nothing to do any more
	ReasonTimeout  = "timeout"  // the function's time limit passed
	ReasonFailure  = "failure"  // the runtime or an extension failed
)

// Config describes one environment. The zero value is a function without
// extensions, with the built-in runtime.
type Config struct {
	// Extensions are the file names of the external extensions. INIT waits for
	// all of them. At most 10.
	Extensions []string

	// StrictNames refuses a register whose Lambda-Extension-Name is not the
	// file name of an extension. Without it such a register is taken for the
	// first extension that has not registered yet, with a warning.
	StrictNames bool

	// ExternalRuntime says that a process of the caller's is the runtime: to be
	// started when Registered is closed, and announced by ReleaseRuntime.
	// Otherwise the environment itself plays a minimal runtime that answers
	// each event with its payload.
	ExternalRuntime bool

	// RuntimeInit is how long the built-in runtime needs, from Registered to
	// its first next.
	RuntimeInit time.Duration

	FunctionName    string // default "function"
	FunctionVersion string // default "$LATEST"
	Handler         string // default "bootstrap"
	AccountID       string // default "123456789012"
	Region          string // default "us-east-1"
	RuntimeVersion  string // in platform.initStart; default "provided:al2023"
	MemoryMB        int    // default 1024

	// InitializationType is OnDemand (default) or ProvisionedConcurrency.
	InitializationType string

	// Timeout is the function's time limit for one invoke. Default 30 s.
	Timeout time.Duration

	// Latency is added to the answers. Default none.
	Latency Latency

	// Dial connects to a telemetry listener of an extension, which may live in
	// another network namespace. Default: net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)

	// ListenerHost is the address that sandbox.localdomain stands for, to which
	// telemetry is delivered. Default "127.0.0.1".
	ListenerHost string

	// TerminateRuntime is called by Shutdown when the runtime should get
	// SIGTERM: only if there is an extension, as in Lambda. May be nil.
	TerminateRuntime func()

	// MemoryUsed returns the bytes of memory used at most so far, for
	// platform.report. May be nil.
	MemoryUsed func() int64
}

func (c *Config) setDefaults() {
	set := func(field *string, value string) {
		if *field == "" {
			*field = value
		}
	}
	set(&c.FunctionName, "function")
	set(&c.FunctionVersion, "$LATEST")
	set(&c.Handler, "bootstrap")
	set(&c.AccountID, "123456789012")
	set(&c.Region, "us-east-1")
	set(&c.RuntimeVersion, "provided:al2023")
	set(&c.InitializationType, OnDemand)
	set(&c.ListenerHost, "127.0.0.1")
	if c.MemoryMB == 0 {
		c.MemoryMB = 1024
	}
	if c.Timeout == 0 {
		c.Timeout = 30 * time.Second
	}
	if c.Dial == nil {
		c.Dial = new(net.Dialer).DialContext
	}
}

func (c *Config) validate() error {
	if len(c.Extensions) > maxExtensions {
		return fmt.Errorf("%d extensions: Lambda runs at most %d", len(c.Extensions), maxExtensions)
	}
	seen := map[string]bool{}
	for _, name := range c.Extensions {
		if name == "" || strings.ContainsRune(name, '/') {
			return fmt.Errorf("extension %q: want the file name, without its folder", name)
		}
		if seen[name] {
			return fmt.Errorf("extension %q: twice; their file names must differ", name)
		}
		seen[name] = true
	}
	if c.InitializationType != OnDemand && c.InitializationType != ProvisionedConcurrency {
		return fmt.Errorf("initialization type %q: want %s or %s", c.InitializationType, OnDemand, ProvisionedConcurrency)
	}
	if c.RuntimeInit < 0 || c.Timeout < 0 || c.MemoryMB < 0 {
		return errors.New("durations and memory must not be negative")
	}
	if c.ExternalRuntime && c.RuntimeInit != 0 {
		return errors.New("an init time is for the built-in runtime; an external one takes what it takes")
	}
	return nil
}

// FunctionARN is the ARN under which the function is invoked.
func (c Config) FunctionARN() string {
	c.setDefaults()
	return fmt.Sprintf("arn:aws:lambda:%s:%s:function:%s", c.Region, c.AccountID, c.FunctionName)
}
