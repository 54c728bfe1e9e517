package coldstart

import (
	"testing"
	"time"
)

func TestReadyFinder(t *testing.T) {
	for line, want := range map[string]time.Duration{
		"DD_EXTENSION | INFO | extension ready in 59ms": 59 * time.Millisecond,
		"ready in 12.5 ms":                   12500 * time.Microsecond,
		"ready in a moment":                  0,
		"ready in 5 s":                       0,
		"ready in 99999999999999999999999ms": 0,
		"":                                   0,
	} {
		var f readyFinder
		f.see([]byte(line))
		if got := f.found(); got != want {
			t.Errorf("%q: %v, want %v", line, got, want)
		}
	}
}
