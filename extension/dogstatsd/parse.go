package dogstatsd

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/initprof/initprof/extension/metrics"
)

// errIgnored marks what DogStatsD knows and this server leaves out: events and
// service checks.
var errIgnored = errors.New("events and service checks are not forwarded")

// maxTags bounds the tags of one metric.
const maxTags = 100

func kindOf(text string) (metrics.Type, bool) {
	switch text {
	case "c":
		return metrics.Count, true
	case "g":
		return metrics.Gauge, true
	case "s":
		return metrics.Set, true
	case "h", "ms":
		return metrics.Histogram, true
	case "d":
		return metrics.Distribution, true
	}
	return 0, false
}

// parse reads one metric, NAME:VALUE[:VALUE…]|TYPE[|@RATE][|#TAG,TAG][|T unix
// seconds][|c:container], and calls add for each value. (DogStatsD datagram
// format, protocol versions 1.0 to 1.3.)
func parse(text string, add func(metrics.Sample)) error {
	if strings.HasPrefix(text, "_e{") || strings.HasPrefix(text, "_sc|") {
		return errIgnored
	}
	head, rest, ok := strings.Cut(text, "|")
	if !ok {
		return errors.New("no type")
	}
	name, value, ok := strings.Cut(head, ":")
	if !ok || name == "" || value == "" {
		return errors.New("no name or no value")
	}
	kind, rest, more := strings.Cut(rest, "|")
	s := metrics.Sample{Name: name}
	if s.Type, ok = kindOf(kind); !ok {
		return fmt.Errorf("unknown type %q", kind)
	}
	for more {
		var field string
		field, rest, more = strings.Cut(rest, "|")
		switch {
		case field == "":
			return errors.New("an empty field")
		case field[0] == '@':
			rate, err := strconv.ParseFloat(field[1:], 64)
			if err != nil || !(rate > 0 && rate <= 1) {
				return fmt.Errorf("sample rate %q", field[1:])
			}
			s.Rate = rate
		case field[0] == '#':
			tags := strings.Split(field[1:], ",")
			if len(tags) > maxTags {
				return fmt.Errorf("%d tags, at most %d are taken", len(tags), maxTags)
			}
			s.Tags = tags[:0]
			for _, tag := range tags {
				if tag != "" {
					s.Tags = append(s.Tags, tag)
				}
			}
		case field[0] == 'T':
			sec, err := strconv.ParseInt(field[1:], 10, 64)
			if err != nil || sec <= 0 || sec > 1<<40 {
				return fmt.Errorf("timestamp %q", field[1:])
			}
			s.Time = time.Unix(sec, 0)
		} // c:, e: and card: (origin detection) mean nothing in one sandbox
	}
	if s.Type == metrics.Set {
		s.Member = value
		add(s)
		return nil
	}
	for packed := true; packed; {
		var one string
		one, value, packed = strings.Cut(value, ":")
		v, err := strconv.ParseFloat(one, 64)
		if err != nil || math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("value %q", one)
		}
		s.Value = v
		add(s)
	}
	return nil
}
