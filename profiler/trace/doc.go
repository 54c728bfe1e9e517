// Package trace is the vocabulary of a recorded cold start: what happened
// (events), where (stacks and mappings), when (one clock), and, built from
// them, what each thread did at each nanosecond (timelines).
//
// It stands between capture, which decodes events, and symbolize, phase and
// everything to their right, which read timelines. It imports nothing of ours.
//
// Clock: every time is an int64 of nanoseconds on CLOCK_MONOTONIC, the clock
// of bpf_ktime_get_ns. Durations derived from it are time.Duration.
package trace
