// Package symbolize turns addresses into frames: address + mapping → module,
// function, file and line, inlined calls included.
//
// It stands between trace, whose events carry stacks and mappings, and phase,
// ledger and profile, which read frames. Two sides meet in a Store:
//
//	recording:  events → Collector → Store → Store.Write(run/symbols)
//	reporting:  Open(run/symbols) → Store.Resolver(events) → Resolve → Location
//
// The Collector runs on the recording host after a cold start's window has
// closed. It finds the mapping of every address of every stack by process and
// time, opens each object once, and keeps the frames of just the addresses
// that were hit. A Store therefore names the same frames on another machine,
// without root and without the objects.
//
// Names come, in this order, from Go's pclntab (which survives stripping and
// holds inlined calls), DWARF, .symtab, .dynsym, .gnu_debugdata and PLT
// relocations; for the kernel from /proc/kallsyms. An address that none of
// them names keeps its module and its address in that module.
//
// Everything read here was written by others: object files, pclntabs, symbol
// tables and stores are bounded in time and memory, and a malformed one costs
// its names and nothing else.
package symbolize
