// Package imports tells which modules an interpreter loaded, and when, from the
// files that it opened: Python's and Node's loaders name each module's file in
// system calls, whatever the interpreter's build.
//
// It stands between trace, whose timelines it reads, and analysis.
//
// What the files do not tell: where a module's own code ends. A module is
// current from its first open until the next module is opened on the same
// thread. That includes compiling and running it up to its next import, and
// not the modules that it imports; what it does after one of them has ended
// counts for that one. Modules without a file of their own, such as Python's
// frozen and Node's built-in ones, are not seen.
package imports

import (
	"cmp"
	"path"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Module is a module that was loaded from a file.
type Module struct {
	Name   string // as an import names it, as far as its path tells: "json.decoder", "greeting/index.js"
	Path   string // that was opened first
	Thread *trace.Thread
	Start  int64 // entry of that open, CLOCK_MONOTONIC
	NS     int64 // until the next module was opened on the thread; 0: none was
	Opens  int   // of its files, successful ones
	Probes int   // calls that asked for a path, or opened another, since the module before: what finding it took
}

// Find lists the modules that were opened within [from, to) in the order of
// their first open.
func Find(tl *trace.Timeline, from, to int64) []Module {
	var calls []*trace.Call
	for _, c := range tl.Calls {
		if c.Begin >= from && c.Begin < to && (tl.Opens(c) || asks(tl, c)) {
			calls = append(calls, c)
		}
	}
	slices.SortStableFunc(calls, func(a, b *trace.Call) int { return cmp.Compare(a.Begin, b.Begin) })
	type key struct {
		process *trace.Process
		path    string // of the module without what it was compiled to
	}
	var modules []*Module
	known := map[key]*Module{}
	current := map[*trace.Thread]*Module{}
	probes := map[*trace.Thread]int{}
	for _, c := range calls {
		name, ok := moduleName(c.Name)
		if !ok || asks(tl, c) || !c.Returned() || c.Failed() {
			probes[c.Thread]++
			continue
		}
		// A module can be opened as source and as what it was compiled to.
		k := key{c.Thread.Process, path.Join(moduleDir(c.Name), name)}
		if m := known[k]; m != nil {
			m.Opens++
			continue
		}
		m := &Module{Name: name, Path: c.Name, Thread: c.Thread, Start: c.Begin, Opens: 1, Probes: probes[c.Thread]}
		known[k] = m
		modules = append(modules, m)
		if last := current[c.Thread]; last != nil {
			last.NS = m.Start - last.Start
		}
		current[c.Thread], probes[c.Thread] = m, 0
	}
	list := make([]Module, len(modules))
	for i, m := range modules {
		list[i] = *m
	}
	return list
}

// emptyPath is AT_EMPTY_PATH of linux/fcntl.h: the call is about a descriptor.
const emptyPath = 0x1000

// asks tells calls that ask for a path without opening it.
func asks(tl *trace.Timeline, c *trace.Call) bool {
	switch tl.SyscallName(c.Syscall) {
	case "stat", "lstat", "access", "readlink", "faccessat", "faccessat2", "readlinkat":
		return true
	case "newfstatat":
		return c.Args[3]&emptyPath == 0
	case "statx":
		return c.Args[2]&emptyPath == 0
	}
	return false
}

// moduleDir is the folder of a module's source.
func moduleDir(file string) string {
	dir := path.Dir(file)
	if path.Base(dir) == "__pycache__" {
		dir = path.Dir(dir)
	}
	return dir
}

// moduleName tells a module's file from others, and its name.
func moduleName(file string) (name string, ok bool) {
	base := path.Base(file)
	switch path.Ext(base) {
	case ".js", ".mjs", ".cjs", ".node":
		if i := strings.LastIndex(file, "/node_modules/"); i >= 0 {
			return file[i+len("/node_modules/"):], true
		}
		return base, true
	case ".py", ".pyc":
	case ".so":
		// Extension modules say for which interpreter they are; libraries do not.
		if !strings.Contains(base, ".cpython-") && !strings.Contains(base, ".abi3.") && !strings.Contains(base, ".pypy") &&
			path.Base(path.Dir(file)) != "lib-dynload" {
			return "", false
		}
	default:
		return "", false
	}
	stem, _, _ := strings.Cut(base, ".")
	if stem == "" {
		return "", false
	}
	parts := packageOf(moduleDir(file))
	if stem != "__init__" {
		parts = append(parts, stem)
	}
	if len(parts) == 0 { // the __init__ of a folder that nothing is known of
		parts = []string{path.Base(moduleDir(file))}
	}
	return strings.Join(parts, "."), true
}

// packageOf returns the packages that a folder is, below the folder in which
// Python looks for modules: site-packages and its like, the standard library,
// the function's own code and its layers. Elsewhere it is none, since a path
// does not tell where the packages begin.
func packageOf(dir string) []string {
	parts := strings.Split(dir, "/")
	for i, part := range slices.Backward(parts) {
		switch {
		case part == "site-packages" || part == "dist-packages" || part == "lib-dynload",
			strings.HasPrefix(part, "python3.") && i > 0 && strings.HasPrefix(parts[i-1], "lib"):
			return slices.Clone(parts[i+1:])
		}
	}
	for _, root := range []string{"/var/task", "/opt/python"} {
		if rest, ok := strings.CutPrefix(dir+"/", root+"/"); ok {
			return strings.FieldsFunc(rest, func(c rune) bool { return c == '/' })
		}
	}
	return nil
}
