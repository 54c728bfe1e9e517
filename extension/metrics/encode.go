package metrics

import "strconv"

// AppendSeries appends the body of POST /api/v2/series; tags are added to those
// of each point. (Datadog API reference, "Submit metrics" v2: type 1 is a
// count, 3 a gauge.)
func AppendSeries(b []byte, points []Point, tags []string) []byte {
	b = append(b, `{"series":[`...)
	for i := range points {
		p := &points[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"metric":`...), p.Name)
		if p.Type == Count {
			b = append(b, `,"type":1,"interval":`...)
			b = strconv.AppendInt(b, p.Interval, 10)
		} else {
			b = append(b, `,"type":3`...)
		}
		b = append(b, `,"points":[{"timestamp":`...)
		b = strconv.AppendInt(b, p.Time, 10)
		b = append(b, `,"value":`...)
		b = strconv.AppendFloat(b, p.Value, 'g', -1, 64)
		b = append(b, `}],"tags":`...)
		b = append(appendTags(b, p.Tags, tags), '}')
	}
	return append(b, `]}`...)
}

// AppendDistributions appends the body of POST /api/v1/distribution_points.
func AppendDistributions(b []byte, points []DistributionPoint, tags []string) []byte {
	b = append(b, `{"series":[`...)
	for i := range points {
		p := &points[i]
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(append(b, `{"metric":`...), p.Name)
		b = append(b, `,"type":"distribution","points":[[`...)
		b = strconv.AppendInt(b, p.Time, 10)
		b = append(b, `,[`...)
		for j, v := range p.Values {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendFloat(b, v, 'g', -1, 64)
		}
		b = append(b, `]]],"tags":`...)
		b = append(appendTags(b, p.Tags, tags), '}')
	}
	return append(b, `]}`...)
}

func appendTags(b []byte, lists ...[]string) []byte {
	b = append(b, '[')
	first := true
	for _, list := range lists {
		for _, tag := range list {
			if !first {
				b = append(b, ',')
			}
			first = false
			b = appendString(b, tag)
		}
	}
	return append(b, ']')
}

// appendString appends s as a JSON string; bytes that are no UTF-8 become U+FFFD.
func appendString(b []byte, s string) []byte {
	b = append(b, '"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < 0x20:
			const hex = "0123456789abcdef"
			b = append(b, '\\', 'u', '0', '0', hex[r>>4], hex[r&15])
		default:
			b = append(b, string(r)...)
		}
	}
	return append(b, '"')
}
