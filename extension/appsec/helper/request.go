package main

import (
	"bytes"
	"net/url"
	"strconv"
	"strings"
)

// httpRequest is the HTTP request that an event carries.
type httpRequest struct {
	method, domain, path, rawQuery, route, ip string

	headers, cookies, query map[string][]string
	pathParameters          map[string]any
	body                    any
	filenames               []string
}

// parseRequest reads the events of API Gateway's REST and HTTP APIs, of function
// URLs and of load balancers. Other events give nil.
func parseRequest(event []byte) *httpRequest {
	e, _ := decode(bytes.NewReader(event), eventLimits).(map[string]any)
	context := object(e["requestContext"])
	http := object(context["http"]) // payload format 2.0: HTTP APIs and function URLs
	r := &httpRequest{
		method: first(text(http["method"]), text(e["httpMethod"])),
		path:   first(text(e["rawPath"]), text(e["path"])),
		domain: text(context["domainName"]),
		ip:     first(text(http["sourceIp"]), text(object(context["identity"])["sourceIp"])),
	}
	if context == nil || r.method == "" {
		return nil
	}
	if resource := text(e["resource"]); resource != "" {
		r.route = r.method + " " + resource
	} else {
		r.route = text(e["routeKey"])
	}
	balancer := context["elb"] != nil
	r.headers = lists(e["multiValueHeaders"], e["headers"], strings.ToLower)
	if r.ip == "" { // of a load balancer, whose last entry it wrote itself
		forwarded := strings.Join(r.headers["x-forwarded-for"], ",")
		r.ip = strings.TrimSpace(forwarded[strings.LastIndexByte(forwarded, ',')+1:])
	}
	if r.domain == "" {
		r.domain = strings.Join(r.headers["host"], "")
	}
	r.cookies = map[string][]string{}
	lines := r.headers["cookie"]
	if list, ok := e["cookies"].([]any); ok {
		for _, c := range list {
			lines = append(lines, text(c))
		}
	}
	delete(r.headers, "cookie")
	for _, line := range lines {
		for cookie := range strings.SplitSeq(line, ";") {
			if name, value, ok := strings.Cut(strings.TrimSpace(cookie), "="); ok {
				r.cookies[name] = append(r.cookies[name], value)
			}
		}
	}
	r.rawQuery = text(e["rawQueryString"])
	if r.rawQuery != "" {
		r.query = form(r.rawQuery)
	} else {
		unescape := func(s string) string { return s }
		if balancer { // hands the query over as it came
			unescape = unescaped
		}
		r.query = lists(e["multiValueQueryStringParameters"], e["queryStringParameters"], unescape)
		for _, values := range r.query {
			for i := range values {
				values[i] = unescape(values[i])
			}
		}
		r.rawQuery = url.Values(r.query).Encode()
	}
	r.pathParameters = object(e["pathParameters"])
	encoded, _ := e["isBase64Encoded"].(bool)
	r.body, r.filenames = parseBody(text(e["body"]), encoded, strings.Join(r.headers["content-type"], ""))
	return r
}

// addresses are the names under which rules know the parts of a request.
func (r *httpRequest) addresses() map[string]any {
	raw := r.path
	if r.rawQuery != "" {
		raw += "?" + r.rawQuery
	}
	out := map[string]any{"server.request.method": r.method, "server.request.uri.raw": raw}
	if r.ip != "" {
		out["http.client_ip"] = r.ip
	}
	for name, value := range map[string]map[string][]string{
		"server.request.headers.no_cookies": r.headers, "server.request.cookies": r.cookies, "server.request.query": r.query,
	} {
		if len(value) > 0 {
			out[name] = value
		}
	}
	if len(r.pathParameters) > 0 {
		out["server.request.path_params"] = r.pathParameters
	}
	if r.body != nil {
		out["server.request.body"] = r.body
	}
	if len(r.filenames) > 0 {
		out["server.request.body.filenames"] = r.filenames
	}
	return out
}

// Headers that Datadog collects: always, and only of a request in which
// something was found. None of them carries credentials.
var (
	headersAlways = []string{
		"content-type", "user-agent", "accept", "x-amzn-trace-id", "cloudfront-viewer-ja3-fingerprint", "cf-ray",
		"x-cloud-trace-context", "x-appgw-trace-id", "x-sigsci-requestid", "x-sigsci-tags", "akamai-user-risk",
	}
	headersOnEvent = []string{
		"x-forwarded-for", "x-real-ip", "true-client-ip", "x-client-ip", "x-forwarded", "forwarded-for", "x-cluster-client-ip",
		"fastly-client-ip", "cf-connecting-ip", "cf-connecting-ipv6", "forwarded", "via", "content-length", "content-encoding",
		"content-language", "host", "accept-encoding", "accept-language",
	}
)

// maxTag bounds a tag's value, as Datadog's intake does.
const maxTag = 5000

func (r *httpRequest) headerTags(names []string) map[string]string {
	tags := map[string]string{}
	for _, name := range names {
		if values := r.headers[name]; len(values) > 0 {
			tags["http.request.headers."+name] = cut(strings.Join(values, ","), maxTag)
		}
	}
	return tags
}

func (r *httpRequest) tags() map[string]string {
	tags := r.headerTags(headersAlways)
	tags["http.method"] = cut(r.method, maxTag)
	tags["http.url"] = cut(r.domain+r.path, maxTag)
	return tags
}

func (r *httpRequest) tagsOnEvent() map[string]string {
	tags := r.headerTags(headersOnEvent)
	for name, value := range map[string]string{"http.route": r.route, "network.client.ip": r.ip} {
		if value != "" {
			tags[name] = cut(value, maxTag)
		}
	}
	return tags
}

// httpResponse is what a function answered to an HTTP request.
type httpResponse struct {
	status  string
	headers map[string][]string
}

// parseResponse reads a proxy integration's answer, or the prelude of a streamed
// one. An answer without a status counts as 200, as API Gateway and function
// URLs take it. nil where the function failed.
func parseResponse(body []byte) *httpResponse {
	if len(body) == 0 {
		return nil
	}
	e, _ := decode(bytes.NewReader(body), eventLimits).(map[string]any)
	r := &httpResponse{status: "200", headers: lists(e["multiValueHeaders"], e["headers"], strings.ToLower)}
	switch status := e["statusCode"].(type) {
	case float64:
		if status >= 100 && status < 1000 {
			r.status = strconv.Itoa(int(status))
		}
	case string:
		r.status = cut(status, 16)
	}
	delete(r.headers, "set-cookie")
	return r
}

func (r *httpResponse) addresses() map[string]any {
	out := map[string]any{"server.response.status": r.status}
	if len(r.headers) > 0 {
		out["server.response.headers.no_cookies"] = r.headers
	}
	return out
}

func object(v any) map[string]any { m, _ := v.(map[string]any); return m }
func text(v any) string           { s, _ := v.(string); return s }
func cut(s string, n int) string  { return s[:min(len(s), n)] }

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// lists merges a mapping of lists with one of single values, which counts where
// the other says nothing.
func lists(multiple, single any, name func(string) string) map[string][]string {
	out := map[string][]string{}
	for key, v := range object(multiple) {
		if list, ok := v.([]any); ok {
			for _, e := range list {
				out[name(key)] = append(out[name(key)], text(e))
			}
		}
	}
	for key, v := range object(single) {
		if key = name(key); out[key] == nil {
			out[key] = []string{text(v)}
		}
	}
	return out
}
