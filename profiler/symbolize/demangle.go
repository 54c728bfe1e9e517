package symbolize

import (
	"strconv"
	"strings"
	"unicode"

	"github.com/ianlancetaylor/demangle"
)

// maxNamePower bounds a demangled name to 1<<12 bytes: a mangled name of a few
// hundred bytes can expand exponentially.
const maxNamePower = 12

// pltSuffix marks a stub of the procedure linkage table.
const pltSuffix = "@plt"

// maxMangled is the length from which on a symbol is not demangled.
const maxMangled = 16 << 10

// Demangle returns the readable form of a C++ or Rust symbol, and any other
// name unchanged. Parameters are left out, and the template arguments of C++,
// as in pprof's default; the generic arguments of Rust are kept, since the
// name of an instance such as drop_in_place::<T> says nothing without them.
// The hash of a Rust symbol and the suffix of a compiler's clone (".cold",
// ".part.0", ".llvm.123") are dropped from mangled names.
func Demangle(symbol string) string {
	if len(symbol) > maxMangled || !mangled(symbol) {
		return symbol
	}
	if name, ok := strings.CutSuffix(symbol, pltSuffix); ok {
		return Demangle(name) + pltSuffix
	}
	if name, ok := rustLegacy(symbol); ok {
		return name
	}
	if strings.HasPrefix(symbol, "_R") {
		if name, err := demangle.ToString(symbol, demangle.NoParams, demangle.MaxLength(maxNamePower)); err == nil && name != "" {
			return name
		}
		return symbol
	}
	name, err := demangle.ToString(symbol, demangle.NoParams, demangle.NoEnclosingParams,
		demangle.NoTemplateParams, demangle.MaxLength(maxNamePower))
	if err != nil || name == "" {
		return symbol
	}
	return name
}

func mangled(symbol string) bool {
	return strings.HasPrefix(symbol, "_Z") || strings.HasPrefix(symbol, "_R") ||
		strings.HasPrefix(symbol, "___Z")
}

// rustMangled tells Rust's names from C++'s.
func rustMangled(symbol string) bool {
	_, legacy := legacyPath(symbol)
	return legacy || strings.HasPrefix(symbol, "_R")
}

// legacyPath returns the path of a name in Rust's legacy scheme, which is C++'s
// with a last component of "h" and 16 hexadecimal digits, possibly followed by a
// clone suffix of LLVM's.
func legacyPath(symbol string) (path string, ok bool) {
	path, ok = strings.CutPrefix(symbol, "_ZN")
	path, _, _ = strings.Cut(path, ".llvm.")
	const tail = len("17h0123456789abcdefE")
	if !ok || len(path) <= tail {
		return "", false
	}
	path, hash := path[:len(path)-tail], path[len(path)-tail:]
	if !strings.HasPrefix(hash, "17h") || hash[tail-1] != 'E' {
		return "", false
	}
	for _, c := range hash[3 : tail-1] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", false
		}
	}
	return path, true
}

// rustEscapes are the characters that the legacy scheme spells between dollars;
// others are u and the code point in hexadecimal.
var rustEscapes = map[string]string{"SP": "@", "BP": "*", "RF": "&", "LT": "<", "GT": ">", "LP": "(", "RP": ")", "C": ","}

// rustLegacy demangles a name of Rust's legacy scheme: components with their
// lengths before them. The general demangler takes their underscores for
// escapes ("__rust_begin_short_backtrace").
func rustLegacy(symbol string) (name string, ok bool) {
	path, ok := legacyPath(symbol)
	if !ok {
		return "", false
	}
	var b strings.Builder
	for path != "" {
		digits := 0
		for digits < len(path) && digits < 5 && path[digits] >= '0' && path[digits] <= '9' {
			digits++
		}
		n, err := strconv.Atoi(path[:digits])
		if err != nil || n > len(path)-digits {
			return "", false
		}
		if b.Len() > 0 {
			b.WriteString("::")
		}
		unescape(&b, path[digits:digits+n])
		path = path[digits+n:]
	}
	return b.String(), b.Len() > 0
}

func unescape(b *strings.Builder, text string) {
	if strings.HasPrefix(text, "_$") {
		text = text[1:] // a component must not begin with a dollar
	}
	for text != "" {
		if rest, ok := strings.CutPrefix(text, ".."); ok {
			b.WriteString("::")
			text = rest
			continue
		}
		if text[0] == '$' {
			if code, rest, ok := strings.Cut(text[1:], "$"); ok {
				if c := unescaped(code); c != "" {
					b.WriteString(c)
					text = rest
					continue
				}
			}
			b.WriteString(text)
			return
		}
		end := strings.IndexAny(text[1:], "$.") + 1
		if end == 0 {
			end = len(text)
		}
		b.WriteString(text[:end])
		text = text[end:]
	}
}

func unescaped(code string) string {
	if c := rustEscapes[code]; c != "" {
		return c
	}
	if digits, ok := strings.CutPrefix(code, "u"); ok {
		if c, err := strconv.ParseUint(digits, 16, 21); err == nil && unicode.IsPrint(rune(c)) {
			return string(rune(c))
		}
	}
	return ""
}
