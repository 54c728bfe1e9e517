// Package config reads the extension's settings: DD_* environment variables,
// then $LAMBDA_TASK_ROOT/datadog.yaml, then defaults, the first that says
// something wins. boot reads it once in a cold start and hands it to everybody.
package config

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/yaml"
)

// Secret is a value that is never printed.
type Secret string

// String hides the value from every form of printing.
func (Secret) String() string { return "[hidden]" }

// GoString hides the value from %#v.
func (Secret) GoString() string { return "[hidden]" }

// Config holds all settings.
type Config struct {
	APIKey          Secret
	Site            string
	MetricsURL      string // base of the metrics intake, without a trailing slash
	TracesURL       string
	LogsURL         string
	Env             string
	Service         string
	Version         string
	Tags            []string
	LogLevel        logging.Level
	LogsEnabled     bool
	EnhancedMetrics bool
	FlushTimeout    time.Duration
	FlushStrategy   FlushStrategy
	ProxyHTTPS      string
	NoProxy         []string
	SkipTLSVerify   bool
	CAFile          string
	AppSec          bool
	AppSecRules     string        // file; empty stands for the bundled rules
	AppSecBudget    time.Duration // for the rules of one invocation
	ListenHost      string        // address of the DogStatsD and trace listeners
	DogStatsDPort   int
	TracePort       int
	LifecyclePort   int
	Problems        []string // settings that were ignored, and why
}

// FlushStrategy says when to flush besides SHUTDOWN.
type FlushStrategy struct {
	Mode     string // end, periodically, adaptive
	Interval time.Duration
}

// values looks settings up by their datadog.yaml path and their environment
// variables.
type values struct {
	getenv func(string) string
	file   yaml.Value
	cfg    *Config
}

func (v *values) text(path string, env ...string) (string, bool) {
	for _, name := range env {
		if s := v.getenv(name); s != "" {
			return s, true
		}
	}
	at := v.file
	for _, key := range strings.Split(path, ".") {
		m, ok := at.(yaml.Mapping)
		if !ok {
			return "", false
		}
		at = m[key]
	}
	if s, ok := at.(yaml.Scalar); ok && !s.Null() {
		return s.Text, true
	}
	return "", false
}

func (v *values) problem(format string, args ...any) {
	if len(args) == 0 { // as where there is no key: package fmt is code to page in
		v.cfg.Problems = append(v.cfg.Problems, format)
		return
	}
	v.cfg.Problems = append(v.cfg.Problems, fmt.Sprintf(format, args...))
}

func (v *values) list(path string, separators string, env ...string) []string {
	if s, ok := v.text(path, env...); ok {
		return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(separators, r) })
	}
	at := v.file
	for _, key := range strings.Split(path, ".") {
		m, _ := at.(yaml.Mapping)
		at = m[key]
	}
	var out []string
	if seq, ok := at.(yaml.Sequence); ok {
		for _, e := range seq {
			if s, ok := e.(yaml.Scalar); ok && !s.Null() {
				out = append(out, s.Text)
			}
		}
	}
	return out
}

func (v *values) boolean(fallback bool, path string, env ...string) bool {
	s, ok := v.text(path, env...)
	if !ok {
		return fallback
	}
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "true", "1", "yes", "on":
		return true
	case "false", "0", "no", "off":
		return false
	}
	v.problem("%s: %q is neither true nor false", env[0], s)
	return fallback
}

// taskRoot is where Lambda unpacks a function. Of the variable that says so,
// extensions are not told.
const taskRoot = "/var/task"

// read reads datadog.yaml, if there is one.
func (v *values) read(path string) error {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if v.file, err = yaml.Parse(data); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, ok := v.file.(yaml.Mapping); v.file != nil && !ok {
		return fmt.Errorf("%s is not a mapping", path)
	}
	return nil
}

// Load reads the settings. Only an unreadable or malformed datadog.yaml, and a
// setting without which nothing can be sent right, are errors; what can be
// ignored stands in Problems.
func Load(getenv func(string) string) (*Config, error) {
	cfg := &Config{
		FlushTimeout: 5 * time.Second, FlushStrategy: FlushStrategy{Mode: "adaptive", Interval: 10 * time.Second},
		AppSecBudget:  5 * time.Millisecond,
		DogStatsDPort: 8125, TracePort: 8126, LifecyclePort: 8124, ListenHost: "127.0.0.1",
	}
	v := &values{getenv: getenv, cfg: cfg}
	root := getenv("LAMBDA_TASK_ROOT")
	if root == "" {
		root = taskRoot
	}
	if err := v.read(filepath.Join(root, "datadog.yaml")); err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	key, _ := v.text("api_key", "DD_API_KEY")
	key = strings.TrimSpace(key)
	switch {
	case key == "":
		v.problem("no DD_API_KEY: nothing can be sent")
	case strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		v.problem("DD_API_KEY has characters that no key has: nothing can be sent")
	default:
		cfg.APIKey = Secret(key)
	}
	level, _ := v.text("log_level", "DD_LOG_LEVEL")
	var err error
	if cfg.LogLevel, err = logging.ParseLevel(level); err != nil {
		v.problem("DD_LOG_LEVEL: %v", err)
	}
	cfg.Site = "datadoghq.com"
	if s, ok := v.text("site", "DD_SITE"); ok {
		cfg.Site = strings.TrimSpace(s)
		if u, err := url.Parse("https://" + cfg.Site); err != nil || u.Host != cfg.Site || cfg.Site == "" {
			return nil, fmt.Errorf("configuration: DD_SITE: %q is not a site like datadoghq.eu", cfg.Site)
		}
	}
	for _, u := range []struct {
		to             *string
		fallback, path string
		env            []string
	}{
		{&cfg.MetricsURL, "https://api." + cfg.Site, "dd_url", []string{"DD_DD_URL", "DD_URL"}},
		{&cfg.TracesURL, "https://trace.agent." + cfg.Site, "apm_config.apm_dd_url", []string{"DD_APM_DD_URL"}},
		{&cfg.LogsURL, "https://http-intake.logs." + cfg.Site, "logs_config.logs_dd_url", []string{"DD_LOGS_CONFIG_LOGS_DD_URL"}},
	} {
		*u.to = u.fallback
		if s, ok := v.text(u.path, u.env...); ok {
			if !strings.Contains(s, "://") {
				s = "https://" + s
			}
			parsed, err := url.Parse(s)
			if err != nil || parsed.Host == "" || parsed.Scheme != "http" && parsed.Scheme != "https" {
				return nil, fmt.Errorf("configuration: %s: %q is not an http or https address", u.env[0], redact(s))
			}
			*u.to = strings.TrimRight(s, "/")
		}
	}
	cfg.Env, _ = v.text("env", "DD_ENV")
	cfg.Service, _ = v.text("service", "DD_SERVICE")
	cfg.Version, _ = v.text("version", "DD_VERSION")
	cfg.Tags = append(v.list("tags", ", ", "DD_TAGS"), v.list("extra_tags", ", ", "DD_EXTRA_TAGS")...)
	cfg.LogsEnabled = v.boolean(true, "serverless_logs_enabled", "DD_SERVERLESS_LOGS_ENABLED", "DD_LOGS_ENABLED")
	cfg.EnhancedMetrics = v.boolean(true, "enhanced_metrics", "DD_ENHANCED_METRICS")
	cfg.SkipTLSVerify = v.boolean(false, "skip_ssl_validation", "DD_SKIP_SSL_VALIDATION")
	cfg.AppSec = v.boolean(false, "serverless_appsec_enabled", "DD_SERVERLESS_APPSEC_ENABLED")
	cfg.AppSecRules, _ = v.text("appsec_rules", "DD_APPSEC_RULES")
	if s, ok := v.text("appsec_waf_timeout", "DD_APPSEC_WAF_TIMEOUT"); ok {
		if us, err := strconv.ParseUint(strings.TrimSpace(s), 10, 32); err == nil && us > 0 {
			cfg.AppSecBudget = time.Duration(us) * time.Microsecond
		} else {
			v.problem("DD_APPSEC_WAF_TIMEOUT: %q is no number of microseconds", s)
		}
	}
	cfg.CAFile, _ = v.text("tls_cert_file", "DD_TLS_CERT_FILE")
	cfg.ProxyHTTPS, _ = v.text("proxy.https", "DD_PROXY_HTTPS", "HTTPS_PROXY", "https_proxy")
	cfg.NoProxy = v.list("proxy.no_proxy", ", ", "DD_PROXY_NO_PROXY", "NO_PROXY", "no_proxy")
	for _, p := range []struct {
		to        *int
		path, env string
	}{
		{&cfg.DogStatsDPort, "dogstatsd_port", "DD_DOGSTATSD_PORT"},
		{&cfg.TracePort, "apm_config.receiver_port", "DD_APM_RECEIVER_PORT"},
		{&cfg.LifecyclePort, "lifecycle_port", "INITPROF_EXTENSION_LIFECYCLE_PORT"},
	} {
		if s, ok := v.text(p.path, p.env); ok {
			if n, err := strconv.Atoi(s); err == nil && n >= 0 && n <= 65535 {
				*p.to = n
			} else {
				v.problem("%s: %q is no port", p.env, s)
			}
		}
	}
	if s, ok := v.text("flush_timeout", "DD_FLUSH_TIMEOUT"); ok {
		if n, err := strconv.ParseFloat(s, 64); err == nil && n > 0 && n <= 900 {
			cfg.FlushTimeout = time.Duration(n * float64(time.Second))
		} else {
			v.problem("DD_FLUSH_TIMEOUT: %q is no number of seconds", s)
		}
	}
	if s, ok := v.text("serverless_flush_strategy", "DD_SERVERLESS_FLUSH_STRATEGY"); ok {
		if strategy, err := parseStrategy(s); err == nil {
			cfg.FlushStrategy = strategy
		} else {
			v.problem("DD_SERVERLESS_FLUSH_STRATEGY: %v", err)
		}
	}
	return cfg, nil
}

// redact leaves out the user and password of an address.
func redact(address string) string {
	if i := strings.LastIndexByte(address, '@'); i >= 0 {
		return "[hidden]" + address[i:]
	}
	return address
}

func parseStrategy(s string) (FlushStrategy, error) {
	mode, interval, timed := strings.Cut(strings.TrimSpace(s), ",")
	f := FlushStrategy{Mode: mode, Interval: 10 * time.Second}
	switch mode {
	case "end", "periodically":
	case "default", "adaptive":
		f.Mode = "adaptive"
	case "continuously":
		f.Mode = "periodically"
	default:
		return f, fmt.Errorf("unknown strategy %q (end, periodically,MS, adaptive)", s)
	}
	if timed {
		ms, err := strconv.Atoi(strings.TrimSpace(interval))
		if err != nil || ms <= 0 {
			return f, fmt.Errorf("%q is no number of milliseconds", interval)
		}
		f.Interval = time.Duration(ms) * time.Millisecond
	}
	return f, nil
}
