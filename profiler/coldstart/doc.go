// Package coldstart runs one cold start: a fresh execution environment
// (sandbox) in a fresh box (launch), the subject in it from release to the end
// of INIT and one or more invokes behind it, watched by a tracer or not.
//
// It stands above launch, sandbox and capture and below record and bench, which
// repeat it.
package coldstart
