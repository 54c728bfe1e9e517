// Package capture watches one cold start after another with the programs of
// package bpf, turns their records into trace events, and writes and replays
// recordings.
//
// It stands between probe, which plans what to attach, and trace, whose
// vocabulary it speaks. A Tracer is loaded and attached once and then armed for
// each cold start; what it collected is a Raw, which is also what a recording
// holds on disk, so that a replay takes the same way as a live capture.
//
// Clock: CLOCK_MONOTONIC, nanoseconds.
package capture
