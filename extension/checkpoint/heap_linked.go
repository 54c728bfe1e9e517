//go:build go1.26 && !go1.27 && (amd64 || arm64)

package checkpoint

import "unsafe" // also for go:linkname

// sample is runtime/metrics.Sample, which the runtime fills in.
type sample struct {
	name    string
	kind    int // 1: scalar is a uint64
	scalar  uint64
	pointer unsafe.Pointer
}

// readMetrics is what runtime/metrics.Read calls. The package itself is not
// imported, since its initialisation sorts a table of descriptions in every
// start, logged or not: 0.06 to 0.08 ms, 15 KB. runtime.ReadMemStats would stop
// the program for tens of microseconds. The build constraint names the versions
// of Go whose layout was checked; elsewhere the heap is absent.
//
//go:linkname readMetrics runtime/metrics.runtime_readMetrics
func readMetrics(samples unsafe.Pointer, length, capacity int)

// heapSample is only touched under state's lock.
var heapSample [1]sample

// heapBytes is the size of the objects on the heap, those included that are
// garbage by now. Threads account to it by spans of 8 KB and more.
func heapBytes() (n uint64, known bool) {
	s := &heapSample[0]
	s.name = "/memory/classes/heap/objects:bytes"
	readMetrics(unsafe.Pointer(s), 1, 1)
	return s.scalar, s.kind == 1
}
