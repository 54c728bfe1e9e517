package startup

import (
	"strconv"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Package is the initialisation of one package of Go: its variables and init
// functions, as GODEBUG=inittrace=1 counts it.
type Package struct {
	Span
	Path string // import path; "main"; empty if it could not be named
}

// The functions of Go's runtime that the account knows by name.
const (
	doInit       = "runtime.doInit1"
	gcEnable     = "runtime.gcenable"
	gcStart      = "runtime.gcStart"
	gcEnd        = "runtime.gcMarkTermination"
	mallocInit   = "runtime.mallocinit"
	gcInit       = "runtime.gcinit"
	schedInit    = "runtime.schedinit"
	loadGoRoots  = "crypto/x509.loadSystemRoots"
	x509Fallback = "golang.org/x/crypto/x509roots/fallback"
)

// golang finds the stages of the runtime and the packages' initialisation.
func (c *computation) golang() {
	type key struct {
		pid      int
		g        uint64
		function string
	}
	entered := map[key]*trace.Mark{}
	var current *trace.Mark // of doInit1: packages are initialised one after another
	end := func(at int64) {
		if current == nil {
			return
		}
		at = min(at, c.Phases.End)
		c.Packages = append(c.Packages, Package{
			Span: Span{Start: min(current.Time+current.Spent, at), End: at, Thread: c.Timeline.Thread(current.TID, current.Time)},
			Path: c.packageOf(current),
		})
		current = nil
	}
	for _, m := range c.Timeline.Marks {
		if !c.inside(m.Time) {
			continue
		}
		k := key{m.PID, m.ID, m.Name}
		switch {
		case m.Kind == trace.MarkMain:
			end(m.Time)
		case m.Kind == trace.MarkEnter && m.Name == doInit:
			if current != nil && current.ID == m.ID && current.Value == m.Value {
				continue // the stack had to grow: the same entry again
			}
			end(m.Time)
			current = m
		case m.Kind == trace.MarkEnter:
			if m.Name == gcEnable {
				end(m.Time)
			}
			entered[k] = m
		case m.Kind == trace.MarkLeave && entered[k] != nil:
			c.stage(entered[k], m.Time)
			delete(entered, k)
		}
	}
	end(c.Phases.End)
	byStart(c.Stages, func(s Stage) int64 { return s.Start })
}

func (c *computation) stage(m *trace.Mark, end int64) {
	s := Stage{Function: m.Name, Span: Span{Start: m.Time, End: min(end, c.Phases.End), Thread: c.Timeline.Thread(m.TID, m.Time)}}
	s.Minor, s.Major, _ = faults(s.Span)
	c.Stages = append(c.Stages, s)
}

// packageOf names the package of an initTask by its first init function.
func (c *computation) packageOf(m *trace.Mark) string {
	if m.Value == 0 {
		return ""
	}
	l := c.Resolver.Resolve(m.PID, m.Time, m.Value, false, false)
	return packagePath(l.Function())
}

// packagePath returns the import path in the name of a function, such as
// "gopkg.in/yaml.v3" of "gopkg.in/yaml%2ev3.init.0": the linker escapes dots
// behind the last slash.
func packagePath(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	dot := strings.IndexByte(function[slash:], '.')
	if dot < 0 {
		return ""
	}
	escaped := function[:slash+dot]
	if !strings.Contains(escaped, "%") {
		return escaped
	}
	var path strings.Builder
	for i := 0; i < len(escaped); i++ {
		if escaped[i] == '%' && i+2 < len(escaped) {
			if b, err := strconv.ParseUint(escaped[i+1:i+3], 16, 8); err == nil {
				path.WriteByte(byte(b))
				i += 2
				continue
			}
		}
		path.WriteByte(escaped[i])
	}
	return path.String()
}
