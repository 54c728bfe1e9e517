package symbolize

import (
	"bytes"
	"debug/buildinfo"
	"debug/elf"
	"io"
	"regexp"
	"runtime/debug"
	"strings"
)

// The languages that Language tells apart.
const (
	LanguageGo   = "go"
	LanguageRust = "rust"
	LanguageCPP  = "c++"
	LanguageC    = "c"
)

// maxLanguageScan bounds how much of .rodata is searched for a compiler's
// traces.
const maxLanguageScan = 32 << 20

var rustVersion = regexp.MustCompile(`rustc version ([0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.-]*)`)

// Language tells the language of the program's main part and the version of
// its compiler or, for Go, of its toolchain ("go1.26.0"). Both are empty where
// nothing gives them away; a version can be missing alone. Stripping takes
// from none of the sources it reads first: Go's build info, .comment, the
// dynamic symbols and libraries, and the paths of Rust's standard library in
// .rodata.
func (o *Object) Language() (language, version string) {
	o.languageOne.Do(func() {
		defer func() {
			if p := recover(); p != nil {
				o.fault(malformed{p})
			}
		}()
		o.language, o.languageVersion = o.findLanguage()
	})
	return o.language, o.languageVersion
}

func (o *Object) findLanguage() (language, version string) {
	if o.file.Section(".go.buildinfo") != nil || len(o.file.Sections) == 0 {
		if info, err := o.BuildInfo(); err == nil {
			return LanguageGo, info.GoVersion
		}
	}
	if o.goTable() != nil {
		return LanguageGo, ""
	}
	comment := o.comment()
	if m := rustVersion.FindStringSubmatch(comment); m != nil {
		return LanguageRust, m[1]
	}
	rust, cpp := false, false
	t := o.table()
	for _, s := range t.symbols {
		name := t.name(s)
		switch {
		case rustMangled(name), name == "rust_eh_personality", name == "__rust_alloc":
			rust = true
		case strings.HasPrefix(name, "_Z"):
			cpp = true
		}
	}
	if rust || o.holds(".rodata", "/rustc/") {
		return LanguageRust, ""
	}
	for _, lib := range o.Info.Needed {
		cpp = cpp || strings.HasPrefix(lib, "libstdc++.so") || strings.HasPrefix(lib, "libc++.so")
	}
	compiler := strings.TrimSpace(comment)
	switch {
	case cpp:
		return LanguageCPP, compiler
	case compiler != "" || o.Info.Linkage == "dynamic":
		return LanguageC, compiler
	}
	return "", ""
}

// maxBuildInfoScan bounds how much of a program is searched for Go's build
// info. It stands at the beginning of the data segment, where a program has
// section headers or none.
const maxBuildInfoScan = 256 << 20

// BuildInfo returns what `go version -m` prints of a Go program.
func (o *Object) BuildInfo() (*debug.BuildInfo, error) {
	return buildinfo.Read(&budgetReader{r: o.r, left: maxBuildInfoScan})
}

// budgetReader reads until a number of bytes was read. debug/buildinfo searches
// as much as a segment's header claims.
type budgetReader struct {
	r    io.ReaderAt
	left int64
}

func (b *budgetReader) ReadAt(p []byte, off int64) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errTooMuchWork
	}
	return b.r.ReadAt(p, off)
}

// comment returns the first compiler that .comment names.
func (o *Object) comment() string {
	s := o.section(".comment", elf.SHT_PROGBITS)
	if s == nil || s.FileSize > 1<<16 {
		return ""
	}
	b, err := o.sectionBytes(s)
	if err != nil {
		return ""
	}
	first := ""
	for line := range bytes.SplitSeq(b, []byte{0}) {
		text := string(line)
		if rustVersion.MatchString(text) {
			return text
		}
		if first == "" && len(text) < 200 {
			first = text
		}
	}
	return first
}

func (o *Object) holds(section, text string) bool {
	s := o.section(section, elf.SHT_PROGBITS)
	if s == nil {
		return false
	}
	b, err := o.readFile(s.Offset, min(s.FileSize, maxLanguageScan))
	return err == nil && bytes.Contains(b, []byte(text))
}
