package ledger

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"

	"go.yaml.in/yaml/v3"

	"github.com/initprof/initprof/profiler/trace"
)

// Rules is an ordered table: the first rule of which all conditions hold names
// the category.
type Rules struct{ rules []rule }

// ruleText is a rule as it stands in YAML. A condition that is absent holds; of
// a list, one entry has to match.
type ruleText struct {
	Category  string   `yaml:"category"`
	Phase     []string `yaml:"phase"`     // globs
	State     []string `yaml:"state"`     // user, kernel, fault, runnable, waiting
	Syscall   []string `yaml:"syscall"`   // names
	File      []string `yaml:"file"`      // globs; ** stands for any number of folders
	Function  []string `yaml:"function"`  // regular expressions, of any frame
	Module    []string `yaml:"module"`    // globs, of any frame
	Span      []string `yaml:"span"`      // kinds of the innermost exact span
	Wait      []string `yaml:"wait"`      // kinds of what a wait is for
	Goroutine []string `yaml:"goroutine"` // regular expressions, of its first function
	Thread    []string `yaml:"thread"`    // regular expressions, of its name
}

type rule struct {
	ruleText
	index                       int
	phase, files, modules       []*regexp.Regexp
	functions, goroutines, name []*regexp.Regexp
}

//go:embed rules.yaml
var builtIn []byte

// BuiltIn returns the rules that initprof brings along.
var BuiltIn = sync.OnceValue(func() *Rules {
	r, err := ParseRules(nil)
	if err != nil {
		panic(err) // a test reads them
	}
	return r
})

// ParseRules returns the rules of a YAML document, if any, followed by the
// built-in ones.
func ParseRules(text []byte) (*Rules, error) {
	r := &Rules{}
	for _, part := range [][]byte{text, builtIn} {
		var list []ruleText
		decoder := yaml.NewDecoder(bytes.NewReader(part))
		decoder.KnownFields(true)
		if err := decoder.Decode(&list); err != nil && !errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("rules: %w", err)
		}
		for n, t := range list {
			compiled, err := t.compile()
			if err != nil {
				return nil, fmt.Errorf("rules: rule %d (%s): %w", n+1, t.Category, err)
			}
			compiled.index = len(r.rules)
			r.rules = append(r.rules, compiled)
		}
	}
	return r, nil
}

var states = []string{"user", "kernel", "fault", "runnable", "waiting"}

func (t ruleText) compile() (rule, error) {
	r := rule{ruleText: t}
	if t.Category == "" {
		return r, errors.New("has no category")
	}
	for _, s := range t.State {
		if !slices.Contains(states, s) {
			return r, fmt.Errorf("no state is named %q (they are %s)", s, strings.Join(states, ", "))
		}
	}
	for _, list := range []struct {
		from []string
		to   *[]*regexp.Regexp
		glob bool
	}{
		{t.Phase, &r.phase, true},
		{t.File, &r.files, true},
		{t.Module, &r.modules, true},
		{t.Function, &r.functions, false},
		{t.Goroutine, &r.goroutines, false},
		{t.Thread, &r.name, false},
	} {
		for _, text := range list.from {
			if list.glob {
				text = globPattern(text)
			}
			re, err := regexp.Compile(text)
			if err != nil {
				return r, err
			}
			*list.to = append(*list.to, re)
		}
	}
	return r, nil
}

// globPattern is a glob as a regular expression: * and ? stay within a folder,
// ** does not. A glob without a slash is matched against the last element.
func globPattern(glob string) string {
	var b strings.Builder
	b.WriteString("^")
	if !strings.Contains(glob, "/") {
		b.WriteString("(?:.*/)?")
	}
	for i := 0; i < len(glob); i++ {
		switch {
		case strings.HasPrefix(glob[i:], "**"):
			b.WriteString(".*")
			i++
		case glob[i] == '*':
			b.WriteString("[^/]*")
		case glob[i] == '?':
			b.WriteString("[^/]")
		default:
			b.WriteString(regexp.QuoteMeta(glob[i : i+1]))
		}
	}
	b.WriteString("$")
	return b.String()
}

// situation is what conditions are about.
type situation struct {
	phase     string
	state     trace.State
	syscall   string
	file      string
	stack     *stackMatch // nil: no stack
	span      *exactSpan
	wait      WaitKind
	goroutine string
	thread    string
}

// interval takes in what an interval off user mode is inside of.
func (s *situation) interval(tl *trace.Timeline, i *trace.Interval) {
	if i.Fault != nil {
		s.file = i.Fault.Region.Path
	}
	if c := i.Syscall; c != nil {
		s.syscall = tl.SyscallName(c.Syscall)
		if i.Fault == nil {
			s.file = c.Name
			if c.File != nil && c.File.Path != "" {
				s.file = c.File.Path
			} else if s.file == "" && tl.Writes(c) && (c.Args[0] == 1 || c.Args[0] == 2) {
				s.file = "[output]"
			}
		}
	}
}

// category returns that of the first rule that matches, Other if none does.
func (r *Rules) category(s *situation) string {
	for n := range r.rules {
		if r.rules[n].matches(s) {
			return r.rules[n].Category
		}
	}
	return Other
}

func (r *rule) matches(s *situation) bool {
	if len(r.State) > 0 && !slices.Contains(r.State, s.state.String()) ||
		len(r.Span) > 0 && (s.span == nil || !slices.Contains(r.Span, s.span.kind)) ||
		len(r.Wait) > 0 && !slices.Contains(r.Wait, string(s.wait)) ||
		len(r.Syscall) > 0 && !slices.Contains(r.Syscall, s.syscall) {
		return false
	}
	if len(r.functions) > 0 && (s.stack == nil || !s.stack.functions.has(r.index)) ||
		len(r.modules) > 0 && (s.stack == nil || !s.stack.modules.has(r.index)) {
		return false
	}
	return matchesAny(r.phase, s.phase) && matchesAny(r.files, s.file) && matchesAny(r.goroutines, s.goroutine) && matchesAny(r.name, s.thread)
}

// matchesAny reports whether one of the patterns matches, or there are none.
func matchesAny(patterns []*regexp.Regexp, text string) bool {
	if len(patterns) == 0 {
		return true
	}
	if text == "" {
		return false
	}
	return slices.ContainsFunc(patterns, func(p *regexp.Regexp) bool { return p.MatchString(text) })
}

// set is a set of rules.
type set []uint64

func newSet(n int) set { return make(set, (n+63)/64) }

func (s set) add(n int)      { s[n/64] |= 1 << (n % 64) }
func (s set) has(n int) bool { return s[n/64]&(1<<(n%64)) != 0 }
func (s set) join(o set) {
	for n := range o {
		s[n] |= o[n]
	}
}

// stackMatch tells which rules' functions and modules occur in a stack.
type stackMatch struct{ functions, modules set }

// matcher remembers what was matched: the same functions occur over and over.
type matcher struct {
	w         *walk
	functions map[string]set
	modules   map[string]set
	locations map[locationKey]*stackMatch
	empty     set
}

type locationKey struct {
	process *trace.Process
	program int // how many execs came before
	address uint64
	kind    uint8
}

func newMatcher(w *walk) *matcher {
	return &matcher{w: w, functions: map[string]set{}, modules: map[string]set{}, locations: map[locationKey]*stackMatch{}, empty: newSet(len(w.Rules.rules))}
}

// stack matches all frames of a stack.
func (m *matcher) stack(pid int, at int64, s trace.Stack) *stackMatch {
	if m.w.Names == nil || len(s.User) == 0 {
		return nil
	}
	out := &stackMatch{newSet(len(m.w.Rules.rules)), newSet(len(m.w.Rules.rules))}
	process := m.w.Timeline.Process(pid)
	program := 0
	if process != nil {
		for _, e := range process.Execs {
			if e.Time <= at {
				program++
			}
		}
	}
	for n, address := range s.User {
		key := locationKey{process, program, address, uint8(min(n, 1))}
		l := m.locations[key]
		if l == nil {
			l = m.location(pid, at, address, n > 0)
			m.locations[key] = l
		}
		out.functions.join(l.functions)
		out.modules.join(l.modules)
	}
	return out
}

func (m *matcher) location(pid int, at int64, address uint64, returns bool) *stackMatch {
	l := m.w.Names.Resolve(pid, at, address, false, returns)
	out := &stackMatch{newSet(len(m.w.Rules.rules)), m.empty}
	for _, f := range l.Frames {
		out.functions.join(m.lookup(m.functions, f.Function, func(r *rule) []*regexp.Regexp { return r.functions }))
	}
	if l.Module != "" {
		out.modules = m.lookup(m.modules, l.Module, func(r *rule) []*regexp.Regexp { return r.modules })
	}
	return out
}

func (m *matcher) lookup(known map[string]set, text string, patterns func(*rule) []*regexp.Regexp) set {
	if s := known[text]; s != nil {
		return s
	}
	s := newSet(len(m.w.Rules.rules))
	for n := range m.w.Rules.rules {
		r := &m.w.Rules.rules[n]
		if p := patterns(r); len(p) > 0 && matchesAny(p, text) {
			s.add(n)
		}
	}
	known[text] = s
	return s
}

// firstFunction is what a goroutine began with.
func (w *walk) firstFunction(g *trace.GoroutineLife) string {
	return strings.TrimPrefix(w.goroutineName(g), "goroutine ")
}

// Categories lists the categories that the rules can give, in their order.
func (r *Rules) Categories() []string {
	var all []string
	for _, x := range r.rules {
		if !slices.Contains(all, x.Category) {
			all = append(all, x.Category)
		}
	}
	return append(all, Measurement, Other)
}
