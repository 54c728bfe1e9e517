package cli

import (
	"fmt"
	"io"
	"strings"

	"github.com/initprof/initprof/profiler/doctor"
)

func writeHost(out io.Writer, h hostReport) {
	fmt.Fprintln(out, "host")
	row := func(name, format string, args ...any) {
		fmt.Fprintf(out, "  %-15s %s\n", name, fmt.Sprintf(format, args...))
	}
	if h.Tracing != "" {
		row("tracing", "unavailable: %s", h.Tracing)
	}
	for _, p := range h.Probes {
		if p.Reason != "" {
			row(p.Name, "unavailable: %s", p.Reason)
		} else {
			row(p.Name, "ok")
		}
	}
	if h.Environment != "" {
		row("environment", "unavailable: %s", h.Environment)
	} else {
		row("environment", "own namespaces %s, own network %s, cgroup v%d", yes(h.Namespaces), yes(h.Isolated), h.Cgroup)
	}
	for _, m := range h.Missing {
		row("", "missing: %s", m)
	}
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func writeProgram(out io.Writer, r *doctor.Report) {
	fmt.Fprintf(out, "program  %s\n", r.Path)
	row := func(name string, parts ...string) {
		fmt.Fprintf(out, "  %-15s %s\n", name, joined(parts...))
	}
	b := r.Binary
	language := "language unknown"
	if b.Language != "" {
		language = strings.TrimSpace(b.Language + " " + b.LanguageVersion)
	}
	row("built", language, b.Arch, b.Linkage, when(b.PIE, "position independent"), b.Libc, when(b.Packer != "", "packed by "+b.Packer))
	if b.Packer == "" {
		writeFacts(row, r)
	}

	fmt.Fprintln(out, "\nchanges")
	for _, c := range r.Changes {
		id := c.ID
		if id == "" {
			id = "–"
		}
		fmt.Fprintf(out, "  %-4s %-8s %s: %s\n", id, c.Verdict, c.Name, c.Reason)
		if c.Command != "" {
			fmt.Fprintf(out, "       %-8s %s\n", "", c.Command)
		}
	}
	if len(r.Packages) > 0 {
		var paths []string
		for _, p := range r.Packages {
			paths = append(paths, p.Path)
		}
		fmt.Fprintf(out, "\npackages  %d initialise themselves before main, in this order\n", len(paths))
		fmt.Fprintln(out, wrap(paths, "  ", 96))
	}
	fmt.Fprintln(out, "\nprobes")
	in := ""
	for _, p := range r.Probes {
		if p.In != in {
			in = p.In
			fmt.Fprintf(out, "  %s\n", in)
		}
		fmt.Fprintf(out, "    %-34s %s\n", p.Name, joined(p.Status, p.Reason))
	}
	for _, w := range r.Warnings {
		fmt.Fprintf(out, "\nwarning: %s", w)
	}
	if len(r.Warnings) > 0 {
		fmt.Fprintln(out)
	}
}

// writeFacts writes what a program tells unless it is packed.
func writeFacts(row func(name string, parts ...string), r *doctor.Report) {
	b, l, s := r.Binary, r.Loader, r.Stacks
	level := b.CPULevel
	if level == "" {
		level = "not stated in the file"
	}
	row("CPU level", level, b.CPUFeatures)
	id := "no build ID"
	if b.BuildID != "" {
		id = "build ID " + b.BuildID
	} else if b.GoBuildID != "" {
		id = "Go build ID " + b.GoBuildID
	}
	symbols, info := ".symtab", "no debug information"
	if b.Stripped {
		symbols = "stripped"
	}
	if b.DebugInfo {
		info = "debug information"
	}
	row("symbols", symbols, info, when(b.DebugLink != "", "debug link "+b.DebugLink), id)
	frames := "frame pointers " + s.FramePointers
	if s.LookedAt > 0 {
		frames += fmt.Sprintf(" (%d of %d functions)", s.WithFrame, s.LookedAt)
	}
	row("stacks", frames, ".eh_frame "+yes(s.CFI))
	row("relocations", fmt.Sprintf("%d relative, %d RELR, %d GLOB_DAT, %d JUMP_SLOT, %d IRELATIVE, %d TLS, %d COPY, %d symbolic",
		l.Relative, l.RELR, l.GlobDat, l.JumpSlot, l.IRelative, l.TLS, l.Copy, l.Symbolic), when(l.Other > 0, fmt.Sprintf("%d other", l.Other)))
	row("binding", when(l.BindNow, "at start (BIND_NOW)"), when(!l.BindNow && l.JumpSlot > 0, "at first use"), "RELRO "+l.RELRO,
		fmt.Sprintf("%d constructors", l.InitArray+l.Preinit))
	if len(l.Needed) > 0 {
		row("needs", l.Needed...)
	}
}

// when returns the text if something holds.
func when(holds bool, text string) string {
	if holds {
		return text
	}
	return ""
}

func joined(parts ...string) string {
	var said []string
	for _, p := range parts {
		if p != "" {
			said = append(said, p)
		}
	}
	return strings.Join(said, ", ")
}

// wrap sets words in lines of a width, each begun by the indent.
func wrap(words []string, indent string, width int) string {
	var b strings.Builder
	column := 0
	for i, w := range words {
		if i+1 < len(words) {
			w += ","
		}
		switch {
		case column == 0:
			b.WriteString(indent)
			column = len(indent)
		case column+1+len(w) > width:
			b.WriteString("\n" + indent)
			column = len(indent)
		default:
			b.WriteByte(' ')
			column++
		}
		b.WriteString(w)
		column += len(w)
	}
	return b.String()
}
