// Package doctor tells from a program's file alone what of the known cold-start
// changes is inert on it, what can be tried without a rebuild, and what
// initprof will see of it. Nothing is run.
//
// It stands right of loader, whose facts it reads, and beside analysis; cli
// prints what it finds.
package doctor

import (
	"fmt"
	"io"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/symbolize"
)

// Schema is the version of a Report's JSON form.
const Schema = "initprof/doctor/v1"

// Report is what is known of a program from its file.
type Report struct {
	Schema   string    `json:"schema"`
	Path     string    `json:"path"`
	Binary   Binary    `json:"binary"`
	Stacks   *Stacks   `json:"stacks,omitempty"` // these three not of a packed program
	Loader   *Loader   `json:"loader,omitempty"`
	Content  *Content  `json:"content,omitempty"`
	Changes  []Change  `json:"changes"`
	Packages []Package `json:"packages,omitempty"`
	Probes   []Probe   `json:"probes"`
	Warnings []string  `json:"warnings"`
}

// Binary is what the headers, the notes and Go's build info tell.
type Binary struct {
	Arch            string `json:"arch"`
	Language        string `json:"language"`
	LanguageVersion string `json:"language_version,omitempty"`
	Linkage         string `json:"linkage,omitempty"`
	Interpreter     string `json:"interpreter,omitempty"`
	Libc            string `json:"libc,omitempty"`
	PIE             bool   `json:"pie"`
	Stripped        bool   `json:"stripped"`
	DebugInfo       bool   `json:"debug_info"`
	DebugLink       string `json:"debug_link,omitempty"`
	BuildID         string `json:"build_id,omitempty"`
	GoBuildID       string `json:"go_build_id,omitempty"`
	CPULevel        string `json:"cpu_level,omitempty"` // such as "GOAMD64=v1"; empty if the file does not state it
	CPUFeatures     string `json:"cpu_features,omitempty"`
	Packer          string `json:"packer,omitempty"` // "UPX" and its version
}

// Stacks is what unwinding will find.
type Stacks struct {
	FramePointers string `json:"frame_pointers"` // "yes", "no", "some" or "unknown"
	Functions     int    `json:"functions"`      // by .eh_frame_hdr
	WithFrame     int    `json:"with_frame"`     // of those looked at
	LookedAt      int    `json:"looked_at"`
	CFI           bool   `json:"cfi"` // .eh_frame
}

// Loader is what the program alone asks of the dynamic loader; its libraries
// ask for theirs.
type Loader struct {
	Needed      []string `json:"needed"`
	BindNow     bool     `json:"bind_now"`
	RELRO       string   `json:"relro"`
	Relative    int      `json:"relative"`
	RELR        int      `json:"relr"`
	GlobDat     int      `json:"glob_dat"`
	JumpSlot    int      `json:"jump_slot"`
	IRelative   int      `json:"irelative"`
	TLS         int      `json:"tls"`
	Copy        int      `json:"copy"`
	Symbolic    int      `json:"symbolic"`
	Other       int      `json:"other"`
	InitArray   int      `json:"init_array"`
	Preinit     int      `json:"preinit_array"`
	TextRel     bool     `json:"text_relocations"`
	LibraryLazy int      `json:"library_jump_slots"` // of the libraries it needs, where they are on this host
}

// Package is a Go package that initialises itself before main.
type Package struct {
	Path  string `json:"path"`
	Funcs int    `json:"functions"`
}

// Options are what Examine may look at besides the file.
type Options struct {
	// Open opens the program's interpreter and libraries by path; nil leaves
	// them out.
	Open func(path string) (ReaderAtCloser, error)
}

// ReaderAtCloser is an open file.
type ReaderAtCloser interface {
	io.ReaderAt
	io.Closer
}

// Examine reads a program. path is only named in commands and messages. The
// error is of a file that is no ELF object of a known architecture.
func Examine(r io.ReaderAt, path string, opts Options) (report *Report, err error) {
	// debug/elf and debug/buildinfo promise no resistance to hostile files.
	defer func() {
		if p := recover(); p != nil {
			report, err = nil, fmt.Errorf("malformed object: %v", p)
		}
	}()
	o, err := symbolize.OpenObject(r)
	if err != nil {
		return nil, err
	}
	facts, err := loader.FactsOf(o)
	if err != nil {
		return nil, err
	}
	e := &examination{
		Report: &Report{Schema: Schema, Path: path, Warnings: []string{}},
		o:      o, r: r, facts: facts, opts: opts,
	}
	e.content = scan(o)
	e.readBinary()
	if e.Binary.Packer == "" {
		e.readContent()
		e.readLoader()
		e.readStacks()
		e.readPackages()
	}
	e.planProbes()
	e.judge()
	e.Warnings = append(e.Warnings, facts.Warnings...)
	if e.content.partial {
		e.Warnings = append(e.Warnings, fmt.Sprintf("the first %d MB were searched for strings, the rest was not searched", maxScan>>20))
	}
	if err := o.Err(); err != nil {
		e.Warnings = append(e.Warnings, err.Error())
	}
	return e.Report, nil
}

// examination is the state of one Examine.
type examination struct {
	*Report
	o       *symbolize.Object
	r       io.ReaderAt
	facts   *loader.Facts
	content *content
	opts    Options
	goInfo  goInfo
	inits   map[string]bool // packages that initialise themselves
	noInits error           // why they are not known
	libs    map[string]*library
}

func (e *examination) isGo() bool { return e.Binary.Language == symbolize.LanguageGo }

func (e *examination) readPackages() {
	if !e.isGo() {
		return
	}
	inits, err := e.o.PackageInits()
	if err != nil {
		e.noInits = err
		e.Warnings = append(e.Warnings, err.Error())
		return
	}
	e.inits = map[string]bool{}
	for _, p := range inits {
		e.inits[p.Path] = true
		e.Packages = append(e.Packages, Package{Path: p.Path, Funcs: p.Funcs})
	}
}

func (e *examination) readLoader() {
	f, c := e.facts, e.facts.Counts
	l := &Loader{Needed: append([]string{}, f.Needed...)}
	e.Loader = l
	l.BindNow, l.RELRO, l.TextRel = f.BindNow, string(f.RELRO), f.TextRel
	l.Relative, l.RELR, l.GlobDat, l.JumpSlot = c.Relative, c.RELR, c.GlobDat, c.JumpSlot
	l.IRelative, l.TLS, l.Copy, l.Symbolic, l.Other = c.IRelative, c.TLS, c.Copy, c.Symbolic, c.Other
	l.InitArray, l.Preinit = f.Init, f.Preinit
	e.readLibraries()
	for _, library := range e.libs {
		if !library.facts.BindNow {
			l.LibraryLazy += library.facts.Lazy()
		}
	}
}
