package boot

import (
	"testing"
	"time"

	"github.com/initprof/initprof/extension/config"
)

func TestSchedule(t *testing.T) {
	at := time.Unix(1700000000, 0)
	for mode, want := range map[string]struct{ first, frequent, rare, due bool }{
		"end":          {true, true, true, false},
		"periodically": {false, false, false, true},
		"adaptive":     {true, false, true, true},
	} {
		s := schedule{strategy: config.FlushStrategy{Mode: mode, Interval: 10 * time.Second}}
		if got := s.atEnd(at); got != want.first {
			t.Errorf("%s: the first invocation: %v", mode, got)
		}
		now := at
		for range adaptiveAfter {
			now = now.Add(time.Second)
			s.atEnd(now)
		}
		if got := s.atEnd(now); got != want.frequent {
			t.Errorf("%s: a frequent invocation: %v", mode, got)
		}
		if got := s.atEnd(now.Add(2 * adaptiveGap)); got != want.rare {
			t.Errorf("%s: an invocation after a while: %v", mode, got)
		}
		s.flushed(now)
		if s.due(now.Add(9*time.Second)) || s.due(now.Add(10*time.Second)) != want.due {
			t.Errorf("%s: due", mode)
		}
	}
}
