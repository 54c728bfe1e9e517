// Package checkpoint marks instants and intervals of a program's start so that
// initprof sees them from outside and, at debug level, the program's own log
// shows them too. It stands at the very left of the extension's data flow: any
// package, of any program, may import it. It imports only the standard library
// and does no work when its package is initialised.
//
//	checkpoint.Reach("config_parse")        // an instant; ends the phase of that name
//	checkpoint.Begin("subscribe", 1)        // a span, for work that overlaps with other work
//	checkpoint.End("subscribe", 1)
//
// A name should be a constant of lower-case words joined by underscores. An id
// tells apart spans of one name that are open at the same time.
//
// # Contract with a profiler
//
// Every call of Reach, Begin and End executes the assembly function mark of
// this package exactly once, whether the program logs or not. A uprobe on its
// first instruction therefore sees all of them, in any binary that imports this
// package, stripped or not, position independent or not, without a rebuild:
//
//   - The symbol is github.com/initprof/initprof/extension/checkpoint.mark
//     (github.com/initprof/initprof/extension/checkpoint.mark.abi0 in .symtab).
//     It is in .gopclntab, which `go build -ldflags "-s -w"` keeps.
//   - It is NOSPLIT, has no frame, and its arguments are on the stack, as in the
//     ABI0 of Go, on entry at these offsets from the stack pointer (RSP on amd64,
//     SP on arm64; the word at 0 is the return address on amd64 and reserved for
//     the link register on arm64):
//     8: address of the name's bytes; 16: length of the name in bytes;
//     24: kind (0 checkpoint, 1 begin of a span, 2 end of a span); 32: id
//     (0 for a checkpoint). Each is a 64-bit word.
//   - Its first instruction is one that the kernel does not single-step under a
//     uprobe: on amd64 the 5-byte NOP 0f 1f 44 00 00, on arm64 a branch to the
//     next instruction (14000001). A second instruction returns.
//   - .gopclntab may hold a second function of the same name: the compiler's
//     adapter from the register ABI. The marker is the one whose code begins
//     with the bytes above. The adapter is never called by this package.
//
// On other architectures mark does nothing and no profiler sees it.
//
// # Log
//
// Output is off until LogTo is called, and then written at once, a line a call:
//
//	DD_EXTENSION | DEBUG | checkpoint available_parallelism=2 num_cpu=2
//	DD_EXTENSION | DEBUG | checkpoint config_parse delta_ms=0.043210 since_process_start_in_go_ms=1.902113
//	DD_EXTENSION | DEBUG | span subscribe id=1 own_ms=0.301200 since_process_start_in_go_ms=2.212000
//
// Each checkpoint also records CPU time, page faults and context switches of
// the process, its GC cycles and its heap, which Summary writes as one JSON line.
// It is what is left where no profiler may look, inside a real Lambda sandbox.
// Recording and formatting a line takes 1.5 µs (BenchmarkReachLogged), to which
// the write to the log comes.
//
// delta_ms is the time since the previous checkpoint, of whatever goroutine:
// once work overlaps it is a wait at a join, not the cost of a phase. The origin
// of since_process_start_in_go_ms is the earliest instant that a Go program can
// name, the initialisation of package time. The kernel's exec, the dynamic
// loader and the runtime's own start lie before it: only a profiler that looks
// from outside shows them.
package checkpoint
