package cli

import (
	"os"
	"strings"
	"time"

	"github.com/mattn/go-shellwords"
	"github.com/spf13/pflag"

	"github.com/initprof/initprof/profiler/coldstart"
	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/sandbox"
)

// environmentFlags are the flags that describe the execution environment.
type environmentFlags struct {
	as, name, function, latency, initType, user, network string
	extensions, env                                      []string
	runtimeInit, timeout                                 time.Duration
	invoke, memory, cpus                                 int
	quota                                                float64
	noLimits, strict                                     bool
}

func (f *environmentFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.as, "as", "extension", "what the subject is: extension or runtime")
	flags.StringVar(&f.name, "name", "", "the extension's name (default: its file's name)")
	flags.StringVar(&f.function, "function", "", "`command` of the function's runtime (default: a built-in minimal one)")
	flags.DurationVar(&f.runtimeInit, "runtime-init", 0, "how long the built-in runtime needs to start")
	flags.StringArrayVar(&f.extensions, "extension", nil, "`command` of one more extension beside the subject, untraced")
	flags.IntVar(&f.invoke, "invoke", 1, "invokes after INIT")
	flags.IntVar(&f.memory, "memory", 1024, "memory of the function in `MB`")
	flags.StringVar(&f.initType, "initialization-type", sandbox.OnDemand, "on-demand or provisioned-concurrency")
	flags.IntVar(&f.cpus, "cpus", 2, "visible CPUs")
	flags.Float64Var(&f.quota, "cpu-quota", 0, "CPU time in `CPUs` (default: 1 on demand, memory/1769 provisioned)")
	flags.BoolVar(&f.noLimits, "no-limits", false, "no limits of CPU and memory")
	flags.StringVar(&f.latency, "latency", "none", "added to the API's answers: none, lambda, or register=2ms,telemetry=25ms")
	flags.StringArrayVar(&f.env, "env", nil, "`NAME=VALUE` for the subject, on top of Lambda's variables")
	flags.StringVar(&f.user, "user", "", "who the subject runs as (default: the caller, also behind sudo)")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Second, "limit of INIT")
	flags.StringVar(&f.network, "network", "isolated", "isolated (an own namespace; needs root) or host")
	flags.BoolVar(&f.strict, "strict", false, "refuse a register under another name, as Lambda does")
}

// options checks the flags.
func (f *environmentFlags) options(command []string) (coldstart.Options, error) {
	o := coldstart.Options{
		Command: command, Name: f.name, AsRuntime: f.as == "runtime", RuntimeInit: f.runtimeInit, Invokes: f.invoke,
		Strict: f.strict, MemoryMB: f.memory, InitializationType: f.initType, CPUs: f.cpus, CPUQuota: f.quota,
		NoLimits: f.noLimits, HostNetwork: f.network == "host", Timeout: f.timeout, Env: f.env,
	}
	for _, c := range []struct {
		ok   bool
		text string
	}{
		{f.as == "extension" || f.as == "runtime", "--as is extension or runtime, not " + f.as},
		{f.network == "isolated" || f.network == "host", "--network is isolated or host, not " + f.network},
		{f.initType == sandbox.OnDemand || f.initType == sandbox.ProvisionedConcurrency, "--initialization-type is on-demand or provisioned-concurrency, not " + f.initType},
		{f.memory >= 16, "--memory is at least 16 MB"},
		{f.timeout > 0, "--timeout is positive"},
		{f.quota >= 0 && f.cpus >= 0, "--cpus and --cpu-quota are not negative"},
	} {
		if !c.ok {
			return o, usage("%s", c.text)
		}
	}
	for _, e := range f.env {
		if !strings.Contains(e, "=") {
			return o, usage("--env %s: want NAME=VALUE", e)
		}
	}
	var err error
	if o.Latency, err = sandbox.ParseLatency(f.latency); err != nil {
		return o, usage("--latency: %w", err)
	}
	if f.function != "" {
		if o.Function, err = words(f.function); err != nil {
			return o, err
		}
	}
	for _, e := range f.extensions {
		w, err := words(e)
		if err != nil {
			return o, err
		}
		o.Extensions = append(o.Extensions, w)
	}
	if o.User, err = launch.LookupUser(f.user); err != nil {
		return o, usage("--user: %w", err)
	}
	if o.Dir, err = os.Getwd(); err != nil {
		return o, err
	}
	return o, nil
}

// split splits a command as a shell splits words.
func split(command string) ([]string, error) {
	w, err := shellwords.Parse(command)
	if err != nil {
		return nil, usage("%q: %w", command, err)
	}
	return w, nil
}

// words is split, with the program made absolute.
func words(command string) ([]string, error) {
	w, err := split(command)
	if err != nil {
		return nil, err
	}
	return subject(w)
}

// secretNames are parts of the names of variables whose values are secret.
var secretNames = []string{"KEY", "TOKEN", "SECRET", "PASSWORD", "PASSWD", "CREDENTIAL"}

// secrets are the values that must not reach a file.
func secrets(env []string) (values []string) {
	for _, e := range append(os.Environ(), env...) {
		name, value, _ := strings.Cut(e, "=")
		for _, part := range secretNames {
			if strings.Contains(strings.ToUpper(name), part) && len(value) >= 4 {
				values = append(values, value)
				break
			}
		}
	}
	return values
}
