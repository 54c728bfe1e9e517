package main

import (
	"encoding/json"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// The events are cut down from AWS's own examples to what is read.
var events = map[string]string{
	"HTTP API": `{"version":"2.0","routeKey":"POST /a","rawPath":"/a","rawQueryString":"q=1&q=%3Cb%3E",
		"headers":{"User-Agent":"x","content-type":"application/json","host":"h"},"cookies":["c=d","e=f"],
		"body":"eyJrIjoidiJ9","isBase64Encoded":true,
		"requestContext":{"domainName":"api.example","http":{"method":"POST","sourceIp":"192.0.2.1"}}}`,
	"REST API": `{"resource":"/b/{id}","httpMethod":"POST","path":"/b/7","isBase64Encoded":false,
		"multiValueHeaders":{"Content-Type":["application/x-www-form-urlencoded"],"Cookie":["a=1; b=2"]},
		"headers":{"Content-Type":"ignored","X-Single":"s"},"multiValueQueryStringParameters":{"x":["y z"]},
		"pathParameters":{"id":"7"},"body":"f=g%20h&f=%zz","requestContext":{"identity":{"sourceIp":"192.0.2.2"}}}`,
	"load balancer": `{"httpMethod":"GET","path":"/c","queryStringParameters":{"q":"%3Cb%3E"},"body":"",
		"headers":{"x-forwarded-for":"203.0.113.9, 192.0.2.3","host":"lb.example"},"requestContext":{"elb":{"targetGroupArn":"arn"}}}`,
	"function URL": `{"version":"2.0","rawPath":"/","rawQueryString":"","headers":{"content-type":"multipart/form-data; boundary=B"},
		"body":"--B\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\nv\r\n--B\r\nContent-Disposition: form-data; name=\"f\"; filename=\"a.php\"\r\n\r\nx\r\n--B--",
		"requestContext":{"http":{"method":"PUT","sourceIp":"192.0.2.4"}}}`,
}

func TestAddresses(t *testing.T) {
	type list = map[string][]string
	for name, want := range map[string]map[string]any{
		"HTTP API": {
			"server.request.method": "POST", "server.request.uri.raw": "/a?q=1&q=%3Cb%3E", "http.client_ip": "192.0.2.1",
			"server.request.headers.no_cookies": list{"user-agent": {"x"}, "content-type": {"application/json"}, "host": {"h"}},
			"server.request.cookies":            list{"c": {"d"}, "e": {"f"}},
			"server.request.query":              list{"q": {"1", "<b>"}},
			"server.request.body":               map[string]any{"k": "v"},
		},
		"REST API": {
			"server.request.method": "POST", "server.request.uri.raw": "/b/7?x=y+z", "http.client_ip": "192.0.2.2",
			"server.request.headers.no_cookies": list{"content-type": {"application/x-www-form-urlencoded"}, "x-single": {"s"}},
			"server.request.cookies":            list{"a": {"1"}, "b": {"2"}},
			"server.request.query":              list{"x": {"y z"}},
			"server.request.path_params":        map[string]any{"id": "7"},
			"server.request.body":               list{"f": {"g h", "%zz"}},
		},
		"load balancer": {
			"server.request.method": "GET", "server.request.uri.raw": "/c?q=%3Cb%3E", "http.client_ip": "192.0.2.3",
			"server.request.headers.no_cookies": list{"x-forwarded-for": {"203.0.113.9, 192.0.2.3"}, "host": {"lb.example"}},
			"server.request.query":              list{"q": {"<b>"}},
		},
		"function URL": {
			"server.request.method": "PUT", "server.request.uri.raw": "/", "http.client_ip": "192.0.2.4",
			"server.request.headers.no_cookies": list{"content-type": {"multipart/form-data; boundary=B"}},
			"server.request.body":               list{"n": {"v"}},
			"server.request.body.filenames":     []string{"a.php"},
		},
	} {
		r := parseRequest([]byte(events[name]))
		if r == nil {
			t.Errorf("%s: not recognised", name)
		} else if got := r.addresses(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s:\n got %#v\nwant %#v", name, got, want)
		}
	}
	for name, event := range map[string]string{
		"queue": `{"Records":[{"eventSource":"aws:sqs"}]}`, "text": "x", "nothing": "", "list": `[1]`,
		"web socket": `{"requestContext":{"messageDirection":"IN"}}`, "of other types": `{"requestContext":"x","httpMethod":7}`,
	} {
		if r := parseRequest([]byte(event)); r != nil {
			t.Errorf("%s: %+v", name, r)
		}
	}
}

func TestResponses(t *testing.T) {
	for body, want := range map[string]string{
		`{"statusCode":404,"body":"x"}`: "404", `{"statusCode":"403"}`: "403", `{"message":"no status"}`: "200", `"text"`: "200",
		`{"statusCode":204}` + strings.Repeat("\x00", 8) + "a streamed body": "204", `{"statusCode":-7}`: "200",
	} {
		if r := parseResponse([]byte(body)); r.status != want {
			t.Errorf("%s: %s, want %s", body, r.status, want)
		}
	}
	if r := parseResponse(nil); r != nil {
		t.Error("a function that failed has answered", r)
	}
}

// Hostile bodies cost bounded time and memory, and what stands before their
// excess is looked at all the same.
func TestHostileBodies(t *testing.T) {
	const size = 6 << 20
	for name, c := range map[string]struct{ contentType, body string }{
		"deep":            {"application/json", `{"a":"seen","b":` + strings.Repeat("[", size)},
		"deep and closed": {"application/json", `{"a":"seen","b":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + `,"c":1}`},
		"wide":            {"application/json", `{"a":"seen","b":[` + strings.Repeat("0,", size/2) + "0]}"},
		"many members":    {"application/json", `{"a":"seen"` + strings.Repeat(`,"b":1`, size/6) + "}"},
		"long":            {"application/json", `{"a":"seen","b":"` + strings.Repeat("x", size) + `"}`},
		"cut off":         {"application/json", `{"a":"seen","b":`},
		"form":            {"application/x-www-form-urlencoded", "a=seen" + strings.Repeat("&b", size/2)},
		"one long field":  {"application/x-www-form-urlencoded", "a=seen&b=" + strings.Repeat("%41", size/3)},
		"parts":           {"multipart/form-data; boundary=B", "--B\r\nContent-Disposition: form-data; name=a\r\n\r\nseen\r\n" + strings.Repeat("--B\r\nContent-Disposition: form-data; name=b\r\n\r\n\r\n", size/60)},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			body, _ := parseBody(c.body, false, c.contentType)
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 8*size {
				t.Errorf("%d bytes allocated for a body of %d", n, len(c.body))
			}
			text, err := json.Marshal(body)
			if err != nil || !strings.Contains(string(text), "seen") {
				t.Errorf("%v: the field before the excess is missing in %.100s", err, text)
			}
			if len(text) > 1<<20 {
				t.Errorf("%d bytes are handed to the rules", len(text))
			}
		})
	}
}

func FuzzRequest(f *testing.F) {
	for _, event := range events {
		f.Add([]byte(event))
	}
	f.Fuzz(func(_ *testing.T, event []byte) {
		if r := parseRequest(event); r != nil {
			r.addresses()
			r.tags()
			r.tagsOnEvent()
		}
		if r := parseResponse(event); r != nil {
			r.addresses()
		}
	})
}
