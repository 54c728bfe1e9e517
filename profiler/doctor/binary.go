package doctor

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"path"
	"strings"

	"github.com/initprof/initprof/profiler/loader"
	"github.com/initprof/initprof/profiler/symbolize"
)

var le = binary.LittleEndian

// goInfo is what Go's build info tells.
type goInfo struct {
	known    bool
	settings map[string]string // -trimpath, GOAMD64, CGO_ENABLED …
	modules  map[string]bool
}

func (e *examination) readBinary() {
	b, i := &e.Binary, e.o.Info
	b.Arch, b.Linkage, b.Interpreter = i.Machine, i.Linkage, i.Interpreter
	b.PIE, b.Stripped = e.facts.PIE, i.Stripped
	b.BuildID, b.GoBuildID = i.BuildID, i.GoBuildID
	if i.GoBuildID != "" && i.BuildID == symbolize.GNUBuildID(i.GoBuildID) {
		b.BuildID = "" // derived, not in the file
	}
	if b.Packer = e.packer(); b.Packer != "" {
		b.Linkage, b.PIE = "", false // of the unpacker
		return
	}
	b.Language, b.LanguageVersion = e.o.Language()
	if libc := e.facts.Libc(); libc != loader.Unknown {
		b.Libc = string(libc)
	}
	_, dwarf := e.o.Section(".debug_info")
	_, zdwarf := e.o.Section(".zdebug_info")
	b.DebugInfo = dwarf || zdwarf
	if s, ok := e.o.Section(".gnu_debuglink"); ok {
		if name, err := e.o.ReadSection(s, 4096); err == nil {
			name, _, _ = bytes.Cut(name, []byte{0})
			b.DebugLink = path.Base(string(name))
		}
	}
	b.CPULevel, b.CPUFeatures = e.properties()
	if e.isGo() {
		e.readBuildInfo()
	}
}

func (e *examination) readBuildInfo() {
	info, err := e.o.BuildInfo()
	if err != nil {
		return
	}
	e.goInfo = goInfo{known: true, settings: map[string]string{}, modules: map[string]bool{}}
	for _, s := range info.Settings {
		e.goInfo.settings[s.Key] = s.Value
	}
	for _, m := range info.Deps {
		if m != nil {
			e.goInfo.modules[m.Path] = true
		}
	}
	for _, key := range []string{"GOAMD64", "GOARM64"} {
		if v := e.goInfo.settings[key]; v != "" {
			e.Binary.CPULevel = key + "=" + v
		}
	}
}

// readStacks tells what unwinding can rely on. Go keeps frame pointers on both
// architectures. Elsewhere the beginnings of the functions tell: push %rbp, mov
// %rsp,%rbp, or stp x29, x30 and mov x29, sp.
func (e *examination) readStacks() {
	s := &Stacks{}
	e.Stacks = s
	_, s.CFI = e.o.Section(".eh_frame")
	if _, _, ok := e.o.Program(elf.PT_GNU_EH_FRAME); ok {
		s.CFI = true
	}
	if e.isGo() {
		s.FramePointers = "yes"
		return
	}
	const most = 4000
	starts := loader.FunctionStarts(e.o)
	s.Functions, s.FramePointers = len(starts), "unknown"
	step := max(1, len(starts)/most)
	for i := 0; i < len(starts); i += step {
		code, err := e.o.ReadAddress(starts[i], 32)
		if err != nil || len(code) < 12 {
			continue
		}
		s.LookedAt++
		if keepsFrame(e.Binary.Arch, code) {
			s.WithFrame++
		}
	}
	switch {
	case s.LookedAt < 10:
	case s.WithFrame*10 >= s.LookedAt*6: // leaves need none
		s.FramePointers = "yes"
	case s.WithFrame*10 < s.LookedAt:
		s.FramePointers = "no"
	default:
		s.FramePointers = "some"
	}
}

var (
	landingPad = []byte{0xf3, 0x0f, 0x1e, 0xfa}
	pushFrame  = []byte{0x55, 0x48, 0x89, 0xe5} // push %rbp; mov %rsp,%rbp
)

func keepsFrame(arch string, code []byte) bool {
	if arch == "amd64" {
		return bytes.HasPrefix(bytes.TrimPrefix(code, landingPad), pushFrame)
	}
	for ; len(code) >= 4; code = code[4:] {
		if w := le.Uint32(code); w == 0x910003fd || w&0xffc003ff == 0x910003fd { // mov x29, sp; add x29, sp, #n
			return true
		}
	}
	return false
}

// readLibraries reads what the program needs, and what that needs, where this
// host has them in the usual places.
func (e *examination) readLibraries() {
	e.libs = map[string]*library{}
	if e.opts.Open == nil || e.facts.Interpreter == "" {
		return
	}
	dirs := libraryDirs(e.Binary.Arch, e.facts)
	queue := append([]string(nil), e.facts.Needed...)
	for len(queue) > 0 && len(e.libs) < maxLibrary {
		name := queue[0]
		queue = queue[1:]
		if e.libs[name] != nil || strings.Contains(name, "/") {
			continue
		}
		if l := e.openLibrary(dirs, name); l != nil {
			e.libs[name] = l
			queue = append(queue, l.facts.Needed...)
		}
	}
}

func libraryDirs(arch string, f *loader.Facts) []string {
	triple := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	libc := "gnu"
	if f.Libc() == loader.Musl {
		libc = "musl"
	}
	var dirs []string
	for _, d := range strings.Split(f.RunPath, ":") {
		if strings.HasPrefix(d, "/") {
			dirs = append(dirs, d)
		}
	}
	multiarch := triple + "-linux-" + libc
	return append(dirs, "/lib/"+multiarch, "/usr/lib/"+multiarch, "/lib64", "/usr/lib64", "/lib", "/usr/lib")
}

func (e *examination) openLibrary(dirs []string, name string) *library {
	for _, d := range dirs {
		at := path.Join(d, name)
		file, err := e.opts.Open(at)
		if err != nil {
			continue
		}
		l, err := readLibrary(file, at, e.Binary.Arch)
		_ = file.Close()
		if err == nil {
			return l
		}
	}
	return nil
}
