package startup

import (
	"path"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Cert is a file or directory of certificates that was read, or a set of them
// that the program itself carries.
type Cert struct {
	Span            // from its opening until the next one's, or until its load was over
	Path     string // "embedded" for what the program carries
	Bytes    int64  // read; -1: not known
	Function string // that loaded it, empty if unknown
	Minor    int
	Major    int
}

// embedded is the path of certificates that stand in the program.
const embedded = "embedded"

// certDirectories hold certificates wherever distributions keep them.
var certDirectories = []string{
	"/etc/ssl/", "/usr/lib/ssl/certs/", "/etc/pki/tls/", "/etc/pki/ca-trust/", "/usr/share/ca-certificates/",
	"/usr/local/share/ca-certificates/", "/usr/share/pki/", "/usr/share/ssl/", "/usr/local/share/certs/",
}

// isCert reports whether a path names a file or directory of certificates.
func isCert(name string) bool {
	base := path.Base(name)
	switch strings.ToLower(path.Ext(base)) {
	case ".pem", ".crt", ".cer", ".cert":
		return !strings.Contains(base, "key")
	case ".cnf", ".conf", ".key", ".so":
		return false
	}
	if strings.Contains(base, "ca-bundle") {
		return true
	}
	return slices.ContainsFunc(certDirectories, func(dir string) bool { return strings.HasPrefix(name+"/", dir) })
}

// loadContext is a function that loads certificates, while it does.
type loadContext struct {
	Span
	pid      int
	function string
}

// certLoaders are the probed functions of C and Rust that load certificates,
// the outer ones first.
var certLoaders = []string{
	"rustls_native_certs::load_native_certs",
	"SSL_CTX_load_verify_locations", "SSL_CTX_load_verify_file", "SSL_CTX_load_verify_dir", "SSL_CTX_set_default_verify_paths",
	"X509_STORE_load_locations", "X509_STORE_load_file", "X509_STORE_set_default_paths",
	"X509_STORE_load_locations_ex", "X509_STORE_load_file_ex", "X509_STORE_set_default_paths_ex",
	"X509_load_cert_crl_file", "X509_load_cert_crl_file_ex", "X509_load_cert_file_ex",
	"gnutls_certificate_set_x509_system_trust", "gnutls_x509_trust_list_add_system_trust",
}

// certFunctions begin the names of functions by which a stack tells who loads
// certificates where none of the probed ones is around.
var certFunctions = []string{
	"crypto/x509.", "rustls_native_certs", "openssl_probe", "SSL_CTX_", "X509_", "by_file_ctrl", "by_dir", "get_cert_by_subject",
	"gnutls_", "mbedtls_x509_", "s2n_x509_",
}

// certs finds the certificates that were read.
func (c *computation) certs() {
	contexts := c.certContexts()
	type reading struct {
		Cert
		file    *trace.Descriptor
		context *loadContext
		pid     int
	}
	var all []*reading
	byFile := map[*trace.Descriptor]*reading{}
	for _, call := range c.Timeline.Calls {
		if !c.inside(call.Begin) || call.File == nil {
			continue
		}
		if r := byFile[call.File]; r != nil {
			if (c.Timeline.Reads(call) || c.Timeline.SyscallName(call.Syscall) == "getdents64") && call.Returned() && !call.Failed() {
				r.Bytes += call.Return
			}
			r.End = max(r.End, min(call.Until, c.Phases.End))
			continue
		}
		if call.Path == "" || call.Failed() || call.File.Kind != trace.DescriptorFile || !isCert(call.File.Path) {
			continue
		}
		r := &reading{
			Cert: Cert{Path: call.File.Path, Span: Span{Start: call.Begin, End: call.Until, Thread: call.Thread}},
			file: call.File, pid: call.PID,
		}
		for i := range contexts {
			x := &contexts[i]
			if x.pid == call.PID && x.Start <= call.Begin && call.Begin < x.End {
				r.context, r.Function = x, x.function
				break
			}
		}
		if r.Function == "" {
			r.Function = c.certFunction(call)
		}
		byFile[call.File] = r
		all = append(all, r)
	}
	// Within one load, what is read is parsed before the next file is opened.
	for i, r := range all {
		if r.context == nil {
			continue
		}
		r.End = r.context.End
		if i+1 < len(all) && all[i+1].context == r.context {
			r.End = all[i+1].Start
		}
	}
	for _, r := range all {
		r.Minor, r.Major, _ = faults(r.Span)
		c.Certs = append(c.Certs, r.Cert)
	}
	for _, p := range c.Packages {
		if p.Path == x509Fallback || strings.HasPrefix(p.Path, x509Fallback+"/") {
			cert := Cert{Span: p.Span, Path: embedded, Bytes: -1, Function: p.Path + ".init"}
			cert.Minor, cert.Major, _ = faults(p.Span)
			c.Certs = append(c.Certs, cert)
		}
	}
}

func (c *computation) certContexts() (contexts []loadContext) {
	for _, s := range c.Stages {
		if s.Function == loadGoRoots && s.Thread != nil {
			contexts = append(contexts, loadContext{s.Span, s.Thread.PID, s.Function})
		}
	}
	for _, name := range certLoaders {
		for _, f := range c.calls(name) {
			contexts = append(contexts, loadContext{c.span(f), f.PID, name})
		}
	}
	return contexts
}

// certFunction tells from a call's stack who loads certificates: the outermost
// function that is known to, else the innermost that is none of the C library.
func (c *computation) certFunction(call *trace.Call) string {
	found, fallback := "", ""
	for n, address := range call.Stack.User {
		l := c.Resolver.Resolve(call.PID, call.Begin, address, false, n > 0)
		name := l.Function()
		if name == "" {
			continue
		}
		if slices.ContainsFunc(certFunctions, func(prefix string) bool { return strings.HasPrefix(name, prefix) }) {
			found = name
		}
		if fallback == "" && !isLibc(l.Module) && !strings.HasPrefix(name, "syscall.") && !strings.HasPrefix(name, "runtime.") && !strings.HasPrefix(name, "internal/") {
			fallback = name
		}
	}
	if found != "" {
		return found
	}
	return fallback
}

func isLibc(module string) bool {
	base := path.Base(module)
	return strings.HasPrefix(base, "libc.so") || strings.HasPrefix(base, "libc-2") || strings.HasPrefix(base, "ld-musl")
}
