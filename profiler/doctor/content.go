package doctor

import (
	"bytes"
	"cmp"
	"debug/elf"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/symbolize"
)

// Bounds on what is searched of a program.
const (
	maxScan    = 512 << 20
	scanChunk  = 2 << 20
	scanOver   = 4 << 10 // of each chunk is searched again with the next
	maxCrates  = 4096
	maxLibrary = 64
)

// Content is what strings in the program give away.
type Content struct {
	Allocator     string   `json:"allocator,omitempty"`      // "jemalloc", "mimalloc", "tcmalloc"
	AllocatorConf string   `json:"allocator_conf,omitempty"` // the variable that configures it
	PEMs          int      `json:"pem_certificates"`
	RootCAs       int      `json:"root_cas_named"` // of wellKnownCAs
	ReadsCertFile bool     `json:"reads_ssl_cert_file"`
	TokioWorkers  bool     `json:"reads_tokio_worker_threads"`
	Duplicates    []string `json:"duplicate_crates,omitempty"`
}

// content is what one pass through the loaded parts of the file found.
type content struct {
	conf    map[string]bool // variables that configure jemalloc
	found   map[string]bool // of marks
	cas     map[string]bool
	pems    int
	crates  map[string]map[string]bool // versions by name
	upx     string
	partial bool
}

// marks are strings of which the presence tells something: mimalloc prefixes its
// messages (src/options.c); gperftools' and Google's tcmalloc name their
// variables.
var marks = []string{
	"mimalloc: warning: ", "TCMALLOC_SAMPLE_PARAMETER", "tcmalloc.max_total_thread_cache_bytes",
	"SSL_CERT_FILE", "TOKIO_WORKER_THREADS",
}

// wellKnownCAs are common names of roots that every set of public roots holds.
// A set embedded as trust anchors, such as webpki-roots', has their subjects
// and no PEM block.
var wellKnownCAs = []string{
	"ISRG Root X1", "DigiCert Global Root G2", "GlobalSign Root CA", "GTS Root R1", "Amazon Root CA 1",
	"USERTrust RSA Certification Authority", "COMODO ECC Certification Authority", "Entrust Root Certification Authority",
}

var (
	// A whole C string: jemalloc's messages name /etc/malloc.conf in every build.
	jemallocLink = regexp.MustCompile(`\x00/etc/([a-z0-9_]*)malloc\.conf\x00`)
	crate        = regexp.MustCompile(`registry/src/[a-z.-]+-[0-9a-f]{16}/([A-Za-z0-9_-]+)-([0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*)/`)
	pem          = []byte("-----BEGIN CERTIFICATE-----\n")
	upxInfo      = regexp.MustCompile(`\$Id: UPX ([0-9.]+)`)
)

// scan reads the loaded segments once.
func scan(o *symbolize.Object) *content {
	c := &content{conf: map[string]bool{}, found: map[string]bool{}, cas: map[string]bool{}, crates: map[string]map[string]bool{}}
	left := uint64(maxScan)
	for _, s := range o.Segments() {
		for at := uint64(0); at < s.FileSize; at += scanChunk {
			if left < scanChunk {
				c.partial = true
				return c
			}
			left -= scanChunk
			b, err := o.ReadAddress(s.Address+at, min(s.FileSize-at, scanChunk+scanOver))
			if err != nil || len(b) == 0 {
				break
			}
			c.search(b, min(len(b), scanChunk))
		}
	}
	return c
}

// search looks through a chunk. What begins behind own is counted with the next.
func (c *content) search(b []byte, own int) {
	for _, m := range marks {
		if !c.found[m] && bytes.Contains(b, []byte(m)) {
			c.found[m] = true
		}
	}
	for _, name := range wellKnownCAs {
		if !c.cas[name] && bytes.Contains(b, []byte(name)) {
			c.cas[name] = true
		}
	}
	for at := 0; ; {
		i := bytes.Index(b[at:], pem)
		if i < 0 || at+i >= own {
			break
		}
		c.pems++
		at += i + len(pem)
	}
	if bytes.Contains(b, []byte("malloc.conf\x00")) {
		for _, m := range jemallocLink.FindAllSubmatch(b, 8) {
			c.conf[strings.ToUpper(string(m[1]))+"MALLOC_CONF"] = true
		}
	}
	if bytes.Contains(b, []byte("registry/src/")) {
		for _, m := range crate.FindAllSubmatch(b, -1) {
			name, version := string(m[1]), string(m[2])
			if c.crates[name] == nil {
				if len(c.crates) == maxCrates {
					continue
				}
				c.crates[name] = map[string]bool{}
			}
			if len(c.crates[name]) < 16 {
				c.crates[name][version] = true
			}
		}
	}
	if c.upx == "" && bytes.Contains(b, []byte("UPX!")) {
		if m := upxInfo.FindSubmatch(b); m != nil {
			c.upx = string(m[1])
		}
	}
}

func (e *examination) readContent() {
	c := &Content{}
	e.Content = c
	if names := sortedKeys(e.content.conf); len(names) > 0 {
		c.Allocator, c.AllocatorConf = "jemalloc", names[0]
		if len(names) > 1 {
			e.Warnings = append(e.Warnings, "more than one jemalloc, configured by "+strings.Join(names, " and "))
		}
	}
	f := e.content.found
	switch {
	case c.Allocator != "":
	case f["mimalloc: warning: "] || e.needs("libmimalloc"):
		c.Allocator = "mimalloc"
	case f["TCMALLOC_SAMPLE_PARAMETER"] || f["tcmalloc.max_total_thread_cache_bytes"] || e.needs("libtcmalloc"):
		c.Allocator = "tcmalloc"
	case e.needs("libjemalloc"):
		c.Allocator, c.AllocatorConf = "jemalloc", "MALLOC_CONF"
	}
	c.PEMs, c.RootCAs = e.content.pems, len(e.content.cas)
	c.ReadsCertFile, c.TokioWorkers = f["SSL_CERT_FILE"], f["TOKIO_WORKER_THREADS"]
	for name, versions := range e.content.crates {
		if len(versions) > 1 {
			var all []string
			for v := range versions {
				all = append(all, v)
			}
			slices.Sort(all)
			c.Duplicates = append(c.Duplicates, fmt.Sprintf("%s %s", name, strings.Join(all, ", ")))
		}
	}
	slices.Sort(c.Duplicates)
}

// needs reports whether the program needs a library of that name.
func (e *examination) needs(prefix string) bool {
	return slices.ContainsFunc(e.facts.Needed, func(n string) bool { return strings.HasPrefix(n, prefix) })
}

// packer recognises what UPX packed: it leaves no section headers, and behind
// the program headers it writes its l_info, a checksum and "UPX!".
func (e *examination) packer() string {
	if len(e.o.Sections()) > 0 {
		return ""
	}
	var head [4096]byte
	n, _ := e.r.ReadAt(head[:], 0)
	if !bytes.Contains(head[:n], []byte("UPX!")) {
		return ""
	}
	return strings.TrimSpace("UPX " + e.content.upx)
}

// Properties of .note.gnu.property (gABI extension): x86-64 levels that are
// needed, and what arm64 code is protected by.
const (
	propertyNote      = 5 // NT_GNU_PROPERTY_TYPE_0
	x86ISANeeded      = 0xc0008002
	aarch64Features   = 0xc0000000
	aarch64BTI        = 1
	aarch64PAC        = 2
	x86Features       = 0xc0000002
	x86IBT, x86Shadow = 1, 2
)

// properties reads the GNU property note: each is a type, a size, and data
// padded to 8 bytes.
func (e *examination) properties() (level, features string) {
	address, size, ok := e.o.Program(elf.PT_GNU_PROPERTY)
	if !ok {
		return "", ""
	}
	b, err := e.o.ReadAddress(address, min(size, 4096))
	if err != nil || len(b) < 16 || le.Uint32(b) != 4 || le.Uint32(b[8:]) != propertyNote {
		return "", ""
	}
	b = b[16:min(uint64(len(b)), 16+uint64(le.Uint32(b[4:])))]
	for len(b) >= 12 {
		typ, n := le.Uint32(b), uint64(le.Uint32(b[4:]))
		value := le.Uint32(b[8:])
		switch {
		case n < 4:
		case typ == x86ISANeeded && e.Binary.Arch == "amd64":
			level = isaLevel(value)
		case typ == aarch64Features && e.Binary.Arch == "arm64":
			features = join(named(value&aarch64BTI != 0, "BTI"), named(value&aarch64PAC != 0, "PAC"))
		case typ == x86Features && e.Binary.Arch == "amd64":
			features = join(named(value&x86IBT != 0, "IBT"), named(value&x86Shadow != 0, "SHSTK"))
		}
		step := min(8+(n+7)&^7, uint64(len(b)))
		b = b[step:]
	}
	return level, features
}

// isaLevel names the highest level among the bits: baseline, v2, v3, v4.
func isaLevel(bits uint32) string {
	switch {
	case bits&8 != 0:
		return "x86-64-v4"
	case bits&4 != 0:
		return "x86-64-v3"
	case bits&2 != 0:
		return "x86-64-v2"
	case bits&1 != 0:
		return "x86-64-baseline"
	}
	return ""
}

func named(present bool, name string) string {
	if present {
		return name
	}
	return ""
}

func join(names ...string) string {
	return strings.Join(slices.DeleteFunc(names, func(n string) bool { return n == "" }), " ")
}

// sortedKeys returns a map's keys in order.
func sortedKeys[K cmp.Ordered, V any](m map[K]V) []K {
	var keys []K
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
