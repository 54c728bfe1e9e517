package phase

import (
	"cmp"
	"net/url"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/trace"
)

// Request is an HTTP request of the subject to the runtime API.
type Request struct {
	Method, Path string
	PID          int
	Start        int64 // entry of the system call that carried it
	End          int64 // exit of the one that read the first of the response; 0: unanswered
	Status       int   // 0: unknown
	Fallback     bool  // Start and End are the environment's receipt and answer

	matched bool
}

// call is the path without its leading version, which is a date.
func (q *Request) call() string {
	version, rest, ok := strings.Cut(strings.TrimPrefix(q.Path, "/"), "/")
	if !ok || len(version) != len("2020-01-01") || strings.Count(version, "-") != 2 {
		return q.Path
	}
	return "/" + rest
}

func (q *Request) isRegister() bool { return q.Method == "POST" && q.call() == "/extension/register" }

func (q *Request) isSubscribe() bool {
	return q.Method == "PUT" && (q.call() == "/telemetry" || q.call() == "/logs")
}

func (q *Request) isNext(runtime bool) bool {
	if runtime {
		return q.Method == "GET" && q.call() == "/runtime/invocation/next"
	}
	return q.Method == "GET" && q.call() == "/extension/event/next"
}

// requests lists what the subject's own system calls carried, completed by
// what only the environment saw.
func (c *computation) requests() {
	if c.Timeline != nil {
		c.Requests = carried(c.Timeline, c.Start)
	}
	for _, seen := range c.Received {
		if c.confirm(seen) {
			continue
		}
		c.Requests = append(c.Requests, Request{
			Method: seen.Method, Path: seen.Path, PID: c.PID, Start: seen.At, End: seen.Answered,
			Status: seen.Status, Fallback: true, matched: true,
		})
		if c.Traced {
			c.warn("%s %s was not seen in the subject's system calls: its times are the environment's", seen.Method, seen.Path)
		}
	}
	slices.SortStableFunc(c.Requests, func(x, y Request) int { return cmp.Compare(x.Start, y.Start) })
}

// confirm finds the request among those carried and notes its status.
func (c *computation) confirm(seen Received) bool {
	for n := range c.Requests {
		q := &c.Requests[n]
		if !q.matched && q.Method == seen.Method && q.Path == seen.Path && q.Start <= seen.At {
			q.matched, q.Status = true, seen.Status
			return true
		}
	}
	return false
}

// carried pairs each request with the first read of its connection that
// brought something before the next request on it. What became of a connection
// that was closed before is unanswered.
func carried(tl *trace.Timeline, from int64) []Request {
	reads := map[*trace.Descriptor][]*trace.Call{}
	var requests []Request
	for _, call := range tl.Calls {
		if call.File == nil || call.Begin < from {
			continue
		}
		if call.Request == nil {
			if tl.Reads(call) && call.Returned() && call.Return > 0 {
				reads[call.File] = append(reads[call.File], call)
			}
		} else {
			requests = append(requests, Request{Method: call.Request.Method, Path: pathOf(call.Request.Path), PID: call.PID, Start: call.Begin})
		}
	}
	// A read can begin before the request, in a thread of its own: what counts
	// is when it ends.
	for _, calls := range reads {
		slices.SortStableFunc(calls, func(x, y *trace.Call) int { return cmp.Compare(x.Until, y.Until) })
	}
	open := map[*trace.Descriptor]*Request{}
	n := 0
	for _, call := range tl.Calls {
		if call.File == nil || call.Begin < from || call.Request == nil {
			continue
		}
		q := &requests[n]
		n++
		if before := open[call.File]; before != nil && before.End > q.Start {
			before.End = 0
		}
		open[call.File] = q
		for _, read := range reads[call.File] {
			if read.Until > q.Start {
				q.End = read.Until
				break
			}
		}
	}
	return requests
}

// pathOf reduces a request target, which may be a whole URL, to its path.
func pathOf(target string) string {
	if strings.HasPrefix(target, "/") {
		return target
	}
	if u, err := url.Parse(target); err == nil && u.Path != "" {
		return u.Path
	}
	return target
}

// subscribe tells what became of the first telemetry subscription.
func (c *computation) subscribe() {
	c.SubscribeOutcome = SubscribeNone
	for _, q := range c.Requests {
		if !q.isSubscribe() || q.Start >= c.End {
			continue
		}
		switch {
		case q.End == 0 || q.End > c.End:
			c.SubscribeOutcome = SubscribePending
		case q.Status == 0:
			c.SubscribeOutcome = ""
		case q.Status < 300:
			c.SubscribeOutcome = SubscribeOK
		default:
			c.SubscribeOutcome = SubscribeRefused
		}
		return
	}
}
