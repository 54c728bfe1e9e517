// Package logs turns telemetry into log entries that name the invocation which
// they belong to, and holds them until flush asks for them.
package logs

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/initprof/initprof/extension/logging"
	"github.com/initprof/initprof/extension/telemetry"
)

// Limits of the buffer and of one request. (Datadog API reference, "Send logs":
// 5 MB a request, 1,000 entries, 1 MB an entry.)
const (
	maxWaiting      = 8 << 20 // bytes of entries
	entryBytes      = 80      // what an entry takes besides its message
	maxMessage      = 900 << 10
	maxRequestBytes = 2 << 20 // of messages, which quoting makes longer
	maxRequestItems = 1000
)

type entry struct {
	message   string
	status    string
	requestID string
	time      int64 // milliseconds since the epoch
}

// size is what an entry takes of the buffer.
func (e *entry) size() int { return len(e.message) + entryBytes }

// Collector is safe for concurrent use. The zero value is not: Log must be set.
type Collector struct {
	Log *logging.Logger

	mu      sync.Mutex
	request string // the invocation under way, or the last one
	orphans int    // the first entries of waiting have no request yet
	waiting []entry
	bytes   int
	dropped uint64
}

// Add takes telemetry events in, in their order. Types that are no log are
// passed over.
func (c *Collector) Add(events []telemetry.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range events {
		e := &events[i]
		switch e.Type {
		case "function", "extension":
			c.add(entry{strings.TrimRight(e.Line(), "\r\n"), "info", c.request, e.Time.UnixMilli()})
		case "platform.start":
			var r struct {
				RequestID string `json:"requestId"`
				Version   string `json:"version"`
			}
			if json.Unmarshal(e.Record, &r) != nil {
				continue
			}
			c.request = r.RequestID
			for j := range c.waiting[:c.orphans] { // lines of INIT
				c.waiting[j].requestID = r.RequestID
			}
			c.orphans = 0
			c.add(entry{"START RequestId: " + r.RequestID + " Version: " + r.Version, "info", r.RequestID, e.Time.UnixMilli()})
		case "platform.runtimeDone":
			p, err := e.Platform()
			if err != nil {
				continue
			}
			if p.Status != "success" {
				c.add(entry{fmt.Sprintf("RequestId: %s Status: %s ErrorType: %s", p.RequestID, p.Status, p.ErrorType), "error", p.RequestID, e.Time.UnixMilli()})
			}
			c.add(entry{"END RequestId: " + p.RequestID, "info", p.RequestID, e.Time.UnixMilli()})
		case "platform.report":
			p, err := e.Platform()
			if err != nil {
				continue
			}
			m := fmt.Sprintf("REPORT RequestId: %s Duration: %.2f ms Billed Duration: %.0f ms Memory Size: %.0f MB Max Memory Used: %.0f MB",
				p.RequestID, p.Metrics.DurationMs, p.Metrics.BilledDurationMs, p.Metrics.MemorySizeMB, p.Metrics.MaxMemoryUsedMB)
			if p.Metrics.InitDurationMs > 0 {
				m += fmt.Sprintf(" Init Duration: %.2f ms", p.Metrics.InitDurationMs)
			}
			c.add(entry{m, "info", p.RequestID, e.Time.UnixMilli()})
		case "platform.logsDropped":
			c.Log.Warnf("logs: the environment dropped log lines: %s", e.Record)
		}
	}
}

func (c *Collector) add(e entry) {
	if len(e.message) > maxMessage {
		e.message = e.message[:maxMessage]
		c.Log.WarnOnce("log cut", "logs: lines of more than %d bytes are cut", maxMessage)
	}
	if c.bytes+e.size() > maxWaiting {
		c.dropped++
		c.Log.WarnOnce("logs full", "logs: lines are dropped: %d bytes wait for a flush", maxWaiting)
		return
	}
	c.bytes += e.size()
	if e.requestID == "" && c.orphans == len(c.waiting) {
		c.orphans++
	}
	c.waiting = append(c.waiting, e)
}

// Identity is what every entry says of the function.
type Identity struct {
	ARN, Service string
	Tags         string // "key:value,key:value"
}

// Take calls emit with the bodies of POST /api/v2/logs for everything that waits,
// and returns how many lines were dropped since the last call. Lines of INIT wait
// until their invocation is known, unless all is set. identity is called if there
// is anything.
func (c *Collector) Take(all bool, identity func() Identity, emit func(body []byte)) (dropped uint64) {
	c.mu.Lock()
	kept := 0
	if !all {
		kept = c.orphans
	}
	taken := slices.Clone(c.waiting[kept:])
	dropped, c.dropped = c.dropped, 0
	clear(c.waiting[kept:])
	c.waiting, c.orphans = c.waiting[:kept], kept
	for i := range taken {
		c.bytes -= taken[i].size()
	}
	c.mu.Unlock()
	if len(taken) == 0 {
		return dropped
	}
	id := identity()
	var body []byte
	items := 0
	for i := range taken {
		e := &taken[i]
		if items == maxRequestItems || items > 0 && len(body)+len(e.message) > maxRequestBytes {
			emit(append(body, ']'))
			body, items = nil, 0
		}
		if items == 0 {
			body = append(body, '[')
		} else {
			body = append(body, ',')
		}
		body = e.append(body, id)
		*e = entry{}
		items++
	}
	emit(append(body, ']'))
	return dropped
}

// Reset forgets everything that waits.
func (c *Collector) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.waiting, c.orphans, c.bytes, c.dropped = nil, 0, 0, 0
}

func (e *entry) append(b []byte, id Identity) []byte {
	quote := func(name, value string) {
		b = append(append(b, name...), ':')
		quoted, _ := json.Marshal(value) // of a string: never fails
		b = append(b, quoted...)
	}
	b = append(b, `{"message":{`...)
	quote(`"message"`, e.message)
	b = append(b, `,"lambda":{`...)
	quote(`"arn"`, id.ARN)
	quote(`,"request_id"`, e.requestID)
	b = append(b, `},"timestamp":`...)
	b = strconv.AppendInt(b, e.time, 10)
	quote(`,"status"`, e.status)
	b = append(b, '}')
	quote(`,"hostname"`, id.ARN)
	quote(`,"service"`, id.Service)
	quote(`,"ddtags"`, id.Tags)
	return append(b, `,"ddsource":"lambda"}`...)
}
