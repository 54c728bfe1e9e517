package doctor

import (
	"fmt"
	"strings"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/symbolize"
)

// Verdict is what a change would do on a program.
type Verdict string

// The verdicts.
const (
	Inert   Verdict = "inert"   // nothing: the program has it, or has nothing it could act on
	Try     Verdict = "try"     // it can be tried without a rebuild, by the command
	Applies Verdict = "applies" // it has something to act on, and needs a rebuild
	Unclear Verdict = "unknown" // the file does not tell
)

// Change is one known cold-start change.
type Change struct {
	ID      string  `json:"id"` // as docs/cold-start-changes.md has it, empty if not there
	Name    string  `json:"name"`
	Verdict Verdict `json:"verdict"`
	Reason  string  `json:"reason"`
	Command string  `json:"command,omitempty"` // to try it, or how to rebuild
}

func (e *examination) judge() {
	for _, change := range []struct {
		id, name string
		judge    func() (v Verdict, reason, command string)
	}{
		{"H1", "compiled-in CA roots", e.roots},
		{"H7", "all symbols bound at start", e.binding},
		{"", "fewer relocations", e.relocations},
		{"H8", "target CPU", e.targetCPU},
		{"H10", "not compressed", e.compression},
		{"H12", "duplicate dependencies", e.duplicates},
		{"H15", "threads for the memory size", e.threads},
		{"H16", "one allocator arena", e.allocator},
	} {
		c := Change{ID: change.id, Name: change.name}
		if e.Binary.Packer != "" && change.id != "H10" {
			c.Verdict, c.Reason = Unclear, "the file is packed: unpack it and ask again"
		} else {
			c.Verdict, c.Reason, c.Command = change.judge()
		}
		e.Changes = append(e.Changes, c)
	}
}

// abTest is a command that compares the program with and without a variable.
func (e *examination) abTest(name, variable, value string) string {
	return fmt.Sprintf(`printf 'base: as-is\nvariants:\n- {name: as-is, command: [%[1]s]}\n- {name: %[2]s, command: [%[1]s], env: {%[3]s: "%[4]s"}}\n' | sudo initprof bench --matrix /dev/stdin`,
		shellSafe(e.Path), name, variable, value)
}

// shellSafe returns a path as it may stand between the command's quotes; other
// characters are the reader's to quote.
func shellSafe(path string) string {
	for _, r := range path {
		if !strings.ContainsRune("/._-+@", r) && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') {
			return "PROGRAM"
		}
	}
	return path
}

const fallbackRoots = "golang.org/x/crypto/x509roots/fallback"

func (e *examination) roots() (Verdict, string, string) {
	c := e.Content
	if e.isGo() {
		switch {
		case e.inits[fallbackRoots]:
			return Inert, "the program holds Mozilla's roots (" + fallbackRoots + "), which parse in its package init; the system's are read all the same where they exist", ""
		case e.inits == nil:
			return Unclear, "its packages are not known: " + e.noInits.Error(), ""
		case !e.inits["crypto/x509"]:
			return Inert, "crypto/x509 is not in the program", ""
		}
		return Try, "crypto/x509 reads the first certificate file that exists and then every file of the certificate directories, at its first verification; without the directories it is half",
			e.abTest("file-only", "SSL_CERT_DIR", "/var/empty")
	}
	switch {
	case c.RootCAs >= 4 && c.PEMs < 4 && c.ReadsCertFile:
		return Unclear, fmt.Sprintf("%d of %d well-known roots are in the program, and it names SSL_CERT_FILE too: which it uses is not in the file; record shows whether certificate files are read", c.RootCAs, len(wellKnownCAs)), ""
	case c.RootCAs >= 4 || c.PEMs >= 20:
		return Inert, fmt.Sprintf("roots are in the program: %d PEM blocks, %d of %d well-known subjects", c.PEMs, c.RootCAs, len(wellKnownCAs)), ""
	case c.ReadsCertFile || e.needs("libssl") || e.needs("libgnutls"):
		return Try, "the system's certificates are read at run time; a file of the few roots that are needed shows the gain", e.abTest("few-roots", "SSL_CERT_FILE", "/path/to/few-roots.pem")
	}
	return Unclear, "neither roots nor the names of certificate files are in the program itself", ""
}

func (e *examination) binding() (Verdict, string, string) {
	switch {
	case e.facts.Interpreter == "":
		return Inert, "it has no dynamic loader: nothing is bound at run time", ""
	case e.facts.Libc() == loader.Musl:
		return Inert, "musl's loader binds every symbol at start", ""
	}
	own, others := e.facts.Lazy(), e.Loader.LibraryLazy
	if e.facts.BindNow {
		reason := fmt.Sprintf("the program is linked with -z now: its %s bound at start", plural(own, "PLT symbol is", "PLT symbols are"))
		if e.Binary.Language == symbolize.LanguageRust {
			reason += " (rustc's Linux targets default to full RELRO)"
		}
		if others == 0 {
			return Inert, reason, ""
		}
		return Inert, fmt.Sprintf("%s; its libraries have %d lazy ones, which its link does not change", reason, others), e.abTest("now", "LD_BIND_NOW", "1")
	}
	if own == 0 && others == 0 {
		return Inert, "neither it nor its libraries on this host have a symbol to bind lazily", ""
	}
	return Try, fmt.Sprintf("%s of the program and %d of its libraries on this host are bound at first use; LD_BIND_NOW=1 binds them all at start, -z now those of the program", plural(own, "symbol", "symbols"), others),
		e.abTest("now", "LD_BIND_NOW", "1")
}

func (e *examination) relocations() (Verdict, string, string) {
	c := e.facts.Counts
	switch {
	case !e.facts.PIE:
		return Inert, "the program is not position independent: it has no relative relocations", ""
	case c.Relative < 1000 && c.RELR == 0:
		return Inert, fmt.Sprintf("%s relative relocations are few", thousands(c.Relative)), ""
	case c.RELR > 0 && c.Relative < 1000:
		return Inert, fmt.Sprintf("its %s relative relocations are packed (RELR)", thousands(c.RELR)), ""
	}
	reason := fmt.Sprintf("position independent, with %s relative relocations of 24 bytes each, applied before main; each touches a page of data", thousands(c.Relative))
	switch {
	case e.isGo():
		return Applies, reason, "go build -buildmode=exe …"
	case e.Binary.Language == symbolize.LanguageRust:
		return Applies, reason + "; RELR (glibc 2.36 and later) packs them", "RUSTFLAGS='-C link-arg=-Wl,-z,pack-relative-relocs' cargo build --release"
	case e.facts.Interpreter != "":
		return Applies, reason + "; RELR (glibc 2.36 and later) packs them, and a program at a fixed address has none", "cc -Wl,-z,pack-relative-relocs … or cc -no-pie …"
	}
	return Applies, reason + "; a static program at a fixed address has none", "cc -static -no-pie …"
}

func (e *examination) targetCPU() (Verdict, string, string) {
	level := e.Binary.CPULevel
	switch {
	case level == "GOAMD64=v1":
		return Applies, "built for the x86-64 baseline (" + level + ")", "GOAMD64=v2 go build …"
	case level == "GOARM64=v8.0":
		return Applies, "built for armv8.0 (" + level + "): atomics are checked for at run time", "GOARM64=v8.2,lse go build …"
	case strings.HasPrefix(level, "GO"):
		return Inert, "built for " + level, ""
	case level == "x86-64-baseline":
		return Unclear, "the linker's note says that the baseline suffices to start it; for what its code was compiled is not stated in the file", ""
	case level != "":
		return Inert, "it needs " + level + ", by its .note.gnu.property", ""
	}
	return Unclear, "not stated in the file", ""
}

func (e *examination) compression() (Verdict, string, string) {
	if e.Binary.Packer != "" {
		return Applies, "packed by " + e.Binary.Packer + ": every start unpacks the whole program, and no page of it is shared or read on demand",
			fmt.Sprintf("upx -d -o unpacked %s && sudo initprof bench packed=%[1]s unpacked=./unpacked", shellSafe(e.Path))
	}
	return Inert, "the file is not packed", ""
}

func (e *examination) duplicates() (Verdict, string, string) {
	switch {
	case e.isGo():
		return Inert, "Go links one version of each module path", ""
	case len(e.Content.Duplicates) > 0:
		return Applies, fmt.Sprintf("%s by the paths in its panic messages: %s", plural(len(e.Content.Duplicates), "crate is there twice", "crates are there twice"), strings.Join(e.Content.Duplicates, "; ")), "cargo tree --duplicates"
	case len(e.content.crates) > 0:
		return Unclear, fmt.Sprintf("of the %d crates that its panic messages name none is there twice; the file does not name the others", len(e.content.crates)), "cargo tree --duplicates"
	}
	return Unclear, "the file names no dependencies", ""
}

func (e *examination) threads() (Verdict, string, string) {
	switch {
	case e.isGo():
		reason := "GOMAXPROCS follows the CPUs that are visible"
		if minor, ok := goMinor(e.Binary.LanguageVersion); ok && minor >= 25 {
			reason = "GOMAXPROCS follows the cgroup's CPU limit (Go 1.25 and later), 2 at the least"
		}
		return Try, reason, e.abTest("one", "GOMAXPROCS", "1")
	case e.Content.TokioWorkers:
		return Try, "tokio's default is one worker for each visible CPU, and its runtime reads TOKIO_WORKER_THREADS unless the program sets the number", e.abTest("one", "TOKIO_WORKER_THREADS", "1")
	}
	return Unclear, "no runtime with worker threads was recognised", ""
}

func (e *examination) allocator() (Verdict, string, string) {
	c := e.Content
	switch {
	case e.isGo():
		return Try, "Go's heap has no arenas to count; nearest is its collector, which GOGC=off keeps out of INIT: it runs first when the heap reaches 4 MB, so below that nothing changes", e.abTest("no-gc", "GOGC", "off")
	case c.Allocator == "jemalloc":
		return Try, "jemalloc reads " + c.AllocatorConf, e.abTest("narenas-1", c.AllocatorConf, "narenas:1")
	case c.Allocator == "mimalloc":
		return Unclear, "mimalloc has one heap for each thread that allocates; MIMALLOC_SHOW_STATS=1 prints what it mapped", ""
	case c.Allocator == "tcmalloc":
		return Unclear, "tcmalloc keeps a cache for each thread or CPU and has no count of arenas", ""
	case e.facts.Libc() == loader.Musl:
		return Inert, "musl's allocator has one arena", ""
	case e.facts.Libc() == loader.Glibc:
		return Try, "glibc's malloc, as far as the file tells: it makes an arena for each thread that contends, up to 8 for each CPU", e.abTest("one-arena", "GLIBC_TUNABLES", "glibc.malloc.arena_max=1")
	}
	return Unclear, "no allocator was recognised", ""
}

func goMinor(version string) (int, bool) {
	var minor int
	_, err := fmt.Sscanf(version, "go1.%d", &minor)
	return minor, err == nil
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// thousands writes 27622 as 27,622.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
