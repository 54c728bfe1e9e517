package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/initprof/initprof/profiler/symbolize"
	"github.com/initprof/initprof/profiler/trace"
)

// frames names the address n by the n-th function, leaf first.
type frames struct {
	functions []string
	module    string
}

func (f frames) Resolve(_ int, _ int64, address uint64, _, _ bool) symbolize.Location {
	l := symbolize.Location{Module: f.module, Address: address}
	if int(address) <= len(f.functions) && f.functions[address-1] != "" {
		l.Frames = []symbolize.Frame{{Function: f.functions[address-1]}}
	}
	return l
}

// What time is blamed on, rule by rule.
func TestRules(t *testing.T) {
	for _, c := range []struct {
		want  string
		s     situation
		stack string // functions, leaf first
		in    string // module
	}{
		{want: "exec", s: situation{phase: "exec", state: trace.StateKernel, syscall: "execve"}},
		{want: "cert-loading", s: situation{phase: "next", span: &exactSpan{kind: SpanCerts}}},
		{want: "dynamic-linking", s: situation{phase: "next", span: &exactSpan{kind: SpanBinding}}, stack: "_dl_fixup main"},
		{want: "dynamic-linking", s: situation{phase: "loader", span: &exactSpan{kind: SpanRelocation}}},
		{want: "gc", s: situation{phase: "next", goroutine: "runtime.gcBgMarkWorker"}},
		{want: "gc", s: situation{phase: "next", state: trace.StateWaiting, wait: WaitGC}},
		{want: "cert-loading", s: situation{phase: "next", syscall: "openat", file: "/etc/ssl/certs/ca-certificates.crt"}},
		{want: "cert-loading", s: situation{phase: "next", syscall: "read", file: "/opt/certs/ca.pem"}},
		{want: "cert-loading", s: situation{phase: "next"}, stack: "crypto/x509.ParseCertificate crypto/x509.(*CertPool).AppendCertsFromPEM main.main"},
		{want: "cert-loading", s: situation{phase: "next"}, stack: "core::str::from_utf8 rustls_native_certs::load_native_certs main::main"},
		{want: "cert-loading", s: situation{phase: "next"}, stack: "d2i_X509 PEM_X509_INFO_read_bio X509_load_cert_crl_file main", in: "/lib/libcrypto.so.3"},
		{want: "cert-loading", s: situation{phase: "next"}, stack: "_ssl__SSLContext_load_verify_locations _PyEval_EvalFrameDefault"},
		{want: "allocator-setup", s: situation{phase: "runtime_init", span: &exactSpan{kind: SpanAllocator}}},
		{want: "allocator-setup", s: situation{phase: "runtime_init"}, stack: "runtime.mallocinit runtime.schedinit runtime.rt0_go"},
		{want: "allocator-setup", s: situation{phase: "next"}, stack: "mmap _rjem_je_pages_boot _rjem_malloc_init_hard malloc main"},
		{want: "other", s: situation{phase: "next"}, stack: "_rjem_je_malloc main::work"}, // ordinary use is its caller's
		{want: "allocator-setup", s: situation{phase: "next"}, stack: "ptmalloc_init malloc main"},
		{want: "gc", s: situation{phase: "next"}, stack: "runtime.gcAssistAlloc runtime.mallocgc main.main"},
		{want: "waf", s: situation{phase: "next"}, stack: "ddwaf_init main.main"},
		{want: "waf", s: situation{phase: "next"}, stack: "?", in: "/opt/lib/libddwaf.so"},
		{want: "dns", s: situation{phase: "next", syscall: "openat", file: "/etc/resolv.conf"}},
		{want: "dns", s: situation{phase: "next"}, stack: "net.(*Resolver).lookupIPAddr net.(*Dialer).DialContext"},
		{want: "dns", s: situation{phase: "next"}, stack: "getaddrinfo main"},
		{want: "crypto", s: situation{phase: "next"}, stack: "crypto/tls.(*Conn).Handshake net/http.(*Transport).dialConn"},
		{want: "crypto", s: situation{phase: "next"}, stack: "ring::aead::seal rustls::conn::write reqwest::send"},
		{want: "crypto", s: situation{phase: "next"}, stack: "?", in: "/usr/lib/libcrypto.so.3"},
		{want: "logging", s: situation{phase: "next", syscall: "write", file: "[output]"}},
		{want: "logging", s: situation{phase: "next"}, stack: "log/slog.(*Logger).Info main.main"},
		{want: "logging", s: situation{phase: "next"}, stack: "tracing_subscriber::fmt::init main::main"},
		{want: "package-init", s: situation{phase: "runtime_init", span: &exactSpan{kind: SpanPackage}}},
		{want: "package-init", s: situation{phase: "runtime_init"}, stack: "main.init.0 runtime.doInit1 runtime.main"},
		{want: "package-init", s: situation{phase: "next"}, stack: "PyImport_ImportModuleLevelObject _PyEval_EvalFrameDefault"},
		{want: "package-init", s: situation{phase: "next", syscall: "newfstatat", file: "/usr/lib/python3.11/ssl.py"}},
		{want: "package-init", s: situation{phase: "next"}, stack: "? ? PyObject_CallMethodObjArgs _PyEval_EvalFrameDefault Py_BytesMain"}, // stripped
		{want: "package-init", s: situation{phase: "next"}, stack: "node::builtins::BuiltinLoader::CompileAndCall node::StartExecution node::Start"},
		{want: "runtime-init", s: situation{phase: "next"}, stack: "v8::internal::Snapshot::Initialize v8::Isolate::Initialize node::NodeMainInstance::NodeMainInstance"},
		{want: "runtime-init", s: situation{phase: "next"}, stack: "node::IsolateData::IsolateData node::CreateIsolateData node::Start"},
		{want: "gc", s: situation{phase: "next"}, stack: "v8::internal::Scavenger::Process v8::internal::Heap::CollectGarbage node::LoadEnvironment"},
		{want: "package-init", s: situation{phase: "next"}, stack: "? PyModule_ExecDef _PyEval_EvalFrameDefault"},
		{want: "package-init", s: situation{phase: "next", syscall: "read", file: "/var/task/node_modules/a/package.json"}},
		{want: "config", s: situation{phase: "next", syscall: "read", file: "/opt/extension.yaml"}},
		{want: "config", s: situation{phase: "next"}, stack: "os.Getenv example.com/ext/config.Load main.main"},
		{want: "config", s: situation{phase: "next"}, stack: "serde_json::from_str bottlecap::config::get_config main"},
		{want: "config", s: situation{phase: "next"}, stack: "load_config main"},
		{want: "runtime-init", s: situation{phase: "loader", span: &exactSpan{kind: SpanConstructor}}, stack: "setup call_init _dl_init"},
		{want: "dynamic-linking", s: situation{phase: "loader", syscall: "openat", file: "/lib/libz.so.1"}},
		{want: "dynamic-linking", s: situation{phase: "next"}, stack: "_dl_map_object _dl_open dlopen main"},
		{want: "runtime-init", s: situation{phase: "runtime_init", span: &exactSpan{kind: SpanStage}}},
		{want: "runtime-init", s: situation{phase: "runtime_init"}},
		{want: "runtime-init", s: situation{phase: "next"}, stack: "Py_InitializeFromConfig pymain_init"},
		{want: "listeners", s: situation{phase: "next", state: trace.StateKernel, syscall: "listen"}},
		{want: "listeners", s: situation{phase: "next"}, stack: "net.Listen main.main"},
		{want: "listeners", s: situation{phase: "next"}, stack: "tokio::net::TcpListener::bind main::main"},
		{want: "network", s: situation{phase: "register", state: trace.StateWaiting, wait: WaitRequest}},
		{want: "network", s: situation{phase: "register", state: trace.StateKernel, syscall: "connect"}},
		{want: "network", s: situation{phase: "register"}, stack: "net/http.(*Client).Do main.main"},
		{want: "network", s: situation{phase: "register"}, stack: "hyper::client::send tokio::runtime::block_on"},
		{want: "threads", s: situation{phase: "next", state: trace.StateKernel, syscall: "clone3"}, stack: "__clone3 pthread_create main"},
		{want: "threads", s: situation{phase: "next"}, stack: "tokio::runtime::builder::build main"},
		{want: "config", s: situation{phase: "next"}, stack: "example.com/ext/changes.Parse main.main"},
		{want: "network", s: situation{phase: "next"}, stack: "runtime.concatstrings example.com/ext/api.(*Client).Register main.main"},
		{want: "allocator-setup", s: situation{phase: "next"}, stack: "runtime.(*mcentral).grow runtime.mallocgc compute main.main"},
		{want: "config", s: situation{phase: "next"}, stack: "runtime.(*mcentral).grow runtime.mallocgc os.Getenv main.main"},
		{want: "threads", s: situation{phase: "next"}, stack: "runtime.copystack runtime.newstack runtime.morestack"},
		{want: "other", s: situation{phase: "next", state: trace.StateUser}, stack: "compute main.main runtime.main"},
		{want: "other", s: situation{phase: "next", state: trace.StateUser}},
	} {
		w := &walk{Input: Input{Rules: BuiltIn(), Timeline: &trace.Timeline{}, Names: frames{strings.Fields(c.stack), c.in}}}
		var stack trace.Stack
		for n := range strings.Fields(c.stack) {
			stack.User = append(stack.User, uint64(n+1))
		}
		c.s.stack = newMatcher(w).stack(1, 1, stack)
		if got := w.Rules.category(&c.s); got != c.want {
			t.Errorf("%+v under %q in %q is %s, want %s", c.s, c.stack, c.in, got, c.want)
		}
	}
}

// A user's rules stand in front of the built-in ones.
func TestUsersRulesComeFirst(t *testing.T) {
	r, err := ParseRules([]byte("- category: billing\n  function: ['^main\\.bill']\n- category: disk\n  file: [/data/**]\n  state: [waiting]\n"))
	if err != nil {
		t.Fatal(err)
	}
	s := situation{phase: "register", state: trace.StateWaiting, file: "/data/a/b"}
	if got := r.category(&s); got != "disk" {
		t.Errorf("a wait on /data/a/b is %s, want disk", got)
	}
	s.state = trace.StateKernel // one condition does not hold
	if got := r.category(&s); got != Other {
		t.Errorf("a read of /data/a/b is %s, want other", got)
	}
	if c := r.Categories(); c[0] != "billing" || !slices.Contains(c, Measurement) {
		t.Errorf("categories %q", c)
	}
}

func TestRulesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"- phase: [exec]":                       "no category",
		"- {category: x, state: [asleep]}":      "no state is named",
		"- {category: x, function: ['(']}":      "missing closing",
		"- {category: x, colour: red}":          "colour",
		"category: x":                           "cannot unmarshal",
		"- {category: x, phase: {a: b}, file: ": "yaml",
	} {
		if _, err := ParseRules([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}

func TestGlobs(t *testing.T) {
	for _, c := range []struct {
		glob, path string
		want       bool
	}{
		{"*.pem", "/a/b/c.pem", true},
		{"*.pem", "/a/b.pem/c", false},
		{"/etc/ssl/**", "/etc/ssl/certs/x", true},
		{"/etc/ssl/*", "/etc/ssl/certs/x", false},
		{"a?c", "abc", true},
		{"a.c", "abc", false},
	} {
		r, err := ruleText{Category: "x", File: []string{c.glob}}.compile()
		if err != nil {
			t.Fatal(err)
		}
		if got := matchesAny(r.files, c.path); got != c.want {
			t.Errorf("%s matches %s: %v", c.glob, c.path, got)
		}
	}
}
