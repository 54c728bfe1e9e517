package changes

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]Set{
		"": Default(), "none": {}, "h1": {H1: Embedded}, "h1=deferred": {H1: Deferred}, "h1=embedded,h4": {H1: Embedded, H4: true},
		"H2, tags": {H2: true, Tags: true}, "h18": {H18: true},
		"all": {H1: Embedded, H2: true, H3: true, H4: true, H15: true, H16: true, Tags: true},
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("%q: %+v %v", text, got, err)
		}
	}
	for text, want := range map[string]string{
		"h5": `unknown change "h5"`, "h7": "build flavour", "h2,h18": "takes the place", "h1=x": "neither",
		"h2,h2": "twice", "h2=1": "no value", "h2,": "unknown", "none,h2": "unknown",
	} {
		if _, err := Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q in it", text, err, want)
		}
	}
}
