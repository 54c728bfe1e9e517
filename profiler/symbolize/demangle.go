package symbolize

import (
	"strings"

	"github.com/ianlancetaylor/demangle"
)

// maxNamePower bounds a demangled name to 1<<12 bytes: a mangled name of a few
// hundred bytes can expand exponentially.
const maxNamePower = 12

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
	if rustMangled(symbol) {
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

// rustMangled tells Rust's names from C++'s. The legacy scheme is C++'s with a
// last component of "h" and 16 hexadecimal digits, possibly followed by a
// clone suffix of LLVM's.
func rustMangled(symbol string) bool {
	if strings.HasPrefix(symbol, "_R") {
		return true
	}
	if !strings.HasPrefix(symbol, "_ZN") {
		return false
	}
	base, _, _ := strings.Cut(symbol, ".llvm.")
	const tail = len("17h0123456789abcdefE")
	if len(base) <= tail {
		return false
	}
	hash := base[len(base)-tail:]
	if !strings.HasPrefix(hash, "17h") || hash[tail-1] != 'E' {
		return false
	}
	for _, c := range hash[3 : tail-1] {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}
