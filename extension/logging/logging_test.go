package logging

import (
	"bytes"
	"testing"
)

func TestLevels(t *testing.T) {
	var out bytes.Buffer
	l := New(&out, Warn)
	l.Hide("0123456789abcdef")
	l.Debugf("debug")
	l.Infof("info")
	l.Warnf("lost %d\nmetrics of 0123456789abcdef", 3)
	l.Errorf("failed")
	for range 3 {
		l.WarnOnce("drops", "buffer full")
	}
	want := "DD_EXTENSION | WARN | lost 3 metrics of [hidden]\n" +
		"DD_EXTENSION | ERROR | failed\nDD_EXTENSION | WARN | buffer full\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}

func TestParseLevel(t *testing.T) {
	for text, want := range map[string]Level{"": Warn, "DEBUG": Debug, " info ": Info, "off": Off, "critical": Error, "trace": Debug} {
		if got, err := ParseLevel(text); got != want || err != nil {
			t.Errorf("%q: %v %v", text, got, err)
		}
	}
	if _, err := ParseLevel("loud"); err == nil {
		t.Error("an unknown level is accepted")
	}
}

func TestZeroValue(t *testing.T) {
	var l Logger
	if !l.Enabled(Warn) || l.Enabled(Info) || l.Enabled(Off) {
		t.Error("the zero value is not at level warn")
	}
}
