// Package record runs a session of cold starts, traced and untraced
// interleaved, writes a run to disk, and reads it again.
//
// It stands above everything from coldstart to analysis and below the command
// line. A run is a directory:
//
//	manifest.json        what was run, on what, with which probes, how each cold start ended
//	events/NNN.zst       the events of the traced cold start NNN (package capture)
//	symbols/             frames of the addresses hit (package symbolize)
//	profiles/*.pb.gz     one pprof profile a signal
//	flamegraphs/, report.json  written by the command line
//
// It is written under a temporary name and renamed when it is whole.
package record
