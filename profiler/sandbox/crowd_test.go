package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestCrowd runs the ten extensions that Lambda allows at once, all subscribed,
// through invokes and a shutdown.
func TestCrowd(t *testing.T) {
	const invokes = 30
	c := collect(t)
	var names []string
	for i := range maxExtensions {
		names = append(names, fmt.Sprint("ext", i))
	}
	s := serve(t, Config{Extensions: names, RuntimeInit: time.Millisecond})
	var all sync.WaitGroup
	seen := make([]int, len(names))
	for i, name := range names {
		if err := s.ReleaseExtension(name); err != nil {
			t.Fatal(err)
		}
		all.Go(func() {
			transport := &http.Transport{}
			defer transport.CloseIdleConnections()
			call := func(method, path, body string, header ...string) (http.Header, string) {
				request, _ := http.NewRequest(method, "http://"+s.addr+path, strings.NewReader(body))
				for i := 0; i < len(header); i += 2 {
					request.Header.Set(header[i], header[i+1])
				}
				response, err := transport.RoundTrip(request)
				if err != nil {
					t.Errorf("%s: %s: %v", name, path, err)
					return nil, ""
				}
				defer func() { _ = response.Body.Close() }()
				got, _ := io.ReadAll(response.Body)
				if response.StatusCode != 200 {
					t.Errorf("%s: %s: %s %s", name, path, response.Status, got)
				}
				return response.Header, string(got)
			}
			header, _ := call("POST", pathRegister, bothEvents, headerName, name)
			id := header.Get(headerIdentifier)
			call("PUT", pathTelem, subscribeBody(c.port), headerIdentifier, id)
			for {
				_, body := call("GET", pathNext, "", headerIdentifier, id)
				var event struct{ EventType string }
				if err := json.Unmarshal([]byte(body), &event); err != nil || event.EventType != "INVOKE" {
					if event.EventType != "SHUTDOWN" {
						t.Errorf("%s: event %q", name, body)
					}
					s.ProcessExited(name, nil)
					return
				}
				seen[i]++
				s.LogLine(name, "seen")
			}
		})
	}
	within(t, "InitDone", s.InitDone())
	for range invokes {
		if r := s.Invoke(context.Background(), []byte("{}")); r.Err != nil {
			t.Fatal(r.Err)
		}
	}
	r := s.Shutdown(context.Background(), ReasonSpindown, 10*time.Second)
	all.Wait()
	if len(r.Exited) != len(names) || len(r.Remaining) != 0 {
		t.Errorf("shutdown %+v", r)
	}
	for i, n := range seen {
		if n != invokes {
			t.Errorf("%s saw %d of %d invokes", names[i], n, invokes)
		}
	}
	times := s.Times()
	if len(times.Invokes) != invokes || s.InitOutcome().Status != InitSuccess || len(s.Warnings()) != 0 {
		t.Errorf("%d invokes, outcome %+v, warnings %q", len(times.Invokes), s.InitOutcome(), s.Warnings())
	}
	for i, inv := range times.Invokes {
		if !ascending(inv.Sent, inv.Responded, inv.RuntimeDone, inv.Complete) || i > 0 && inv.Sent < times.Invokes[i-1].Complete {
			t.Errorf("invoke %d: %+v", i, inv)
		}
	}
	for name, p := range times.Extensions {
		if !ascending(times.InitStart, p.Registered, p.FirstNext, times.InitEnd, times.Shutdown, p.Exited) {
			t.Errorf("%s: %+v", name, p)
		}
	}
}
