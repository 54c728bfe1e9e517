package capture_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
)

func TestRecordingRoundTrip(t *testing.T) {
	want := &capture.Raw{
		Arch: "arm64", SubjectPID: 7, SampleHz: 999, Stopped: 12,
		Points: []capture.Point{{Path: "/x", Point: probe.Point{Offset: 16, Kind: probe.Entry, Name: "entry"}}},
		Losses: capture.Losses{RingBuffer: 3}, Records: bytes.Repeat([]byte{1, 2, 3, 4}, 1000),
	}
	var file bytes.Buffer
	if err := want.Write(&file); err != nil {
		t.Fatal(err)
	}
	got, err := capture.ReadRecording(bytes.NewReader(file.Bytes()))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for n := range file.Len() {
		_, err := capture.ReadRecording(bytes.NewReader(file.Bytes()[:n]))
		if !errors.Is(err, capture.ErrTruncated) && !errors.Is(err, capture.ErrForeign) {
			t.Fatalf("cut at %d of %d bytes: %v", n, file.Len(), err)
		}
	}
	if _, err := capture.ReadRecording(bytes.NewReader([]byte("PNG, say"))); !errors.Is(err, capture.ErrForeign) {
		t.Errorf("a foreign file: %v", err)
	}
}

// FuzzDecode: records are hostile input once they come from a file.
func FuzzDecode(f *testing.F) {
	f.Add([]byte{})
	f.Add(append([]byte{4, 0, 1, 1, 104, 0, 0, 0}, make([]byte, 96)...))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := capture.Raw{Records: data, Points: []capture.Point{{Point: probe.Point{Offset: 1}}}}
		if _, err := raw.Decode(); err != nil && !errors.Is(err, capture.ErrMalformed) {
			t.Errorf("an error that is not ErrMalformed: %v", err)
		}
	})
}

func FuzzReadRecording(f *testing.F) {
	var file bytes.Buffer
	if err := (&capture.Raw{Arch: "amd64", Records: []byte("12345678")}).Write(&file); err != nil {
		f.Fatal(err)
	}
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		_, err := capture.ReadRecording(bytes.NewReader(data))
		if err != nil && !errors.Is(err, capture.ErrForeign) && !errors.Is(err, capture.ErrTruncated) {
			t.Errorf("an error of neither kind: %v", err)
		}
	})
}
