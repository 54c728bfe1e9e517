package load

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
)

// intake counts what has arrived, and misbehaves.
type intake struct {
	t      *testing.T
	answer atomic.Int64 // status; 0 answers nothing
	delay  time.Duration

	mu       sync.Mutex
	requests int
	counts   map[string]float64 // of series, by name
	spans    int
}

func (i *intake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	select {
	case <-time.After(i.delay):
	case <-r.Context().Done(): // the extension gave up: this request counts for nothing
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.requests++
	switch status := int(i.answer.Load()); status {
	case http.StatusAccepted:
		z, err := zstd.NewReader(nil)
		if err != nil {
			i.t.Error(err)
			return
		}
		defer z.Close()
		plain, err := z.DecodeAll(body, nil)
		if err != nil {
			i.t.Errorf("%s: %v", r.URL.Path, err)
		}
		switch r.URL.Path {
		case "/api/v2/series":
			i.series(plain)
		case "/api/v0.2/traces":
			i.spans += spans(i.t, plain)
		}
		w.WriteHeader(status)
	case 0:
		i.mu.Unlock()
		<-r.Context().Done()
		i.mu.Lock()
	default:
		w.WriteHeader(status)
	}
}

func (i *intake) series(body []byte) {
	var list struct {
		Series []struct {
			Metric string
			Points []struct{ Value float64 }
		}
	}
	if err := json.Unmarshal(body, &list); err != nil {
		i.t.Error(err)
	}
	for _, s := range list.Series {
		for _, p := range s.Points {
			i.counts[s.Metric] += p.Value
		}
	}
}

// spans counts those of an AgentPayload: tracer payloads are field 5, chunks 6 of
// them, spans 3 of those.
func spans(t *testing.T, body []byte) int {
	n := 0
	fields(t, body, 5, func(tracer []byte) {
		fields(t, tracer, 6, func(chunk []byte) {
			fields(t, chunk, 3, func([]byte) { n++ })
		})
	})
	return n
}

func fields(t *testing.T, b []byte, number protowire.Number, each func([]byte)) {
	for len(b) > 0 {
		num, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Error(protowire.ParseError(n))
			return
		}
		b = b[n:]
		if num == number && kind == protowire.BytesType {
			value, _ := protowire.ConsumeBytes(b)
			each(value)
		}
		if n = protowire.ConsumeFieldValue(num, kind, b); n < 0 {
			t.Error(protowire.ParseError(n))
			return
		}
		b = b[n:]
	}
}

// environment is Lambda's: one invocation that lasts until the end of the load.
type environment struct {
	mu       sync.Mutex
	nexts    int
	ended    chan struct{}
	once     sync.Once
	shutdown time.Time // when SHUTDOWN was sent
}

// end ends the invocation, so that SHUTDOWN is next.
func (e *environment) end() { e.once.Do(func() { close(e.ended) }) }

func (e *environment) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/2020-01-01/extension/register":
		w.Header().Set("Lambda-Extension-Identifier", "id")
		_, _ = io.WriteString(w, "{}")
	case "/2020-01-01/extension/event/next":
		e.mu.Lock()
		e.nexts++
		first := e.nexts == 1
		e.mu.Unlock()
		if first {
			_, _ = io.WriteString(w, `{"eventType":"INVOKE","requestId":"r1","invokedFunctionArn":"arn:aws:lambda:eu-west-1:1:function:f","deadlineMs":`+
				strconv.FormatInt(time.Now().Add(time.Hour).UnixMilli(), 10)+"}")
			return
		}
		<-e.ended
		e.mu.Lock()
		e.shutdown = time.Now()
		e.mu.Unlock()
		_, _ = io.WriteString(w, `{"eventType":"SHUTDOWN","shutdownReason":"spindown","deadlineMs":`+
			strconv.FormatInt(time.Now().Add(2*time.Second).UnixMilli(), 10)+"}")
	}
}

// number finds what stands before words in a log.
func number(log, words string) (n int) {
	before, _, ok := strings.Cut(log, words)
	if ok {
		n, _ = strconv.Atoi(before[strings.LastIndex(before, " ")+1:])
	}
	return n
}
