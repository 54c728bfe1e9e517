// Package json writes reports as JSON, after the schemas whose structs are in
// profiler/analysis. It computes nothing.
package json

import (
	"encoding/json"
	"io"
)

// Write writes an answer, indented; the same answer gives the same bytes.
func Write(w io.Writer, answer any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(answer)
}
