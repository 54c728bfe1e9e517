package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	pprofile "github.com/google/pprof/profile"

	"github.com/initprof/initprof/testdata/subjects"
)

// threadEntry is where the stacks of a thread end.
var threadEntry = regexp.MustCompile(`^(_start|__libc_start_main.*|__libc_start_call_main|start_thread|__clone3|clone3)$`)

// rustPhases are the universal phases and the checkpoints, of which each is a
// static probe of the program.
var rustPhases = []string{
	"exec", "loader", "runtime_init", "crypto_provider_ready", "tls_client_build", "register", "config_parse", "shared_client_ready",
	"register_ready", "dogstatsd_started", "trace_agent_started", "telemetry_subscribe", "telemetry_subscribed", "ready", "next",
}

// The parts of the Rust extension's start go by their names, where its symbols
// stand in itself and where --symbols brings them, and nine in ten of the stacks
// that show them reach the entry of their thread.
func TestRustStartGoesByName(t *testing.T) {
	needRoot(t)
	full, stripped := subjects.Build(t, subjects.RustExtension), subjects.Build(t, subjects.RustStripped)
	for name, args := range map[string][]string{"unstripped": {"--", full}, "stripped with --symbols": {"--symbols", full, "--", stripped}} {
		t.Run(name, func(t *testing.T) {
			run := filepath.Join(t.TempDir(), "run.initprof")
			args := append([]string{"record", "-q", "-n", "6", "--untraced", "0", "--sample-rate", "4000", "-o", run}, args...)
			if code, _, errOut := initprof(args...); code != 0 {
				t.Fatalf("exit code %d\n%s", code, errOut)
			}
			r := report(t, run)
			if diff := cmp.Diff(rustPhases, phases(r)); diff != "" {
				t.Errorf("phases (-want +got):\n%s", diff)
			}
			for _, one := range r.Runs {
				if one.Outcome != "ok" || one.LostEvents == nil || *one.LostEvents != 0 || one.SubscribeOutcome != "ok" {
					t.Errorf("cold start %d: %+v", one.Index, one)
				}
			}
			samples := slices.Concat(samplesOf(t, run, "cpu"), samplesOf(t, run, "faults"), samplesOf(t, run, "syscalls"))
			for part, pattern := range map[string]string{
				"native certificates": `^rustls_native_certs::|^rustls_pki_types::pem::`,
				"rustls set-up":       `^rustls::(webpki|client|crypto)::|^webpki::`,
				"tokio's start":       `^tokio::runtime::(builder|scheduler|blocking)::`,
				"jemalloc's start":    `^malloc_init|^_rjem_je_(arena_new|base_boot|tsd_)`,
			} {
				named, whole := stacksWith(samples, regexp.MustCompile(pattern))
				t.Logf("%s: %d stacks, %d reach the thread's entry", part, named, whole)
				if named == 0 {
					t.Errorf("%s: no frame of %d stacks bears a name like %s", part, len(samples), pattern)
				}
				if whole*10 < named*9 {
					t.Errorf("%s: %d of %d stacks reach the thread's entry", part, whole, named)
				}
			}
		})
	}
}

func samplesOf(t *testing.T, run, signal string) []*pprofile.Sample {
	t.Helper()
	f, err := os.Open(filepath.Join(run, "profiles", signal+".pb.gz"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := pprofile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	return p.Sample
}

// stacksWith counts the stacks with a frame of that name, inlined ones
// included, and those of them that reach the entry of their thread. A named
// frame of the subject must say in which line of source it is.
func stacksWith(samples []*pprofile.Sample, name *regexp.Regexp) (named, whole int) {
	for _, s := range samples {
		found, ends := false, false
		for _, l := range s.Location {
			for _, line := range l.Line {
				found = found || name.MatchString(line.Function.Name) && line.Function.Filename != ""
				ends = ends || threadEntry.MatchString(line.Function.Name)
			}
		}
		if found {
			named++
			if ends {
				whole++
			}
		}
	}
	return named, whole
}
