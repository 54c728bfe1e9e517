package checkpoint

import (
	"io"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// maxOpenSpans bounds the spans whose begin is remembered for own_ms.
const maxOpenSpans = 64

// maxName bounds how much of a name is printed.
const maxName = 128

type spanKey struct {
	name string
	id   uint64
}

// state is what the log needs; it is touched only after LogTo.
var state struct {
	sync.Mutex
	out      io.Writer
	origin   time.Time // package time's initialisation
	previous time.Time // the checkpoint before
	open     map[spanKey]time.Time
	greeted  bool
	line     [maxName + 192]byte
	records  [maxRecords]record
	recorded int
}

// LogTo makes every later Reach and End write a line to w, and the first of
// them a line with the available parallelism; Summary begins anew. Writes are serialised; their
// errors are ignored, since a log must not stop the program. A nil w turns the
// log off again.
func LogTo(w io.Writer) {
	state.Lock()
	defer state.Unlock()
	state.out = w
	if w != nil {
		state.greeted, state.recorded = false, 0
	}
	if w != nil && state.origin.IsZero() {
		state.origin = processStart(time.Now())
		state.previous = state.origin
		heapBytes() // the runtime builds its tables at the first call: 0.04 ms
	}
	logging.Store(w != nil)
}

// processStart returns the instant at which package time was initialised. It
// is the zero of the monotonic reading that Time.String prints as m=±seconds,
// which is documented, while the field that holds it is private.
func processStart(now time.Time) time.Time {
	text := now.String()
	i := strings.LastIndex(text, " m=")
	if i < 0 {
		return now
	}
	seconds, err := strconv.ParseFloat(text[i+len(" m="):], 64)
	if err != nil {
		return now
	}
	return now.Add(-time.Duration(seconds * float64(time.Second)))
}

func log(name string, kind uintptr, id uint64) {
	now := time.Now()
	state.Lock()
	defer state.Unlock()
	if state.out == nil {
		return
	}
	if !state.greeted {
		state.greeted = true
		b := append(state.line[:0], "DD_EXTENSION | DEBUG | checkpoint available_parallelism="...)
		b = strconv.AppendInt(b, int64(runtime.GOMAXPROCS(0)), 10)
		b = append(b, " num_cpu="...)
		b = strconv.AppendInt(b, int64(runtime.NumCPU()), 10)
		write(b)
	}
	switch kind {
	case kindReach:
		b := appendName(append(state.line[:0], "DD_EXTENSION | DEBUG | checkpoint "...), name)
		b = append(b, " delta_ms="...)
		b = appendMilliseconds(b, now.Sub(state.previous))
		if state.recorded < maxRecords {
			r := &state.records[state.recorded]
			r.name, r.delta, r.since = name, now.Sub(state.previous), now.Sub(state.origin)
			r.measure()
			state.recorded++
		}
		state.previous = now
		writeSince(b, now)
	case kindBegin:
		if state.open == nil {
			state.open = make(map[spanKey]time.Time, maxOpenSpans)
		}
		if len(state.open) < maxOpenSpans {
			state.open[spanKey{name, id}] = now
		}
	case kindEnd:
		begin, known := state.open[spanKey{name, id}]
		delete(state.open, spanKey{name, id})
		b := appendName(append(state.line[:0], "DD_EXTENSION | DEBUG | span "...), name)
		b = append(b, " id="...)
		b = strconv.AppendUint(b, id, 10)
		if known {
			b = append(b, " own_ms="...)
			b = appendMilliseconds(b, now.Sub(begin))
		}
		writeSince(b, now)
	}
}

func writeSince(b []byte, now time.Time) {
	b = append(b, " since_process_start_in_go_ms="...)
	write(appendMilliseconds(b, now.Sub(state.origin)))
}

func write(b []byte) {
	_, _ = state.out.Write(append(b, '\n'))
}

// appendName keeps a line a line whatever the name holds.
func appendName(b []byte, name string) []byte {
	if len(name) > maxName {
		name = name[:maxName]
	}
	for i := range len(name) {
		c := name[i]
		if c <= ' ' || c >= 0x7f || c == '"' || c == '\\' {
			c = '_'
		}
		b = append(b, c)
	}
	return b
}

// appendMilliseconds prints d with all its nanoseconds: 6 decimals.
func appendMilliseconds(b []byte, d time.Duration) []byte {
	if d < 0 {
		b = append(b, '-')
		d = -d
	}
	b = strconv.AppendInt(b, int64(d/time.Millisecond), 10)
	b = append(b, '.')
	rest := int64(d % time.Millisecond)
	for unit := int64(100000); unit > 0; unit /= 10 {
		b = append(b, byte('0'+rest/unit%10))
	}
	return b
}
