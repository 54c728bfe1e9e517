// Command helper runs Datadog's web application firewall for the extension: a
// process of its own, started only where AppSec is on, so that the extension
// stays static and small, and so that no hostile event can do it harm. Package
// appsec of the extension is its only caller.
//
// A request is a line of JSON and as many bytes as that line says: the event of
// an invocation, or the function's answer to it. It is answered by a line of
// JSON with the tags of the invocation's span. The very first line says that the
// rules are compiled, or why they are not.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"time"
)

// Limits of one process: a request, and the heap above which the collector
// works harder.
const (
	maxPayload  = 8 << 20 // Lambda's events have at most 6 MB
	memoryLimit = 96 << 20
)

// request is the line before a payload.
type request struct {
	Invocation uint64 `json:"invocation"`
	Kind       string `json:"kind"` // "event" or "answer"; an answer ends its invocation
	Size       int    `json:"size"`
}

// answer is a line on standard output.
type answer struct {
	Ready   bool               `json:"ready,omitempty"`
	Error   string             `json:"error,omitempty"`
	Meta    map[string]string  `json:"meta,omitempty"`
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

func main() {
	budget := flag.Duration("budget", 5*time.Millisecond, "time for the rules of one invocation")
	rules := flag.String("rules", "", "`file` of rules instead of the bundled ones")
	flag.Parse()
	debug.SetMemoryLimit(memoryLimit)
	if err := run(os.Stdin, os.Stdout, *rules, *budget); err != nil {
		fmt.Fprintln(os.Stderr, "initprof-appsec-helper:", err)
		os.Exit(1)
	}
}

// run answers requests until its input ends.
func run(in io.Reader, out io.Writer, rules string, budget time.Duration) error {
	lines := json.NewEncoder(out)
	lines.SetEscapeHTML(false)
	f, err := newFirewall(rules, budget)
	if err != nil {
		_ = lines.Encode(answer{Error: err.Error()})
		return err
	}
	defer f.close()
	if err := lines.Encode(answer{Ready: true}); err != nil {
		return err
	}
	from := bufio.NewReader(in)
	for {
		line, err := from.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 {
			return nil
		} else if err != nil {
			return err
		}
		var r request
		if err := json.Unmarshal(line, &r); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		if r.Size < 0 || r.Size > maxPayload {
			return fmt.Errorf("request: a payload of %d bytes", r.Size)
		}
		payload := make([]byte, r.Size)
		if _, err := io.ReadFull(from, payload); err != nil {
			return fmt.Errorf("request: %w", err)
		}
		var a answer
		switch r.Kind {
		case "event":
			a = f.event(r.Invocation, payload)
		case "answer":
			a = f.answer(r.Invocation, payload)
		default:
			return fmt.Errorf("request: unknown kind %q", r.Kind)
		}
		if err := lines.Encode(a); err != nil {
			return err
		}
	}
}
