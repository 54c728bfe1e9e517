// Package yaml reads the part of YAML 1.2 that configuration files like
// datadog.yaml use: block and flow mappings and sequences, plain, quoted and
// block scalars, comments, one document. What it does not know (anchors, tags,
// complex keys, several documents) is an error that names the line; it never
// guesses. Only config imports it.
//
// The usual YAML libraries compile tables and regular expressions when their
// packages are initialised, in every cold start, whether there is a
// datadog.yaml or not. This one does nothing before Parse is called.
package yaml

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// A Value is a Scalar, a Mapping or a Sequence.
type Value any

// Scalar is a scalar's text. Quoted scalars are never null.
type Scalar struct {
	Text   string
	Quoted bool // or a block scalar
}

// Null reports whether the scalar is YAML's null.
func (s Scalar) Null() bool {
	if s.Quoted {
		return false
	}
	switch s.Text {
	case "", "~", "null", "Null", "NULL":
		return true
	}
	return false
}

// Mapping is a mapping with scalar keys.
type Mapping map[string]Value

// Sequence is a sequence.
type Sequence []Value

// Limits on a document.
const (
	maxDepth = 64
	maxBytes = 1 << 20
)

type line struct {
	number int
	indent int
	text   string // without indentation; comments are still there
}

type parser struct {
	lines []line
	next  int
	depth int

	unended bool // the last line has no end
}

// Parse reads a document. An empty one gives a nil Value.
func Parse(data []byte) (Value, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("yaml: document of %d bytes, at most %d are read", len(data), maxBytes)
	}
	if !utf8.Valid(data) {
		return nil, errors.New("yaml: not UTF-8")
	}
	p := &parser{unended: len(data) > 0 && data[len(data)-1] != '\n'}
	text := strings.TrimPrefix(string(data), "\ufeff")
	number := 0
	for len(text) > 0 {
		var l string
		l, text, _ = strings.Cut(text, "\n")
		l = strings.TrimSuffix(l, "\r")
		number++
		for _, c := range l {
			if c < ' ' && c != '\t' || c == 0x7f {
				return nil, fmt.Errorf("yaml: line %d: control character", number)
			}
		}
		trimmed := strings.TrimLeft(l, " ")
		p.lines = append(p.lines, line{number, len(l) - len(trimmed), trimmed})
	}
	p.skip()
	if l, ok := p.peek(); ok && isMarker(l, "---") {
		rest := strings.TrimSpace(l.text[3:])
		if rest != "" && rest[0] != '#' {
			return nil, p.errorf(l, "content behind ---")
		}
		p.next++
	}
	p.skip()
	l, ok := p.peek()
	if !ok || isMarker(l, "...") {
		return nil, nil
	}
	if _, _, isKey, err := splitKey(l.text); err != nil {
		return nil, p.errorf(l, "%v", err)
	} else if !isKey && !isEntry(l.text) && l.text[0] != '{' && l.text[0] != '[' {
		return nil, p.errorf(l, "neither a mapping nor a sequence")
	}
	v, err := p.block(l.indent)
	if err != nil {
		return nil, err
	}
	p.skip()
	if l, ok := p.peek(); ok {
		if isMarker(l, "...") {
			p.next++
			p.skip()
			if l, ok = p.peek(); !ok {
				return v, nil
			}
		}
		if isMarker(l, "---") {
			return nil, p.errorf(l, "more than one document")
		}
		return nil, p.errorf(l, "unexpected content")
	}
	return v, nil
}

func isMarker(l line, marker string) bool {
	return l.indent == 0 && strings.HasPrefix(l.text, marker) &&
		(len(l.text) == 3 || l.text[3] == ' ' || l.text[3] == '\t')
}

func (p *parser) errorf(l line, format string, args ...any) error {
	return fmt.Errorf("yaml: line %d: %s", l.number, fmt.Sprintf(format, args...))
}

// skip passes blank lines and comments.
func (p *parser) skip() {
	for p.next < len(p.lines) {
		text := strings.TrimLeft(p.lines[p.next].text, "\t")
		if text != "" && text[0] != '#' {
			return
		}
		p.next++
	}
}

func (p *parser) peek() (line, bool) {
	if p.next >= len(p.lines) {
		return line{}, false
	}
	return p.lines[p.next], true
}

// block reads the collection or scalar whose first line is the next one.
func (p *parser) block(indent int) (Value, error) {
	l, _ := p.peek()
	if p.depth++; p.depth > maxDepth {
		return nil, p.errorf(l, "nested deeper than %d", maxDepth)
	}
	defer func() { p.depth-- }()
	if strings.HasPrefix(l.text, "\t") {
		return nil, p.errorf(l, "tab in the indentation")
	}
	if isEntry(l.text) {
		return p.sequence(indent)
	}
	if _, _, ok, err := splitKey(l.text); err != nil {
		return nil, p.errorf(l, "%v", err)
	} else if ok {
		return p.mapping(indent)
	}
	p.next++
	return p.inline(l, l.text, indent-1)
}

func isEntry(text string) bool {
	return text == "-" || strings.HasPrefix(text, "- ") || strings.HasPrefix(text, "-\t")
}

func (p *parser) sequence(indent int) (Value, error) {
	seq := Sequence{}
	for {
		p.skip()
		l, ok := p.peek()
		if !ok || l.indent != indent || !isEntry(l.text) || isMarker(l, "---") {
			if ok && l.indent > indent {
				return nil, p.errorf(l, "unexpected indentation")
			}
			return seq, nil
		}
		rest := strings.TrimLeft(l.text[1:], " ")
		if strings.HasPrefix(rest, "\t") {
			return nil, p.errorf(l, "tab behind -")
		}
		if rest == "" || rest[0] == '#' {
			p.next++
			v, err := p.nested(indent, false)
			if err != nil {
				return nil, err
			}
			seq = append(seq, v)
			continue
		}
		// "- key: value" opens a collection whose indentation is that of key.
		inner := indent + len(l.text) - len(rest)
		if _, _, isKey, err := splitKey(rest); err != nil {
			return nil, p.errorf(l, "%v", err)
		} else if isKey || isEntry(rest) {
			p.lines[p.next] = line{l.number, inner, rest}
			v, err := p.block(inner)
			if err != nil {
				return nil, err
			}
			seq = append(seq, v)
			continue
		}
		p.next++
		v, err := p.inline(l, rest, indent)
		if err != nil {
			return nil, err
		}
		seq = append(seq, v)
	}
}

func (p *parser) mapping(indent int) (Value, error) {
	m := Mapping{}
	for {
		p.skip()
		l, ok := p.peek()
		if !ok || l.indent < indent || isMarker(l, "---") || isMarker(l, "...") {
			return m, nil
		}
		if l.indent > indent {
			return nil, p.errorf(l, "unexpected indentation")
		}
		if strings.HasPrefix(l.text, "\t") {
			return nil, p.errorf(l, "tab in the indentation")
		}
		if isEntry(l.text) {
			return nil, p.errorf(l, "a sequence's entry among a mapping's keys")
		}
		key, rest, isKey, err := splitKey(l.text)
		if err != nil {
			return nil, p.errorf(l, "%v", err)
		}
		if !isKey {
			return nil, p.errorf(l, "no \"key: value\"")
		}
		if _, twice := m[key]; twice {
			return nil, p.errorf(l, "key %q appears twice", key)
		}
		p.next++
		var v Value
		if rest == "" || rest[0] == '#' {
			v, err = p.nested(indent, true)
		} else {
			v, err = p.inline(l, rest, indent)
		}
		if err != nil {
			return nil, err
		}
		m[key] = v
	}
}

// nested reads what stands on the lines below a key or a dash. A sequence may
// have the indentation of its key.
func (p *parser) nested(indent int, underKey bool) (Value, error) {
	p.skip()
	l, ok := p.peek()
	if !ok || isMarker(l, "---") || isMarker(l, "...") {
		return Scalar{}, nil
	}
	if l.indent > indent || underKey && l.indent == indent && isEntry(l.text) {
		return p.block(l.indent)
	}
	return Scalar{}, nil
}
