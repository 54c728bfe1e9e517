// Package phase divides the window of a cold start, from its exec to its first
// /next, into phases: it reads timelines (package trace) and is read by the
// ledger, profiles and reports, which group what they count by phase.
//
// A phase is the half-open interval between two checkpoints and carries the
// name of the one that ends it. Checkpoints of all sources — what every program
// passes, what the subject declares, what rules of the user name — merge by
// time, and the phases tile the window exactly. Spans stand apart, for work
// that overlaps.
package phase
