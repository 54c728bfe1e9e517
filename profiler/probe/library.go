package probe

import "strings"

// function is a function of C, C++ or Rust of which calls are recorded where a
// program or library has it.
type function struct {
	name   string // demangled
	action Action
	args   int // registers that carry arguments
}

// libraryFunctions are those of C libraries, TLS libraries and allocators.
// Their names are looked up in every object that is mapped: in a library's
// dynamic symbols, or in the symbols of a program that carries them itself.
var libraryFunctions = []function{
	// Objects and symbols at run time. The loader's own dlopen is probed too,
	// but is left by a longjmp when it fails.
	{"dlopen", RecordCallText0, 2},
	{"dlmopen", RecordCallText1, 3},
	{"dlsym", RecordCallText1, 2},
	{"dlvsym", RecordCallText1, 3},

	// Certificates: OpenSSL and its forks, GnuTLS, rustls-native-certs.
	{"SSL_CTX_load_verify_locations", RecordCall, 3},
	{"SSL_CTX_load_verify_file", RecordCall, 2},
	{"SSL_CTX_load_verify_dir", RecordCall, 2},
	{"SSL_CTX_set_default_verify_paths", RecordCall, 1},
	{"X509_STORE_load_locations", RecordCall, 3},
	{"X509_STORE_load_file", RecordCall, 2},
	{"X509_STORE_set_default_paths", RecordCall, 1},
	{"X509_load_cert_crl_file", RecordCall, 3},
	// OpenSSL 3: the functions above call these, which more often begin with an
	// instruction at which a probe is cheap.
	{"X509_STORE_load_locations_ex", RecordCall, 3},
	{"X509_STORE_load_file_ex", RecordCall, 3},
	{"X509_STORE_set_default_paths_ex", RecordCall, 3},
	{"X509_load_cert_file_ex", RecordCall, 3},
	{"X509_load_cert_crl_file_ex", RecordCall, 3},
	{"gnutls_certificate_set_x509_system_trust", RecordCall, 1},
	{"gnutls_x509_trust_list_add_system_trust", RecordCall, 3},
	{"rustls_native_certs::load_native_certs", RecordCall, 1},

	// Allocators: glibc's (only a debug file names it), jemalloc with the
	// prefixes of Rust's crates, mimalloc, tcmalloc.
	{"ptmalloc_init", RecordCall, 0},
	{"arena_get2", RecordCall, 2},
	{"malloc_init_hard", RecordCall, 0},
	{"_rjem_malloc_init_hard", RecordCall, 0},
	{"mi_process_init", RecordCall, 0},
	{"tcmalloc::ThreadCache::InitModule", RecordCall, 0},
}

// ForLibrary plans the probes of a library, or of the symbols of C, C++ and
// Rust that a program carries itself.
func ForLibrary(p Program) Plan {
	var plan Plan
	p.forFunctions(&plan)
	return plan
}

func (p Program) forFunctions(plan *Plan) {
	var stepped []string
	for _, f := range libraryFunctions {
		address, _, ok := p.Object.LookupFunc(f.name)
		if !ok {
			continue
		}
		// The return probe needs the stack as it is at the entry, so that a
		// point further inside will not do.
		at := p.cheapEntry(address, f.args)
		code, err := p.Object.ReadAddress(at, 16)
		if err == nil && !p.AllowStepping && !CostOf(p.Arch, code).Cheap() {
			stepped = append(stepped, f.name)
			continue
		}
		plan.add(p.Object, p.Arch, f.action, Call, f.name, at)
	}
	if len(stepped) > 0 {
		plan.Missing = append(plan.Missing, WouldStep(strings.Join(stepped, ", ")))
	}
}

// WouldStep is the reason why a plan leaves functions out.
func WouldStep(functions string) string {
	return functions + ": would be single-stepped, 11 to 16 µs a call (--step-probes asks for it)"
}
