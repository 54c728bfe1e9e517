package yaml

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// splitKey splits "key: rest". It is not ok when the text is no key.
func splitKey(text string) (key, rest string, ok bool, err error) {
	if text == "" {
		return "", "", false, nil
	}
	switch c := text[0]; c {
	case '"', '\'':
		key, n, err := quoted(text)
		if err != nil {
			return "", "", false, nil // it may end on a later line: a scalar
		}
		after := strings.TrimLeft(text[n:], " ")
		if strings.HasPrefix(after, ":") && (len(after) == 1 || after[1] == ' ' || after[1] == '\t') {
			return key, strings.TrimLeft(after[1:], " \t"), true, nil
		}
		return "", "", false, nil
	case '[', '{':
		return "", "", false, nil
	case '&', '*', '!', '%', '@', '`', '|', '>':
		if c == '|' || c == '>' {
			return "", "", false, nil
		}
		return "", "", false, fmt.Errorf("%q is not supported at the start of a value", string(c))
	case '?':
		if len(text) == 1 || text[1] == ' ' {
			return "", "", false, errors.New("complex keys are not supported")
		}
	}
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '#' && i > 0 && (text[i-1] == ' ' || text[i-1] == '\t'):
			return "", "", false, nil
		case text[i] == ':' && (i+1 == len(text) || text[i+1] == ' ' || text[i+1] == '\t'):
			key = strings.TrimRight(text[:i], " \t")
			if key == "<<" {
				return "", "", false, errors.New("merge keys are not supported")
			}
			return key, strings.TrimLeft(text[i+1:], " \t"), true, nil
		}
	}
	return "", "", false, nil
}

// inline reads a value that starts on the line of its key; text is what stands
// there. Flow collections and quoted scalars may go on over further lines, plain
// scalars over further lines that are indented more than indent.
func (p *parser) inline(l line, text string, indent int) (Value, error) {
	switch text[0] {
	case '|', '>':
		return p.blockScalar(l, text, indent)
	case '&', '*', '!', '%', '@', '`':
		return nil, p.errorf(l, "%q is not supported at the start of a value", text[:1])
	case '[', '{', '"', '\'':
		for {
			f := flow{text: text}
			v, err := f.value(0)
			if err == nil {
				if tail := strings.TrimSpace(f.text[f.pos:]); tail != "" &&
					(tail[0] != '#' || f.text[f.pos] != ' ' && f.text[f.pos] != '\t') {
					return nil, p.errorf(l, "unexpected %q behind a value", tail)
				}
				return v, nil
			}
			if !errors.Is(err, errUnfinished) || len(text) > maxBytes {
				return nil, p.errorf(l, "%v", err)
			}
			more, ok := p.peek()
			if !ok {
				return nil, p.errorf(l, "%v", err)
			}
			if text[0] == '"' || text[0] == '\'' || strings.ContainsAny(text, `"'#`) {
				return nil, p.errorf(l, "a quoted value over several lines is not supported")
			}
			if more.indent <= indent && strings.Trim(more.text, "]} \t") != "" || strings.HasPrefix(more.text, "#") {
				return nil, p.errorf(more, "unexpected line inside %s", text[:1])
			}
			p.next++
			text += " " + more.text
		}
	case ']', '}', ',':
		return nil, p.errorf(l, "unexpected %q", text[:1])
	}
	if _, _, isKey, _ := splitKey(text); isKey {
		return nil, p.errorf(l, "a mapping on the line of its key")
	}
	if isEntry(text) {
		return nil, p.errorf(l, "a sequence on the line of its key")
	}
	plain := uncomment(text)
	if plain != text && strings.TrimRight(text, " \t") != plain {
		return Scalar{Text: plain}, nil // a comment ends the scalar
	}
	for { // further lines of a plain scalar are folded
		more, ok := p.peek()
		if !ok || more.text == "" || more.indent <= indent || more.text[0] == '#' {
			return Scalar{Text: plain}, nil
		}
		if _, _, isKey, err := splitKey(more.text); isKey || err != nil {
			return nil, p.errorf(more, "a key inside a plain value")
		}
		p.next++
		plain += " " + uncomment(strings.TrimLeft(more.text, "\t"))
		if uncomment(more.text) != strings.TrimRight(more.text, " \t") {
			return Scalar{Text: plain}, nil
		}
	}
}

func uncomment(text string) string {
	for i := 1; i < len(text); i++ {
		if text[i] == '#' && (text[i-1] == ' ' || text[i-1] == '\t') {
			text = text[:i]
			break
		}
	}
	return strings.TrimRight(text, " \t")
}

// blockScalar reads "|" and ">" with their chomping indicators.
func (p *parser) blockScalar(l line, header string, indent int) (Value, error) {
	style, flags := header[0], uncomment(header[1:]+" ")
	if strings.HasPrefix(strings.TrimSpace(header[1:]), "#") {
		flags = ""
	}
	chomp := byte(0)
	if flags == "-" || flags == "+" {
		chomp = flags[0]
	} else if flags != "" {
		return nil, p.errorf(l, "block scalar header %q is not supported", header)
	}
	var lines []string
	inner := -1
	for p.next < len(p.lines) {
		more := p.lines[p.next]
		if more.text == "" {
			lines = append(lines, "")
			p.next++
			continue
		}
		if inner < 0 {
			if more.indent <= indent {
				break
			}
			inner = more.indent
		}
		if more.indent < inner {
			break
		}
		lines = append(lines, strings.Repeat(" ", more.indent-inner)+more.text)
		p.next++
	}
	end := len(lines)
	for end > 0 && lines[end-1] == "" {
		end--
	}
	var b strings.Builder
	for i, text := range lines[:end] {
		if i > 0 {
			// A folded line break between two lines of text is a space.
			if style == '>' && text != "" && lines[i-1] != "" && text[0] != ' ' && lines[i-1][0] != ' ' {
				b.WriteByte(' ')
			} else if style == '|' || text == "" || lines[i-1] != "" || text[0] == ' ' {
				b.WriteByte('\n')
			}
		}
		b.WriteString(text)
	}
	breaks := len(lines) - end // that follow the text
	if end > 0 {
		breaks++
	}
	if p.unended && p.next == len(p.lines) {
		breaks--
	}
	switch {
	case chomp == '-' || breaks < 0:
		breaks = 0
	case chomp == 0:
		if breaks = min(breaks, 1); end == 0 {
			breaks = 0
		}
	}
	b.WriteString(strings.Repeat("\n", breaks))
	return Scalar{Text: b.String(), Quoted: true}, nil
}

var errUnfinished = errors.New("the value does not end")

// flow reads flow style: [a, b], {a: b}, "quoted".
type flow struct {
	text string
	pos  int
}

func (f *flow) space() {
	for f.pos < len(f.text) && (f.text[f.pos] == ' ' || f.text[f.pos] == '\t') {
		f.pos++
	}
}

func (f *flow) value(depth int) (Value, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	f.space()
	if f.pos >= len(f.text) {
		return nil, errUnfinished
	}
	switch f.text[f.pos] {
	case '[':
		f.pos++
		seq := Sequence{}
		for {
			f.space()
			if f.pos >= len(f.text) {
				return nil, errUnfinished
			}
			if f.text[f.pos] == ']' {
				f.pos++
				return seq, nil
			}
			v, err := f.value(depth + 1)
			if err != nil {
				return nil, err
			}
			f.space()
			if f.pos < len(f.text) && f.text[f.pos] == ':' {
				return nil, errors.New("a pair in a flow sequence is not supported")
			}
			seq = append(seq, v)
			if err := f.comma(']'); err != nil {
				return nil, err
			}
		}
	case '{':
		f.pos++
		m := Mapping{}
		for {
			f.space()
			if f.pos >= len(f.text) {
				return nil, errUnfinished
			}
			if f.text[f.pos] == '}' {
				f.pos++
				return m, nil
			}
			k, err := f.value(depth + 1)
			if err != nil {
				return nil, err
			}
			key, ok := k.(Scalar)
			if !ok {
				return nil, errors.New("complex keys are not supported")
			}
			if _, twice := m[key.Text]; twice {
				return nil, fmt.Errorf("key %q appears twice", key.Text)
			}
			f.space()
			var v Value = Scalar{}
			if f.pos < len(f.text) && f.text[f.pos] == ':' {
				f.pos++
				f.space()
				if f.pos < len(f.text) && f.text[f.pos] != ',' && f.text[f.pos] != '}' {
					if v, err = f.value(depth + 1); err != nil {
						return nil, err
					}
				}
			}
			m[key.Text] = v
			if err := f.comma('}'); err != nil {
				return nil, err
			}
		}
	case '"', '\'':
		s, n, err := quoted(f.text[f.pos:])
		if err != nil {
			return nil, err
		}
		f.pos += n
		return Scalar{Text: s, Quoted: true}, nil
	case '&', '*', '!', '|', '>', '%', '@', '`', ']', '}', ',', '#', '?', ':':
		return nil, fmt.Errorf("%q is not supported inside a flow collection", f.text[f.pos:f.pos+1])
	}
	start := f.pos
	for f.pos < len(f.text) {
		c := f.text[f.pos]
		if c == ':' && f.pos+1 < len(f.text) && strings.IndexByte(",[]{}", f.text[f.pos+1]) >= 0 {
			// YAML 1.2 takes it for the end of a key, YAML 1.1 for a part of the scalar.
			return nil, errors.New("a colon without a space after it in a flow collection")
		}
		if strings.IndexByte(",[]{}", c) >= 0 ||
			c == ':' && (f.pos+1 == len(f.text) || strings.IndexByte(" \t", f.text[f.pos+1]) >= 0) {
			break
		}
		if c == '#' && (f.text[f.pos-1] == ' ' || f.text[f.pos-1] == '\t') {
			return nil, errors.New("a comment inside a flow collection is not supported")
		}
		f.pos++
	}
	plain := strings.TrimRight(f.text[start:f.pos], " \t")
	if plain == "-" {
		return nil, errors.New("a lone - inside a flow collection")
	}
	return Scalar{Text: plain}, nil
}

func (f *flow) comma(end byte) error {
	f.space()
	if f.pos >= len(f.text) {
		return errUnfinished
	}
	switch f.text[f.pos] {
	case ',':
		f.pos++
		f.space()
		if f.pos < len(f.text) && f.text[f.pos] == ',' {
			return errors.New("two commas in a flow collection")
		}
	case end:
	default:
		return fmt.Errorf("unexpected %q in a flow collection", f.text[f.pos:f.pos+1])
	}
	return nil
}

// quoted reads a quoted scalar at the start of text and returns its length.
func quoted(text string) (string, int, error) {
	var b strings.Builder
	quote := text[0]
	for i := 1; i < len(text); i++ {
		c := text[i]
		switch {
		case c == quote && quote == '\'' && i+1 < len(text) && text[i+1] == '\'':
			b.WriteByte('\'')
			i++
		case c == quote:
			return b.String(), i + 1, nil
		case c == '\\' && quote == '"':
			if i++; i >= len(text) {
				return "", 0, errUnfinished
			}
			n, err := escape(&b, text[i:])
			if err != nil {
				return "", 0, err
			}
			i += n
		default:
			b.WriteByte(c)
		}
	}
	return "", 0, errUnfinished
}

// escape writes what the escape sequence behind a backslash stands for and
// returns how many bytes follow its letter.
func escape(b *strings.Builder, text string) (int, error) {
	digits := 0
	switch c := text[0]; c {
	case '0':
		b.WriteByte(0)
	case 'a':
		b.WriteByte('\a')
	case 'b':
		b.WriteByte('\b')
	case 't', '\t':
		b.WriteByte('\t')
	case 'n':
		b.WriteByte('\n')
	case 'v':
		b.WriteByte('\v')
	case 'f':
		b.WriteByte('\f')
	case 'r':
		b.WriteByte('\r')
	case 'e':
		b.WriteByte(0x1b)
	case ' ', '"', '/', '\\':
		b.WriteByte(c)
	case 'N':
		b.WriteRune(0x85)
	case '_':
		b.WriteRune(0xa0)
	case 'L':
		b.WriteRune(0x2028)
	case 'P':
		b.WriteRune(0x2029)
	case 'x':
		digits = 2
	case 'u':
		digits = 4
	case 'U':
		digits = 8
	default:
		return 0, fmt.Errorf("unknown escape \\%c", c)
	}
	if digits == 0 {
		return 0, nil
	}
	if len(text) <= digits {
		return 0, errUnfinished
	}
	n, err := strconv.ParseUint(text[1:1+digits], 16, 32)
	if err != nil || !utf8.ValidRune(rune(n)) || n > utf8.MaxRune {
		return 0, fmt.Errorf("bad escape \\%s", text[:1+digits])
	}
	b.WriteRune(rune(n))
	return digits, nil
}
