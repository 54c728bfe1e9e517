package boot

import (
	"sync"

	"github.com/initprof/initprof/extension/tags"
	"github.com/initprof/initprof/extension/usage"
)

// maxInvocations bounds the invocations that are remembered: those whose end
// nobody has told, and ends of invocations that nobody had begun.
const maxInvocations = 16

// invocation is what is known of a request between its beginning and its end.
type invocation struct {
	done   chan struct{}   // closed when the runtime is done with it
	before *usage.Snapshot // nil if it was not read
	ms     float64         // how long the runtime took; 0 is unknown
}

// invocations tracks which invocations the runtime has finished. The beginning
// and the end of one are told by different connections, in either order.
type invocations struct {
	mu         sync.Mutex
	subscribed bool
	arn        string
	runtime    string
	request    string
	known      map[string]*invocation
}

func (i *invocations) setSubscribed(yes bool) {
	i.mu.Lock()
	i.subscribed = yes
	i.mu.Unlock()
}

// begin returns a channel that is closed when the runtime is done with the
// request, or nil where nobody would tell.
func (i *invocations) begin(requestID, arn string, before *usage.Snapshot) <-chan struct{} {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.arn, i.request = arn, requestID
	if !i.subscribed {
		return nil
	}
	v := i.invocation(requestID)
	v.before = before
	return v.done
}

func (i *invocations) invocation(requestID string) *invocation {
	v := i.known[requestID]
	if v == nil {
		if i.known == nil {
			i.known = map[string]*invocation{}
		}
		if len(i.known) >= maxInvocations {
			for id := range i.known {
				if id != i.request { // which is being waited for
					delete(i.known, id)
				}
			}
		}
		v = &invocation{done: make(chan struct{})}
		i.known[requestID] = v
	}
	return v
}

// finished notes that the runtime is done with a request, after ms milliseconds;
// 0 is unknown. It returns what was read when the request began, nil the second
// time.
func (i *invocations) finished(requestID string, ms float64) *usage.Snapshot {
	i.mu.Lock()
	defer i.mu.Unlock()
	v := i.invocation(requestID)
	select {
	case <-v.done:
	default:
		close(v.done)
	}
	before := v.before
	v.before, v.ms = nil, ms
	return before
}

// runtimeDuration is what finished was told.
func (i *invocations) runtimeDuration(requestID string) (ms float64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if v := i.known[requestID]; v != nil {
		ms = v.ms
	}
	return ms
}

func (i *invocations) requestID() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.request
}

// initStarted notes what platform.initStart says of the runtime.
func (i *invocations) initStarted(runtime string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.runtime = runtime
}

func (i *invocations) function() tags.Function {
	i.mu.Lock()
	defer i.mu.Unlock()
	return tags.Function{ARN: i.arn, Runtime: i.runtime}
}
