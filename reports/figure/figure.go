// Package figure prints single figures — durations, counts, shares — the same
// way in every report meant for people, and makes text that a subject chose
// safe to print.
package figure

import (
	"math"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Duration prints nanoseconds with four significant digits: "18.42 ms".
func Duration(ns float64) string {
	size := math.Abs(ns)
	for _, u := range []struct {
		name string
		size float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if size >= 0.99995*u.size {
			digits := 3
			for limit := 9.9995; size/u.size >= limit && digits > 0; limit *= 10 {
				digits--
			}
			return minus(strconv.FormatFloat(ns/u.size, 'f', digits, 64)) + " " + u.name
		}
	}
	return minus(strconv.FormatFloat(ns, 'f', 0, 64)) + " ns"
}

// Milliseconds prints nanoseconds as milliseconds with a fixed number of
// decimals, for columns.
func Milliseconds(ns int64, decimals int) string {
	return minus(strconv.FormatFloat(float64(ns)/1e6, 'f', decimals, 64))
}

// Decimals is how many decimals a column of milliseconds needs whose largest
// value is given in nanoseconds: microseconds, until that would be noise.
func Decimals(largest int64) int {
	switch {
	case largest < 100e6:
		return 3
	case largest < 1000e6:
		return 2
	}
	return 1
}

// Count prints a mean count: with decimals only if it has some.
func Count(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return Group(int64(v))
	}
	if math.Abs(v) >= 1000 {
		return Group(int64(math.Round(v)))
	}
	if v != 0 && math.Abs(v) < 0.05 {
		return minus(strconv.FormatFloat(v, 'f', 2, 64))
	}
	return minus(strconv.FormatFloat(v, 'f', 1, 64))
}

// Group parts thousands by commas.
func Group(v int64) string {
	text, sign := strconv.FormatInt(v, 10), ""
	if v < 0 {
		text, sign = text[1:], "−"
	}
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return sign + text
}

// Bytes prints a size in binary units.
func Bytes(v float64) string {
	for _, u := range []struct {
		name string
		size float64
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if v >= u.size {
			return strconv.FormatFloat(v/u.size, 'f', 1, 64) + " " + u.name
		}
	}
	return Count(v) + " B"
}

// Percent prints a share with one decimal.
func Percent(part, whole float64) string {
	if whole == 0 {
		return "–"
	}
	return minus(strconv.FormatFloat(100*part/whole, 'f', 1, 64)) + " %"
}

// Signed puts a plus before a positive figure.
func Signed(v int64, text string) string {
	if v > 0 {
		return "+" + text
	}
	return text
}

// P prints a p-value.
func P(p float64) string {
	if p < 0.001 {
		return "p<0.001"
	}
	return "p=" + strconv.FormatFloat(p, 'f', 3, 64)
}

// Shift prints a change against a base: "+1.20 ms (+3.4 %)".
func Shift(shift, base int64, text string) string {
	text = Signed(shift, text)
	if base != 0 {
		text += " (" + Signed(shift, Percent(float64(shift), math.Abs(float64(base)))) + ")"
	}
	return text
}

// minus uses the sign that is as wide as a digit, and none for a zero.
func minus(text string) string {
	if rest, ok := strings.CutPrefix(text, "-"); ok {
		if strings.Trim(rest, "0.") == "" {
			return rest
		}
		return "−" + rest
	}
	return text
}

// Clean makes text of the subject printable on one line: control characters,
// and those that hide or reorder text, become visible.
func Clean(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\t':
			return ' '
		case r < 0x20:
			return 0x2400 + r // ␀ … ␟
		case r == 0x7f:
			return '␡'
		case unicode.Is(unicode.Cc, r) || unicode.Is(unicode.Cf, r) || r == '\u2028' || r == '\u2029':
			return utf8.RuneError
		}
		return r
	}, strings.ToValidUTF8(s, string(utf8.RuneError)))
}

// Width is how many cells of a terminal cleaned text takes.
func Width(s string) int {
	width := 0
	for _, r := range s {
		width += cells(r)
	}
	return width
}

func cells(r rune) int {
	switch {
	case unicode.Is(unicode.Mn, r):
		return 0
	case r >= 0x1100 && (r <= 0x115f || r >= 0x2e80 && r <= 0xa4cf || r >= 0xac00 && r <= 0xd7a3 ||
		r >= 0xf900 && r <= 0xfaff || r >= 0xff00 && r <= 0xff60 || r >= 0x1f300):
		return 2
	}
	return 1
}

// Shorten cuts text to a width. Paths lose their middle, so that both where
// they begin and what they name stay.
func Shorten(s string, width int) string {
	if Width(s) <= width {
		return s
	}
	if width <= 1 {
		return strings.Repeat("…", max(width, 0))
	}
	runes := []rune(s)
	tail := (width - 1) / 2
	if strings.Contains(s, "/") {
		tail = (width - 1) * 2 / 3
	}
	end, used := len(runes), 0
	for end > 0 && used+cells(runes[end-1]) <= tail {
		end--
		used += cells(runes[end])
	}
	start := 0
	for start < end && used+cells(runes[start])+1 <= width {
		used += cells(runes[start])
		start++
	}
	return string(runes[:start]) + "…" + string(runes[end:])
}
