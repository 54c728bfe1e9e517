package telemetry

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/initprof/initprof/extension/logging"
)

const delivery = `[
{"time":"2022-10-12T00:03:50.000Z","type":"platform.report","record":{"requestId":"r","status":"success","metrics":{"durationMs":101.5,"billedDurationMs":102,"memorySizeMB":512,"maxMemoryUsedMB":33,"initDurationMs":116.67}}},
17,
{"time":"not a time","type":"function","record":"lost"},
{"time":"2022-10-12T00:03:50.000Z","type":"platform.fromTheFuture","record":{"x":[1]}},
{"time":"2022-10-12T00:03:50.000Z","type":"function","record":"a line\n"},
{"time":"2022-10-12T00:03:50.000Z","type":"function","record":{"level":"INFO"}}]`

func TestServer(t *testing.T) {
	var log bytes.Buffer
	got := make(chan []Event, 4)
	s, err := Listen("127.0.0.1:0", func(e []Event) { got <- e }, logging.New(&log, logging.Warn))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close(context.Background()) })
	for _, body := range []string{"{", delivery} {
		resp, err := http.Post("http://"+s.Addr().String()+"/", "application/json", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if resp.Body.Close(); resp.StatusCode != 200 {
			t.Error(resp.Status)
		}
	}
	events := <-got
	if len(events) != 4 || events[1].Type != "platform.fromTheFuture" {
		t.Fatalf("%+v", events)
	}
	p, err := events[0].Platform()
	if err != nil || p.RequestID != "r" || p.Metrics.InitDurationMs != 116.67 {
		t.Errorf("%+v %v", p, err)
	}
	if a, b := events[2].Line(), events[3].Line(); a != "a line\n" || b != `{"level":"INFO"}` {
		t.Errorf("%q %q", a, b)
	}
	if !strings.Contains(log.String(), "2 of 6") {
		t.Error(log.String())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(delivery))
	f.Add([]byte("[]"))
	f.Fuzz(func(_ *testing.T, body []byte) {
		events, _, _ := Decode(body)
		for i := range events {
			_, _ = events[i].Platform()
			_ = events[i].Line()
		}
	})
}
