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
	Time   time.Time // zero: now
}

// Limits of the buffer. What exceeds them is dropped and counted.
const (
	maxContexts = 20000
	maxValues   = 500000 // of histograms, distributions and sets together
	bucket      = 10 * time.Second
)

type context struct {
	name string
	kind Type
	tags string // sorted, joined by commas
	time int64  // seconds, a multiple of the bucket
}

type values struct {
	sum     float64 // counts; the last value of a gauge
	weight  float64 // observations behind values, by their sample rates
	values  []float64
	members map[string]struct{}
}

// Aggregator is safe for concurrent use. The zero value is ready.
type Aggregator struct {
	mu       sync.Mutex
	contexts map[context]*values
	kept     int
	dropped  uint64
}

// Add takes a sample in. It reports false when the sample was dropped because
// the buffer is full.
func (a *Aggregator) Add(s Sample) bool {
	at := s.Time
	if at.IsZero() {
		at = time.Now()
	}
	sec := int64(bucket / time.Second)
	key := context{s.Name, s.Type, joinTags(s.Tags), at.Unix() / sec * sec}
	rate := s.Rate
	if rate <= 0 || rate > 1 {
		rate = 1
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	v := a.contexts[key]
	if v == nil {
		if len(a.contexts) >= maxContexts {
			a.dropped++
			return false
		}
		if a.contexts == nil {
			a.contexts = map[context]*values{}
		}
		v = &values{}
		a.contexts[key] = v
	}
	switch s.Type {
	case Count:
		v.sum += s.Value / rate
	case Gauge:
		v.sum = s.Value
	case Set:
		if _, known := v.members[s.Member]; known {
			return true
		}
		if a.kept >= maxValues {
			a.dropped++
			return false
		}
		if v.members == nil {
			v.members = map[string]struct{}{}
		}
		v.members[s.Member] = struct{}{}
		a.kept++
	default:
		if a.kept >= maxValues {
			a.dropped++
			return false
		}
		v.values = append(v.values, s.Value)
		v.sum += s.Value / rate
		v.weight += 1 / rate
		a.kept++
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

// Point is one aggregated value of a series.
type Point struct {
	Name     string
	Type     Type // Count or Gauge
	Tags     []string
	Time     int64 // seconds since the epoch
	Value    float64
	Interval int64 // seconds that a Count covers
}

// DistributionPoint holds the observations of one bucket.
type DistributionPoint struct {
	Name   string
	Tags   []string
	Time   int64
	Values []float64
}

// Batch is what was aggregated until a flush, sorted by name, tags and time.
type Batch struct {
	Points        []Point
	Distributions []DistributionPoint
	Dropped       uint64 // samples that found no room
}

// Empty reports whether there is nothing to send.
func (b *Batch) Empty() bool { return len(b.Points) == 0 && len(b.Distributions) == 0 }

// Flush takes everything out.
func (a *Aggregator) Flush() *Batch {
	a.mu.Lock()
	contexts, dropped := a.contexts, a.dropped
	a.contexts, a.kept, a.dropped = nil, 0, 0
	a.mu.Unlock()
	b := &Batch{Dropped: dropped}
	for key, v := range contexts {
		var tags []string
		if key.tags != "" {
			tags = strings.Split(key.tags, ",")
		}
		point := func(suffix string, kind Type, value float64) {
			p := Point{Name: key.name + suffix, Type: kind, Tags: tags, Time: key.time, Value: value}
			if kind == Count {
				p.Interval = int64(bucket / time.Second)
			}
			b.Points = append(b.Points, p)
		}
		switch key.kind {
		case Count, Gauge:
			point("", key.kind, v.sum)
		case Set:
			point("", Gauge, float64(len(v.members)))
		case Histogram:
			sort.Float64s(v.values)
			n := len(v.values)
			point(".avg", Gauge, v.sum/v.weight)
			point(".count", Count, v.weight)
			point(".median", Gauge, v.values[(n-1)/2])
			point(".95percentile", Gauge, v.values[int(math.Ceil(0.95*float64(n)))-1])
			point(".max", Gauge, v.values[n-1])
		case Distribution:
			b.Distributions = append(b.Distributions, DistributionPoint{key.name, tags, key.time, v.values})
		}
	}
	sort.Slice(b.Points, func(i, j int) bool {
		p, q := &b.Points[i], &b.Points[j]
		return less(p.Name, q.Name, p.Tags, q.Tags, p.Time, q.Time)
	})
	sort.Slice(b.Distributions, func(i, j int) bool {
		p, q := &b.Distributions[i], &b.Distributions[j]
		return less(p.Name, q.Name, p.Tags, q.Tags, p.Time, q.Time)
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
