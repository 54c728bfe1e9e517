package yaml

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	reference "go.yaml.in/yaml/v3"
)

// plain turns a Value into maps, slices and strings, nil for null.
func plain(v Value) any {
	switch v := v.(type) {
	case Mapping:
		m := map[string]any{}
		for k, e := range v {
			m[k] = plain(e)
		}
		return m
	case Sequence:
		s := []any{}
		for _, e := range v {
			s = append(s, plain(e))
		}
		return s
	case Scalar:
		if v.Null() {
			return nil
		}
		return v.Text
	}
	return nil
}

// node does the same with what the reference library read.
func node(n *reference.Node) (any, bool) {
	switch n.Kind {
	case reference.DocumentNode:
		return node(n.Content[0])
	case reference.MappingNode:
		m := map[string]any{}
		for i := 0; i < len(n.Content); i += 2 {
			v, ok := node(n.Content[i+1])
			if !ok {
				return nil, false
			}
			m[n.Content[i].Value] = v
		}
		return m, true
	case reference.SequenceNode:
		s := []any{}
		for _, e := range n.Content {
			v, ok := node(e)
			if !ok {
				return nil, false
			}
			s = append(s, v)
		}
		return s, true
	case reference.ScalarNode:
		if n.Tag == "!!null" {
			return nil, true
		}
		return n.Value, true
	}
	return nil, false
}

var documents = []string{
	"",
	"# only a comment\n",
	"site: datadoghq.eu\napi_key: \"abc # not a comment\" # a comment\n",
	"---\ntags:\n  - team:a\n  - 'it''s:b'\n",
	"tags:\n- a:b\n- c\nafter: 1\n",
	"logs_config:\n  processing_rules:\n    - type: exclude_at_match\n      name: x\n      pattern: \"^END\\\\s\"\n    - type: mask_sequences\n      name: y\n",
	"apm_config: {enabled: true, replace_tags: [{name: '*', pattern: a, repl: b}], empty: }\n",
	"proxy:\n  https: http://user:pw@proxy:3128\n  no_proxy: [a.example, 10.0.0.1]\n",
	"text: |\n  one\n    two\n\n  three\nfolded: >-\n  a\n  b\n\n  c\nkeep: |+\n  x\n\n",
	"a:\n  b:\n    c:\n  d: ~\ne: null\n",
	"plain: several words\n  on two lines\nnext: x\n",
	"- - a\n  - b\n- c: 1\n  d: 2\n-\n  e: 3\n",
	"esc: \"\\u00e9\\t\\x41\\n\"\n",
	"url: http://host:80/path#fragment\n",
	"flow: [a, b,\n  c]\n",
	"\"quoted key\": v\n'k2': w\n",
}

func TestParseAgreesWithReference(t *testing.T) {
	for _, doc := range documents {
		v, err := Parse([]byte(doc))
		if err != nil {
			t.Errorf("%q: %v", doc, err)
			continue
		}
		var n reference.Node
		if err := reference.Unmarshal([]byte(doc), &n); err != nil {
			t.Fatal(err)
		}
		var want any
		if n.Kind != 0 {
			want, _ = node(&n)
		}
		if diff := cmp.Diff(want, plain(v)); diff != "" {
			t.Errorf("%q:\n%s", doc, diff)
		}
	}
}

func TestWhatIsNotKnownIsAnError(t *testing.T) {
	for doc, want := range map[string]string{
		"a: &x 1\n":             "line 1",
		"a: 1\nb: *x\n":         "line 2",
		"a: !!str 1\n":          "not supported",
		"? a\n: b\n":            "complex keys",
		"a: 1\n---\nb: 2\n":     "more than one document",
		"a: 1\na: 2\n":          "appears twice",
		"a: 1\n  b: 2\n":        "line 2",
		"a:\n\t- b\n":           "tab",
		"a: [1, 2\n":            "does not end",
		"a: {b:}\n":             "colon",
		"<<: {a: 1}\n":          "merge",
		"a: b: c\n":             "mapping on the line",
		"a: \"\\q\"\n":          "unknown escape",
		"a: \x00\n":             "control",
		strings.Repeat("[", 99): "nested",
		"just words\nb: 1\n":    "line 1",
	} {
		if v, err := Parse([]byte(doc)); err == nil {
			t.Errorf("%q is read as %v", doc, v)
		} else if !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", doc, err, want)
		}
	}
}

// What is read must be what the reference reads; errors of either are fine.
func FuzzParse(f *testing.F) {
	for _, doc := range append(documents, "0: |\n 0", "0: |+\n ", "{0:} ") { // found by fuzzing
		f.Add(doc)
	}
	f.Fuzz(func(t *testing.T, doc string) {
		v, err := Parse([]byte(doc))
		if err != nil {
			return
		}
		var n reference.Node
		if err := reference.Unmarshal([]byte(doc), &n); err != nil || n.Kind == 0 {
			return
		}
		want, ok := node(&n)
		if !ok {
			return
		}
		if diff := cmp.Diff(want, plain(v)); diff != "" {
			t.Errorf("%q:\n%s", doc, diff)
		}
	})
}
