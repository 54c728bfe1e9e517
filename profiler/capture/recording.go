package capture

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/klauspost/compress/zstd"

	"github.com/initprof/initprof/profiler/probe"
)

// Losses counts what was not recorded, by where it was lost.
type Losses struct {
	RingBuffer uint64 `json:"ring_buffer"` // records that found no room
	Threads    uint64 `json:"threads"`     // threads that found no room among those watched
	Faults     uint64 `json:"faults"`      // faults whose begin was not seen: counted, without a time
	Calls      uint64 `json:"calls"`       // calls of probed functions that found no room, or returned unseen
	Recursion  uint64 `json:"recursion"`   // runs of a program that the kernel skipped because it was running
	Mappings   uint64 `json:"mappings"`    // mmap records lost by perf
	Goroutines uint64 `json:"goroutines"`  // changes of a goroutine whose runtime.g could not be read
}

// Total is the number of lost events.
func (l Losses) Total() uint64 {
	return l.RingBuffer + l.Threads + l.Faults + l.Calls + l.Recursion + l.Mappings + l.Goroutines
}

// Hits counts how often the programs of each family ran for the subject.
type Hits struct {
	Syscalls   uint64 `json:"syscalls"`
	Sched      uint64 `json:"sched"`
	Faults     uint64 `json:"faults"`
	Samples    uint64 `json:"samples"`
	Marks      uint64 `json:"marks"`
	Calls      uint64 `json:"calls"` // entries and returns of probed functions
	Goroutines uint64 `json:"goroutines"`

	Copies      uint64 `json:"copies"` // stacks copied to be unwound
	CopiedBytes uint64 `json:"copied_bytes"`
}

// Raw is what a Tracer collected of one cold start: the records of
// bpf/src/events.h as the programs wrote them, and what is needed to read them.
type Raw struct {
	Arch            string            `json:"arch"`        // as GOARCH
	SubjectPID      int               `json:"subject_pid"` // in the initial PID namespace; 0 if it was never seen
	Stopped         int64             `json:"stopped_ns"`  // CLOCK_MONOTONIC: when tracing was stopped
	SampleHz        int               `json:"sample_hz"`   // 0: no samples were taken
	Points          []Point           `json:"points,omitempty"`
	Goroutines      *probe.Goroutines `json:"goroutines,omitempty"`       // how they were read; nil: not watched
	CheapGoroutines bool              `json:"cheap_goroutines,omitempty"` // what ran was looked up at other events
	Losses          Losses            `json:"losses"`
	Hits            Hits              `json:"hits"`
	Records         []byte            `json:"-"`
}

// The beginning of a recording, inside its zstd frame: magic, version and the
// size of the JSON that follows (both uint32, little-endian), then the records.
const recordingMagic = "initprof"

// RecordingVersion changes with every change of a record's layout or meaning.
const RecordingVersion = 3

// Bounds against files that lie about themselves.
const (
	maxRecordingHeader = 1 << 20
	maxRecordingBytes  = 4 << 30
)

// ErrForeign is wrapped by errors about files that are no recording, or one of
// an unknown version.
var ErrForeign = errors.New("not a recording that this initprof can read")

// ErrTruncated is wrapped by errors about recordings that end too early.
var ErrTruncated = errors.New("truncated recording")

// Write writes the recording to w.
func (r *Raw) Write(w io.Writer) error {
	header, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode the recording's header: %w", err)
	}
	z, err := zstd.NewWriter(w, zstd.WithEncoderLevel(zstd.SpeedDefault), zstd.WithEncoderConcurrency(1))
	if err != nil {
		return fmt.Errorf("start compression: %w", err)
	}
	prefix := binary.LittleEndian.AppendUint32([]byte(recordingMagic), RecordingVersion)
	prefix = binary.LittleEndian.AppendUint32(prefix, uint32(len(header)))
	for _, part := range [][]byte{prefix, header, r.Records} {
		if _, err := z.Write(part); err != nil {
			return fmt.Errorf("write the recording: %w", errors.Join(err, z.Close()))
		}
	}
	if err := z.Close(); err != nil {
		return fmt.Errorf("write the recording: %w", err)
	}
	return nil
}

// ReadRecording reads what Write wrote, on any machine. Errors wrap ErrForeign
// or ErrTruncated.
func ReadRecording(from io.Reader) (*Raw, error) {
	z, err := zstd.NewReader(from, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxRecordingBytes))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrForeign, err)
	}
	defer z.Close()
	prefix := make([]byte, len(recordingMagic)+8)
	if _, err := io.ReadFull(z, prefix); err != nil {
		return nil, readError(err)
	}
	if string(prefix[:len(recordingMagic)]) != recordingMagic {
		return nil, fmt.Errorf("%w: it begins with %q", ErrForeign, prefix[:len(recordingMagic)])
	}
	if v := binary.LittleEndian.Uint32(prefix[len(recordingMagic):]); v != RecordingVersion {
		return nil, fmt.Errorf("%w: version %d, want %d", ErrForeign, v, RecordingVersion)
	}
	size := binary.LittleEndian.Uint32(prefix[len(recordingMagic)+4:])
	if size > maxRecordingHeader {
		return nil, fmt.Errorf("%w: a header of %d bytes", ErrForeign, size)
	}
	header := make([]byte, size)
	if _, err := io.ReadFull(z, header); err != nil {
		return nil, readError(err)
	}
	var r Raw
	if err := json.Unmarshal(header, &r); err != nil {
		return nil, fmt.Errorf("%w: header: %w", ErrForeign, err)
	}
	var records bytes.Buffer
	n, err := io.Copy(&records, io.LimitReader(z, maxRecordingBytes+1))
	if err != nil {
		return nil, readError(err)
	}
	if n > maxRecordingBytes {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrForeign, int64(maxRecordingBytes))
	}
	r.Records = records.Bytes()
	return &r, nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: %w", ErrTruncated, err)
	}
	return fmt.Errorf("%w: %w", ErrForeign, err)
}

// ReadRecordingFile is ReadRecording on a file; its errors name it.
func ReadRecordingFile(path string) (*Raw, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := ReadRecording(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
