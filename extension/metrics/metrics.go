// Package metrics aggregates samples until they are flushed. dogstatsd and the
// invocation's own metrics fill it, flush empties it into the intake's formats.
package metrics

import (
	"math"
	"sort"
	"strings"
	"sync"
	"time"
)

// Type is what a metric is.
type Type uint8

// The types of DogStatsD.
const (
	Count Type = iota
	Gauge
	Set
	Histogram
	Distribution
)

// Sample is one observation.
type Sample struct {
	Name   string
	Type   Type
	Value  float64
	Member string    // of a Set
	Rate   float64   // sample rate; 0 stands for 1
	Tags   []string  // "key:value"
	Time   time.Time // of a metric that carries its own; zero: now, to 10 s
}

// Limits of the buffer. What exceeds them is dropped and counted.
const (
	maxContexts = 20000    // different names, tags and times
	maxBytes    = 16 << 20 // of names, tags, bins and members together, estimated
	bucket      = 10       // seconds that are aggregated into one point

	minRate      = 1e-6
	contextBytes = 256 // what a context takes besides its name and tags
	binBytes     = 16  // a bin, and its share of the room that a slice grows into
	memberBytes  = 64
)

type context struct {
	name string
	kind Type
	tags string // sorted, joined by commas
	time int64  // seconds
}

type values struct {
	number  float64 // the sum of a Count, the last value of a Gauge
	sketch  sketch  // of a Histogram or a Distribution
	members map[string]struct{}
}

// Aggregator is safe for concurrent use. The zero value is ready.
type Aggregator struct {
	mu       sync.Mutex
	contexts map[context]*values
	bytes    int
	dropped  uint64
}

// Add takes a sample in. It reports false when the sample was dropped because
// the buffer is full.
func (a *Aggregator) Add(s Sample) bool {
	at := s.Time.Unix()
	if s.Time.IsZero() {
		at = time.Now().Unix() / bucket * bucket
	}
	key := context{s.Name, s.Type, joinTags(s.Tags), at}
	rate := 1.0
	if s.Rate > 0 && s.Rate < 1 {
		rate = max(s.Rate, minRate)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.contexts[key]
	if v == nil {
		size := contextBytes + len(key.name) + len(key.tags)
		if len(a.contexts) >= maxContexts || a.bytes+size > maxBytes {
			a.dropped++
			return false
		}
		if a.contexts == nil {
			a.contexts = map[context]*values{}
		}
		a.bytes += size
		v = &values{}
		a.contexts[key] = v
	}
	switch s.Type {
	case Count:
		v.number += s.Value / rate
	case Gauge:
		v.number = s.Value
	case Set:
		if _, known := v.members[s.Member]; known {
			return true
		}
		size := memberBytes + len(s.Member)
		if a.bytes+size > maxBytes {
			a.dropped++
			return false
		}
		if v.members == nil {
			v.members = map[string]struct{}{}
		}
		v.members[s.Member] = struct{}{}
		a.bytes += size
	default:
		if a.bytes+binBytes > maxBytes {
			a.dropped++
			return false
		}
		a.bytes += binBytes * v.sketch.add(s.Value, rate)
	}
	return true
}

func joinTags(tags []string) string {
	switch len(tags) {
	case 0:
		return ""
	case 1:
		return tags[0]
	}
	if !sort.StringsAreSorted(tags) {
		tags = append([]string(nil), tags...)
		sort.Strings(tags)
	}
	return strings.Join(tags, ",")
}

// Reset forgets everything.
func (a *Aggregator) Reset() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.contexts, a.bytes, a.dropped = nil, 0, 0
}

// Point is one aggregated value of a series.
type Point struct {
	Name     string
	Type     Type // Count or Gauge
	Tags     []string
	Time     int64 // seconds since the epoch
	Value    float64
	Interval int64 // seconds that a Count covers
}

// distribution is what a Distribution of one name, tags and time has seen.
type distribution struct {
	name   string
	tags   []string
	time   int64
	sketch *sketch
}

// Batch is what was aggregated until a flush, sorted by name, tags and time.
type Batch struct {
	Points        []Point
	Dropped       uint64 // samples that found no room
	distributions []distribution
}

// Empty reports whether there is nothing to send.
func (b *Batch) Empty() bool { return len(b.Points) == 0 && len(b.distributions) == 0 }

// Flush takes everything out.
func (a *Aggregator) Flush() *Batch {
	a.mu.Lock()
	contexts, dropped := a.contexts, a.dropped
	a.contexts, a.bytes, a.dropped = nil, 0, 0
	a.mu.Unlock()
	b := &Batch{Dropped: dropped}
	for key, v := range contexts {
		var tags []string
		if key.tags != "" {
			tags = strings.Split(key.tags, ",")
		}
		point := func(suffix string, kind Type, value float64) {
			if math.IsInf(value, 0) || math.IsNaN(value) { // a sum too large for any intake
				b.Dropped++
				return
			}
			p := Point{Name: key.name + suffix, Type: kind, Tags: tags, Time: key.time, Value: value}
			if kind == Count {
				p.Interval = bucket
			}
			b.Points = append(b.Points, p)
		}
		switch key.kind {
		case Count, Gauge:
			point("", key.kind, v.number)
		case Set:
			point("", Gauge, float64(len(v.members)))
		case Histogram:
			s := &v.sketch
			point(".avg", Gauge, s.sum/float64(s.count))
			point(".count", Count, float64(s.count))
			point(".median", Gauge, s.quantile(0.5))
			point(".95percentile", Gauge, s.quantile(0.95))
			point(".max", Gauge, s.max)
		case Distribution:
			b.distributions = append(b.distributions, distribution{key.name, tags, key.time, &v.sketch})
		}
	}
	sort.Slice(b.Points, func(i, j int) bool {
		p, q := &b.Points[i], &b.Points[j]
		return less(p.Name, q.Name, p.Tags, q.Tags, p.Time, q.Time)
	})
	sort.Slice(b.distributions, func(i, j int) bool {
		p, q := &b.distributions[i], &b.distributions[j]
		return less(p.name, q.name, p.tags, q.tags, p.time, q.time)
	})
	return b
}

func less(n1, n2 string, t1, t2 []string, at1, at2 int64) bool {
	if n1 != n2 {
		return n1 < n2
	}
	if a, b := strings.Join(t1, ","), strings.Join(t2, ","); a != b {
		return a < b
	}
	return at1 < at2
}
