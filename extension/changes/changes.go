// Package changes holds the cold-start changes as switches, so that a profiler
// can measure each alone and together. boot obeys them; docs/cold-start-changes.md
// says what each is and where it shows. Those that a build carries (h7, h8, h10,
// h12) are build flavours and no switches.
package changes

import (
	"fmt"
	"strings"
)

// Variable is the environment variable that holds the switches.
const Variable = "INITPROF_EXTENSION_CHANGES"

// Roots says where the trusted certificates of TLS come from.
type Roots uint8

// The variants of h1.
const (
	NativeEager Roots = iota // the system's files are read when a client is built
	Deferred                 // the system's files are read at the first handshake
	Embedded                 // certificates compiled in, parsed at the first handshake
)

// Set is which changes are on. The zero value is none of them.
type Set struct {
	H1   Roots
	H2   bool // subscribe right after register, overlapped with the services
	H3   bool // WAF built in the background, from the first next on
	H4   bool // register overlapped with configuration and the shared client
	H15  bool // threads from the memory size
	H16  bool // no garbage collection until the first next
	H18  bool // subscribe concurrently with the first next; takes h2's place
	Tags bool // tags made once
}

// Default is what measures best on release → next without making the first
// invocation slower; docs/cold-start-changes.md has the figures.
func Default() Set { return Set{H1: Embedded, H3: true, Tags: true} }

// Parse reads a list like "h1,h2,tags", "h1=embedded", "all" or "none". Empty
// stands for Default. h5, say, is an error, and so is what only a build can do.
func Parse(text string) (Set, error) {
	switch strings.TrimSpace(text) {
	case "":
		return Default(), nil
	case "none":
		return Set{}, nil
	case "all":
		return Set{H1: Embedded, H2: true, H3: true, H4: true, H15: true, H16: true, Tags: true}, nil
	}
	var s Set
	seen := map[string]bool{}
	for _, word := range strings.Split(text, ",") {
		name, value, hasValue := strings.Cut(strings.ToLower(strings.TrimSpace(word)), "=")
		if seen[name] {
			return Set{}, fmt.Errorf("%s: %s stands there twice", Variable, name)
		}
		seen[name] = true
		if hasValue && name != "h1" {
			return Set{}, fmt.Errorf("%s: %s takes no value", Variable, name)
		}
		switch name {
		case "h1":
			switch {
			case !hasValue || value == "embedded":
				s.H1 = Embedded
			case value == "deferred":
				s.H1 = Deferred
			default:
				return Set{}, fmt.Errorf("%s: h1=%s is neither embedded nor deferred", Variable, value)
			}
		case "h2":
			s.H2 = true
		case "h3":
			s.H3 = true
		case "h4":
			s.H4 = true
		case "h15":
			s.H15 = true
		case "h16":
			s.H16 = true
		case "h18":
			s.H18 = true
		case "tags":
			s.Tags = true
		case "h7", "h8", "h10", "h12":
			return Set{}, fmt.Errorf("%s: %s is a build flavour (make variants), not a switch", Variable, name)
		default:
			return Set{}, fmt.Errorf("%s: unknown change %q (none, all, h1[=embedded|deferred], h2, h3, h4, h15, h16, h18, tags)", Variable, name)
		}
	}
	if s.H2 && s.H18 {
		return Set{}, fmt.Errorf("%s: h18 takes the place of h2", Variable)
	}
	return s, nil
}
