package traceagent

import (
	"bytes"
	"strings"
	"testing"
)

// v04 is [[{service: "s", name: "n", trace_id: 1, parent_id: 0, error: -1,
// meta: {"_dd.origin": "lambda"}, metrics: {"_sampling_priority_v1": 2}, extra: [nil]}]].
var v04 = []byte("\x91\x91\x88\xa7service\xa1s\xa4name\xa1n\xa8trace_id\x01\xa9parent_id\x00\xa5error\xff" +
	"\xa4meta\x81\xaa_dd.origin\xa6lambda\xa7metrics\x81\xb5_sampling_priority_v1\x02\xa5extra\x91\xc0")

// v05 is [["", "s", "n"], [[[1, 2, 0, 5, 6, 0, 7, 8, 0, {1: 2}, {}, 0]]]].
var v05 = []byte("\x92\x93\xa0\xa1s\xa1n\x91\x91\x9c\x01\x02\x00\x05\x06\x00\x07\x08\x00\x81\x01\x02\x80\x00")

func TestEncode(t *testing.T) {
	body, err := Encode([]Payload{{Version: "v0.4", Language: "go", Body: v04}, {Version: "v0.5", Body: v05}}, Identity{Env: "e", Tags: "a:b"})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"\x12\x02go", "_dd.tags.function\x12\x03a:b", "\x0a\x01s\x12\x01n", "\x52\x14\x0a\x0a_dd.origin\x12\x06lambda", "\x08\x02\x12\x06lambda", "\x52\x06\x0a\x01s\x12\x01n"} {
		if !bytes.Contains(body, []byte(want)) {
			t.Errorf("no %q in %q", want, body)
		}
	}
	body, err = Encode([]Payload{{Version: "v0.4", Body: []byte("\xc1")}, {Version: "v0.5", Body: v05}}, Identity{})
	if err == nil || body == nil {
		t.Error("one bad payload must cost only itself", err)
	}
}

// Only the aws.lambda span of a request gets what is known of it besides, and
// with it the trace its priority.
func TestMore(t *testing.T) {
	spans := []byte("\x91\x93" + // one trace of three spans
		"\x82\xa4name\xaaaws.lambda\xa4meta\x81\xaarequest_id\xa2r1" +
		"\x82\xa4meta\x81\xaarequest_id\xa2r1\xa4name\xa5other" +
		"\x82\xa4name\xaaaws.lambda\xa9parent_id\x01")
	asked := 0
	id := Identity{More: func(request string) (map[string]string, map[string]float64) {
		if asked++; request != "r1" {
			t.Errorf("asked about %q", request)
		}
		return map[string]string{"appsec.event": "true"}, map[string]float64{"_sampling_priority_v1": 2}
	}}
	body, err := Encode([]Payload{{Version: "v0.4", Body: spans}}, id)
	if err != nil || asked != 1 {
		t.Fatal(err, asked)
	}
	for _, want := range []string{"\x08\x02", "\x52\x14\x0a\x0cappsec.event\x12\x04true", "_sampling_priority_v1\x11\x00\x00\x00\x00\x00\x00\x00\x40"} {
		if bytes.Count(body, []byte(want)) != 1 {
			t.Errorf("not once %q in %q", want, body)
		}
	}
}

func TestBombs(t *testing.T) {
	for name, body := range map[string]string{
		"huge array":  "\xdd\xff\xff\xff\xff",
		"huge string": "\x91\x91\x81\xa4name\xdb\xff\xff\xff\xff",
		"huge map":    "\x91\x91\xdf\xff\xff\xff\xff",
		"deep":        "\x91\x91\x81\xa1x" + strings.Repeat("\x91", 100000),
		"cut":         string(v04[:40]),
	} {
		if _, err := Encode([]Payload{{Version: "v0.4", Body: []byte(body)}}, Identity{}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if _, err := Encode([]Payload{{Version: "v0.5", Body: []byte("\x92\x90\x91\x91\x9c\x09")}}, Identity{}); err == nil {
		t.Error("a word outside of the dictionary is accepted")
	}
}

func FuzzEncode(f *testing.F) {
	f.Add(v04, false)
	f.Add(v05, true)
	f.Fuzz(func(t *testing.T, body []byte, five bool) {
		version := "v0.4"
		if five {
			version = "v0.5"
		}
		out, err := Encode([]Payload{{Version: version, Body: body}}, Identity{})
		if err == nil && out == nil {
			t.Error("neither a body nor an error")
		}
		if !five && len(out) > 64+8*len(body) {
			t.Errorf("%d bytes became %d", len(body), len(out))
		}
	})
}
