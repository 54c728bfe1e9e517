package main

import (
	"encoding/base64"
	"encoding/json"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strings"
)

// limits bound what is made of JSON, which may nest and repeat to no end.
type limits struct {
	values int // in all
	depth  int
	text   int // bytes of one string
}

// The library looks at no more than 256 entries of a container, 20 levels and
// 4 KB of a string. An event is not part of what an attacker writes, but its
// body is, and must stay whole to be read in turn.
var (
	eventLimits = limits{values: 20000, depth: 12, text: maxPayload}
	bodyLimits  = limits{values: 20000, depth: 20, text: 4096}
)

// maxFields bounds the fields of forms and the parts of multipart bodies.
const maxFields = 1000

// decode reads one JSON value as far as the limits let it, and what stands
// before a syntax error. nil if that is nothing.
func decode(r io.Reader, l limits) any {
	d := json.NewDecoder(r)
	v, _ := l.value(d, 0)
	return v
}

// value reads the next value; more is false where reading must stop.
func (l *limits) value(d *json.Decoder, depth int) (v any, more bool) {
	t, err := d.Token()
	if l.values--; err != nil || l.values < 0 {
		return nil, false
	}
	switch t := t.(type) {
	case json.Delim:
		if depth == l.depth {
			return nil, l.skip(d)
		}
		if t == '[' {
			list := []any{}
			for d.More() {
				e, more := l.value(d, depth+1)
				if !more {
					return list, false
				}
				list = append(list, e)
			}
			_, err := d.Token()
			return list, err == nil
		}
		object := map[string]any{}
		for d.More() {
			key, err := d.Token()
			name, ok := key.(string)
			if err != nil || !ok {
				return object, false
			}
			e, more := l.value(d, depth+1)
			object[cut(name, l.text)] = e
			if !more {
				return object, false
			}
		}
		_, err := d.Token()
		return object, err == nil
	case string:
		return cut(t, l.text), true
	}
	return t, true
}

// skip passes over the rest of a container.
func (l *limits) skip(d *json.Decoder) bool {
	for open := 1; open > 0; {
		t, err := d.Token()
		if l.values--; err != nil || l.values < 0 {
			return false
		}
		switch t {
		case json.Delim('['), json.Delim('{'):
			open++
		case json.Delim(']'), json.Delim('}'):
			open--
		}
	}
	return true
}

// parseBody gives rules the structure of a body: of JSON, forms and multipart
// forms. Text is looked at as it is; other types are left out.
func parseBody(body string, encoded bool, contentType string) (value any, filenames []string) {
	if encoded {
		raw, err := base64.StdEncoding.DecodeString(body)
		if err != nil {
			return nil, nil
		}
		body = string(raw)
	}
	if body == "" {
		return nil, nil
	}
	media, parameters, _ := mime.ParseMediaType(contentType)
	switch {
	case media == "application/x-www-form-urlencoded":
		return form(body), nil
	case media == "multipart/form-data":
		fields, filenames := parts(body, parameters["boundary"])
		if len(fields) == 0 {
			return nil, filenames
		}
		return fields, filenames
	case media == "" || media == "application/json" || strings.HasSuffix(media, "+json"):
		if v := decode(strings.NewReader(body), bodyLimits); v != nil {
			return v, nil
		}
	case !strings.HasPrefix(media, "text/"):
		return nil, nil
	}
	return cut(body, bodyLimits.text), nil
}

// form reads name=value&…, and takes what is not escaped right as it stands.
func form(s string) map[string][]string {
	out := map[string][]string{}
	for fields := 0; s != "" && fields < maxFields; fields++ {
		var field string
		field, s, _ = strings.Cut(s, "&")
		name, value, _ := strings.Cut(field, "=")
		name = unescaped(cut(name, bodyLimits.text))
		out[name] = append(out[name], unescaped(cut(value, bodyLimits.text)))
	}
	return out
}

func unescaped(s string) string {
	if u, err := url.QueryUnescape(s); err == nil {
		return u
	}
	return s
}

func parts(body, boundary string) (fields map[string][]string, filenames []string) {
	fields = map[string][]string{}
	reader := multipart.NewReader(strings.NewReader(body), boundary)
	for range maxFields {
		part, err := reader.NextRawPart()
		if err != nil {
			break
		}
		if name := part.FileName(); name != "" {
			filenames = append(filenames, cut(name, bodyLimits.text))
			continue
		}
		value, _ := io.ReadAll(io.LimitReader(part, int64(bodyLimits.text)))
		name := cut(part.FormName(), bodyLimits.text)
		fields[name] = append(fields[name], string(value))
	}
	return fields, filenames
}
