package capture_test

import (
	"bytes"
	"errors"
	"slices"
	"testing"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/probe"
	"github.com/initprof/initprof/profiler/trace"
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
	// A mapping, and a call of a function in it that is given a string.
	header := func(kind bpf.InitprofEventKind, size uintptr, text string) bpf.InitprofEventHeader {
		padded := (len(text) + 7) &^ 7
		return bpf.InitprofEventHeader{
			Kind: uint8(kind), Size: uint16(size) + uint16(padded), TextSize: uint16(len(text)), Tgid: 7, Tid: 7, KtimeNs: 5,
		}
	}
	mapping := bpf.InitprofEventMapping{Start: 0x1000, Limit: 0x3000, Prot: 5}
	mapping.H = header(bpf.InitprofEventKindEVENT_MAPPING, unsafe.Sizeof(mapping), "/lib/x")
	text := bpf.InitprofEventText{}
	text.H = header(bpf.InitprofEventKindEVENT_CALL_TEXT, unsafe.Sizeof(text), "a string")
	call := bpf.InitprofEventCall{EndNs: 9, Ip: 0x1001, MinorFaults: 1}
	call.H = header(bpf.InitprofEventKindEVENT_CALL, unsafe.Sizeof(call), "")
	calls := slices.Concat(bytesOf(&mapping), []byte("/lib/x\x00\x00"), bytesOf(&text), []byte("a string"), bytesOf(&call))
	points := []capture.Point{{Path: "/lib/x", Point: probe.Point{Offset: 1, Action: probe.RecordCallText0, Kind: probe.Call, Name: "f"}}}
	events, err := (&capture.Raw{Records: calls, Points: points}).Decode()
	if err != nil || len(events) != 2 || events[1].(*trace.FunctionCall).Text != "a string" {
		f.Fatalf("%v of %v", err, events)
	}
	f.Add(calls)
	// A goroutine that parks, of a layout that the check refuses.
	parks := bpf.InitprofEventGoroutine{G: 0xc000002380, Goid: 7, From: 2, To: 4, Reason: 2}
	parks.H = header(bpf.InitprofEventKindEVENT_GOROUTINE, unsafe.Sizeof(parks), "")
	goroutines := &probe.Goroutines{Version: "go1.26.8"}
	if _, err := (&capture.Raw{Records: bytesOf(&parks), Goroutines: goroutines}).Decode(); !errors.Is(err, capture.ErrLayout) {
		f.Fatalf("a goroutine without a main one: %v", err)
	}
	f.Add(bytesOf(&parks))
	f.Fuzz(func(t *testing.T, data []byte) {
		raw := capture.Raw{Records: data, Points: points, Goroutines: goroutines}
		if _, err := raw.Decode(); err != nil && !errors.Is(err, capture.ErrMalformed) && !errors.Is(err, capture.ErrLayout) {
			t.Errorf("an error that is neither ErrMalformed nor ErrLayout: %v", err)
		}
	})
}

// bytesOf are the bytes of a record's fixed part.
func bytesOf[T any](record *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(record)), unsafe.Sizeof(*record))
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
