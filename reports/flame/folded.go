package flame

import (
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// Folded writes samples as folded stacks, the format of flamegraph.pl and its
// kin: one line a stack, root first, frames parted by ";", then a blank and
// the value. Equal stacks are summed and lines are sorted. Names lose what
// would break a line: ";" and control characters.
func Folded(w io.Writer, samples []Sample) error {
	lines := make(map[string]int64)
	var line strings.Builder
	for _, s := range samples {
		if s.Value <= 0 {
			continue
		}
		line.Reset()
		for _, f := range slices.Backward(s.Stack) {
			if line.Len() > 0 {
				line.WriteByte(';')
			}
			line.WriteString(foldedName(f))
		}
		if line.Len() == 0 {
			line.WriteString("all")
		}
		lines[line.String()] += s.Value
	}
	var out strings.Builder
	for _, key := range slices.Sorted(maps.Keys(lines)) {
		out.WriteString(key)
		out.WriteByte(' ')
		out.WriteString(strconv.FormatInt(lines[key], 10))
		out.WriteByte('\n')
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func foldedName(f Frame) string {
	name := strings.Map(func(r rune) rune {
		switch {
		case r == ';':
			return ':'
		case unicode.IsControl(r) || r == '\u2028' || r == '\u2029':
			return ' '
		}
		return r
	}, f.Name)
	if strings.TrimSpace(name) == "" {
		name = "?"
	}
	if f.Kind == KindKernel {
		name += "_[k]" // as perf's folded stacks mark it, so that other tools colour it
	}
	return name
}
