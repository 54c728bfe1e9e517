// Package json writes the answers of analysis in their canonical form: the
// JSON of the schemas, indented, in a fixed order, with the same bytes for the
// same answer. It is the end of the data flow that other programs read.
package json

import (
	stdjson "encoding/json"
	"io"

	"github.com/initprof/initprof/profiler/analysis"
)

// Report writes a report in schema analysis.ReportSchema.
func Report(w io.Writer, r *analysis.Report) error {
	canonical := *r
	canonical.Schema = analysis.ReportSchema
	canonical.Subject.Command = notNil(r.Subject.Command)
	canonical.Runs = notNil(r.Runs)
	canonical.Warnings = notNil(r.Warnings)
	return write(w, &canonical)
}

// Bench writes a comparison in schema analysis.BenchSchema.
func Bench(w io.Writer, b *analysis.Bench) error {
	canonical := *b
	canonical.Schema = analysis.BenchSchema
	canonical.Variants = notNil(b.Variants)
	canonical.Warnings = notNil(b.Warnings)
	return write(w, &canonical)
}

// Diff writes a comparison of two runs in schema analysis.DiffSchema.
func Diff(w io.Writer, d *analysis.Diff) error {
	canonical := *d
	canonical.Schema = analysis.DiffSchema
	canonical.Before.Command, canonical.After.Command = notNil(d.Before.Command), notNil(d.After.Command)
	canonical.Warnings = notNil(d.Warnings)
	return write(w, &canonical)
}

func notNil[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}

func write(w io.Writer, v any) error {
	encoder := stdjson.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	encoder.SetIndent("", "  ")
	return encoder.Encode(v)
}
