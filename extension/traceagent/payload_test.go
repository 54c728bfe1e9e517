package traceagent

import (
	"bytes"
	"runtime"
	"strings"
	"testing"
)

// v04 is [[{service: "s", name: "n", trace_id: 1, parent_id: 0, error: -1,
// meta: {"_dd.origin": "lambda"}, metrics: {"_sampling_priority_v1": 2}, extra: [nil]}]].
var v04 = []byte("\x91\x91\x88\xa7service\xa1s\xa4name\xa1n\xa8trace_id\x01\xa9parent_id\x00\xa5error\xff" +
	"\xa4meta\x81\xaa_dd.origin\xa6lambda\xa7metrics\x81\xb5_sampling_priority_v1\x02\xa5extra\x91\xc0")

// v05 is [["", "s", "n"], [[[1, 2, 0, 5, 6, 0, 7, 8, 0, {1: 2}, {}, 0]]]].
var v05 = []byte("\x92\x93\xa0\xa1s\xa1n\x91\x91\x9c\x01\x02\x00\x05\x06\x00\x07\x08\x00\x81\x01\x02\x80\x00")

// encode gathers what Encode emits.
func encode(id Identity, payloads ...Payload) (bodies [][]byte, err error) {
	err = Encode(payloads, id, func(body []byte) { bodies = append(bodies, body) })
	return bodies, err
}

func TestEncode(t *testing.T) {
	bodies, err := encode(Identity{Env: "e", Tags: "a:b"}, Payload{Version: "v0.4", Client: Client{Language: "go"}, Body: v04}, Payload{Version: "v0.5", Body: v05})
	if err != nil || len(bodies) != 1 {
		t.Fatal(err, len(bodies))
	}
	for _, want := range []string{
		"\x12\x02go", "_dd.tags.function\x12\x03a:b", "\x0a\x01s\x12\x01n", "\x52\x14\x0a\x0a_dd.origin\x12\x06lambda",
		"\x08\x02\x12\x06lambda", "\x52\x06\x0a\x01s\x12\x01n", "_dd.compute_stats\x12\x011",
	} {
		if !bytes.Contains(bodies[0], []byte(want)) {
			t.Errorf("no %q in %q", want, bodies[0])
		}
	}
	bodies, err = encode(Identity{}, Payload{Version: "v0.4", Body: []byte("\xc1")}, Payload{Version: "v0.5", Body: v05})
	if err == nil || len(bodies) != 1 {
		t.Error("one bad payload must cost only itself", err)
	}
	bodies, _ = encode(Identity{}, Payload{Version: "v0.4", Body: v04, Client: Client{ComputedStats: true}})
	if bytes.Contains(bodies[0], []byte("compute_stats")) {
		t.Error("the intake is asked for statistics that the tracer has computed")
	}
}

// TestPayloadsAreCut: a buffer full of traces becomes payloads that the intake
// takes, and traces of one tracer share what is said of it.
func TestPayloadsAreCut(t *testing.T) {
	id := Identity{Tags: strings.Repeat("t", 100)}
	big := []byte("\x91\x91\x81\xa4name\xdb\x00\x10\x00\x00" + strings.Repeat("n", 1<<20))
	var payloads []Payload
	for range 7 {
		payloads = append(payloads, Payload{Version: "v0.4", Body: big})
	}
	bodies, err := encode(id, payloads...)
	if err != nil || len(bodies) != 4 {
		t.Errorf("%v, %d bodies", err, len(bodies))
	}
	for _, body := range bodies {
		if len(body) > maxPayload+1000 {
			t.Errorf("a body of %d bytes", len(body))
		}
	}
	payloads = nil
	for range 1000 {
		payloads = append(payloads, Payload{Version: "v0.4", Body: v04})
	}
	bodies, err = encode(id, payloads...)
	if err != nil || len(bodies) != 1 || bytes.Count(bodies[0], []byte("_dd.tags.function")) != 1 || bytes.Count(bodies[0], []byte("_dd.origin")) != 1000 {
		t.Errorf("%v, %d bodies", err, len(bodies))
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
	bodies, err := encode(id, Payload{Version: "v0.4", Body: spans})
	if err != nil || asked != 1 || len(bodies) != 1 {
		t.Fatal(err, asked, len(bodies))
	}
	for _, want := range []string{"\x08\x02", "\x52\x14\x0a\x0cappsec.event\x12\x04true", "_sampling_priority_v1\x11\x00\x00\x00\x00\x00\x00\x00\x40"} {
		if bytes.Count(bodies[0], []byte(want)) != 1 {
			t.Errorf("not once %q in %q", want, bodies[0])
		}
	}
}

func TestBombs(t *testing.T) {
	// Words of a megabyte, which a span of three bytes each names a thousand times.
	word := "\xdb\x00\x10\x00\x00" + strings.Repeat("w", 1<<20)
	meta := "\xde\x03\xe8" + strings.Repeat("\x00\x00", 1000)
	span := "\x9c\x00\x00\x00\x01\x01\x00\x01\x01\x00" + meta + "\x80\x00"
	small := "\x9c\x00\x00\x00\x01\x01\x00\x01\x01\x00\x80\x80\x00"
	for name, p := range map[string]Payload{
		"huge array":     {Version: "v0.4", Body: []byte("\xdd\xff\xff\xff\xff")},
		"huge string":    {Version: "v0.4", Body: []byte("\x91\x91\x81\xa4name\xdb\xff\xff\xff\xff")},
		"huge map":       {Version: "v0.4", Body: []byte("\x91\x91\xdf\xff\xff\xff\xff")},
		"deep":           {Version: "v0.4", Body: []byte("\x91\x91\x81\xa1x" + strings.Repeat("\x91", 100000))},
		"cut":            {Version: "v0.4", Body: v04[:40]},
		"no such word":   {Version: "v0.5", Body: []byte("\x92\x90\x91\x91\x9c\x09")},
		"huge span":      {Version: "v0.5", Body: []byte("\x92\x91" + word + "\x91\x91" + span)},
		"huge trace":     {Version: "v0.5", Body: []byte("\x92\x91" + word + "\x91\xdc\x00\x64" + strings.Repeat(small, 100))},
		"many of a size": {Version: "v0.5", Body: []byte("\x92\x91" + word + "\xdc\x00\x64" + strings.Repeat("\x91"+small, 100))},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		bodies, err := encode(Identity{}, p)
		runtime.ReadMemStats(&after)
		if err == nil || len(bodies) != 0 {
			t.Errorf("%s: %v, %d bodies", name, err, len(bodies))
		}
		if n := (after.TotalAlloc - before.TotalAlloc) >> 20; n > 400 {
			t.Errorf("%s: %d MB were allocated", name, n)
		}
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
		bodies, err := encode(Identity{}, Payload{Version: version, Body: body})
		if err != nil && len(bodies) != 0 {
			t.Error("an error, and yet bodies")
		}
		for _, b := range bodies {
			if len(b) > maxPayload+maxChunk {
				t.Errorf("%d bytes became %d", len(body), len(b))
			}
		}
	})
}
