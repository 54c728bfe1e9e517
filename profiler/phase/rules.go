package phase

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// UntilKind is what ends a window.
type UntilKind uint8

// The ends of a window.
const (
	UntilNext UntilKind = iota
	UntilExit
	UntilLog
	UntilSymbol
)

// Until is the end of a window; the zero value is the first /next.
type Until struct {
	Kind    UntilKind
	Symbol  string // UntilSymbol
	pattern *regexp.Regexp
}

// ParseUntil reads "next", "exit", "log=REGEXP" or "symbol=NAME".
func ParseUntil(s string) (Until, error) {
	kind, argument, has := strings.Cut(s, "=")
	switch {
	case (s == "" || s == "next"):
		return Until{}, nil
	case s == "exit":
		return Until{Kind: UntilExit}, nil
	case kind == "log" && argument != "":
		pattern, err := regexp.Compile(argument)
		if err != nil {
			return Until{}, fmt.Errorf("end %q: %w", s, err)
		}
		return Until{Kind: UntilLog, pattern: pattern}, nil
	case kind == "symbol" && has && argument != "":
		return Until{Kind: UntilSymbol, Symbol: argument}, nil
	}
	return Until{}, fmt.Errorf("end %q is none of next, exit, log=REGEXP, symbol=NAME", s)
}

// RuleKind is what a rule looks at.
type RuleKind string

// The kinds of rules.
const (
	RuleSymbol  RuleKind = "symbol"  // a function is reached
	RuleLog     RuleKind = "log"     // a line is printed
	RuleOpen    RuleKind = "open"    // a file is open
	RuleRequest RuleKind = "request" // a response is read
)

// Rule is a checkpoint that the user named.
type Rule struct {
	Name    string
	Kind    RuleKind
	Pattern *regexp.Regexp // of symbol and log
	Glob    string         // of open, after path.Match
	Method  string         // of request
	Path    string
}

// ParseRule reads NAME=symbol:REGEXP, NAME=log:REGEXP, NAME=open:GLOB or
// NAME=request:METHOD PATH.
func ParseRule(s string) (Rule, error) {
	name, what, ok := strings.Cut(s, "=")
	kind, argument, ok2 := strings.Cut(what, ":")
	if !ok || !ok2 || name == "" || argument == "" {
		return Rule{}, fmt.Errorf("rule %q is not NAME=KIND:ARGUMENT", s)
	}
	r := Rule{Name: name, Kind: RuleKind(kind)}
	var err error
	switch r.Kind {
	case RuleSymbol, RuleLog:
		r.Pattern, err = regexp.Compile(argument)
	case RuleOpen:
		r.Glob = argument
		_, err = path.Match(argument, "")
	case RuleRequest:
		var ok bool
		if r.Method, r.Path, ok = strings.Cut(argument, " "); !ok || r.Path == "" {
			err = fmt.Errorf("%q is not METHOD PATH", argument)
		}
	default:
		err = fmt.Errorf("kind %q is none of symbol, log, open, request", kind)
	}
	if err != nil {
		return Rule{}, fmt.Errorf("rule %q: %w", s, err)
	}
	return r, nil
}

// byRules lists the points that rules name.
func (c *computation) byRules() []point {
	var points []point
	for _, rule := range c.Rules {
		add := func(at int64, fallback bool) {
			points = append(points, point{rule.Name, ByRule, at, fallback})
		}
		switch rule.Kind {
		case RuleLog:
			for _, line := range c.Logs {
				if rule.Pattern.MatchString(line.Text) {
					add(c.printed(line))
				}
			}
		case RuleRequest:
			for _, q := range c.Requests {
				if q.End != 0 && q.Method == rule.Method && q.Path == rule.Path {
					add(q.End, q.Fallback)
				}
			}
		}
		if c.Timeline == nil {
			continue
		}
		switch rule.Kind {
		case RuleSymbol:
			for _, m := range c.Timeline.Marks {
				if m.Kind == trace.MarkSymbol && rule.Pattern.MatchString(m.Name) {
					add(m.Time, false)
				}
			}
		case RuleOpen:
			for _, call := range c.Timeline.Calls {
				if ok, _ := path.Match(rule.Glob, call.Name); ok && call.Begin >= c.Start && call.Returned() && !call.Failed() && c.Timeline.Opens(call) {
					add(call.Until, false)
				}
			}
		}
	}
	return points
}

// printed returns when a line was written: the entry of the call that wrote
// its last byte. Where that is not known, it is when the line was read.
func (c *computation) printed(line LogLine) (at int64, fallback bool) {
	if c.Timeline == nil || line.End == 0 {
		return line.Read, true
	}
	var sum int64
	for _, call := range c.Timeline.Calls {
		if call.Begin >= c.Start && int(call.Args[0]) == line.FD && call.Return > 0 && c.Timeline.Writes(call) {
			if sum += call.Return; sum >= line.End {
				return call.Begin, false
			}
		}
	}
	return line.Read, true
}
