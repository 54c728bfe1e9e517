package checkpoint

import (
	"runtime/debug"
	"strconv"
	"syscall"
	"time"
)

// maxRecords bounds the checkpoints that Summary carries.
const maxRecords = 32

// record is what was known at a checkpoint. All but the times are totals of
// the process since its start, the part before main included.
type record struct {
	name        string
	delta       time.Duration
	since       time.Duration
	user        time.Duration // getrusage(2), RUSAGE_SELF
	system      time.Duration
	minorFaults int64
	majorFaults int64
	voluntary   int64 // context switches
	involuntary int64
	maxRSS      int64 // bytes
	gcCycles    int64
	heap        int64 // bytes; -1 is unknown
}

// gcStats keeps its slice, so that reading into it allocates once.
var gcStats debug.GCStats

func (r *record) measure() {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) == nil {
		r.user = time.Duration(u.Utime.Nano())
		r.system = time.Duration(u.Stime.Nano())
		r.minorFaults, r.majorFaults = int64(u.Minflt), int64(u.Majflt)
		r.voluntary, r.involuntary = int64(u.Nvcsw), int64(u.Nivcsw)
		r.maxRSS = int64(u.Maxrss) << 10
	}
	debug.ReadGCStats(&gcStats)
	r.gcCycles, r.heap = gcStats.NumGC, -1
	if n, known := heapBytes(); known {
		r.heap = int64(n)
	}
}

// Summary writes one line of JSON with everything that was recorded at the
// checkpoints so far, where LogTo has been called:
//
//	{"checkpoints":[{"name":"ready","delta_ns":…,"since_process_start_in_go_ns":…,
//	"user_ns":…,"system_ns":…,"minor_faults":…,"major_faults":…,
//	"voluntary_switches":…,"involuntary_switches":…,"max_rss_bytes":…,
//	"gc_cycles":…,"heap_bytes":…},…]}
//
// All but delta_ns and heap_bytes are cumulative, so that the cost of a phase is
// a difference. heap_bytes is absent where it cannot be read cheaply. It is meant
// to be called once, at the end of a program's start.
func Summary() {
	if !logging.Load() {
		return
	}
	state.Lock()
	defer state.Unlock()
	if state.out == nil {
		return
	}
	b := append(make([]byte, 0, 256*(state.recorded+1)), `{"checkpoints":[`...)
	for i := range state.records[:state.recorded] {
		if i > 0 {
			b = append(b, ',')
		}
		b = state.records[i].appendJSON(b)
	}
	write(append(b, "]}"...))
}

func appendField(b []byte, name string, value uint64) []byte {
	b = append(append(append(b, '"'), name...), `":`...)
	return strconv.AppendUint(b, value, 10)
}

func (r *record) appendJSON(b []byte) []byte {
	b = append(appendName(append(b, `{"name":"`...), r.name), '"')
	for _, f := range [...]struct {
		name  string
		value int64
	}{
		{"delta_ns", int64(r.delta)},
		{"since_process_start_in_go_ns", int64(r.since)},
		{"user_ns", int64(r.user)},
		{"system_ns", int64(r.system)},
		{"minor_faults", r.minorFaults},
		{"major_faults", r.majorFaults},
		{"voluntary_switches", r.voluntary},
		{"involuntary_switches", r.involuntary},
		{"max_rss_bytes", r.maxRSS},
		{"gc_cycles", r.gcCycles},
	} {
		b = appendField(append(b, ','), f.name, uint64(f.value))
	}
	if r.heap >= 0 {
		b = appendField(append(b, ','), "heap_bytes", uint64(r.heap))
	}
	return append(b, '}')
}
