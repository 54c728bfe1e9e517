// Package stat holds the statistics of cold starts: summaries with honest
// intervals, rounding that keeps sums, the shift between two sets of runs with
// its interval and its significance, and a test for two modes.
//
// It works on plain integers, mostly nanoseconds, knows nothing of the rest of
// this module, and is used from the timelines down to the reports. Nothing
// here trims or drops a value, and whatever needs randomness takes a seed.
package stat
