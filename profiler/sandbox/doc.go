// Package sandbox is the emulated Lambda execution environment: the
// Extensions, Telemetry and Runtime API, the INIT state machine behind them,
// and a latency model.
//
// It stands before the data flow: launch starts the subject, sandbox is what
// the subject talks to while it starts, and record and bench read from it when
// the environment saw what ([Env.Times], [Env.Requests], [Env.InitOutcome]).
// It imports none of the project's packages, and shares no wire structs with
// the extension, so that a misreading of Lambda's documents cannot hide by
// being made on both sides.
//
// # Life of an environment
//
//	env, err := sandbox.New(sandbox.Config{Extensions: []string{"my-extension"}})
//	go env.Serve(listener)
//	env.ReleaseExtension("my-extension")    // INIT begins
//	<-env.Registered()                      // now Lambda starts the runtime
//	<-env.InitDone()                        // everyone asked for next, or it failed
//	res := env.Invoke(ctx, payload)
//	env.Shutdown(ctx, sandbox.ReasonSpindown, 2*time.Second)
//	env.Close()
//
// Statuses, error types and messages are those of AWS's documents (Lambda
// developer guide: Extensions API, Telemetry API, runtime API) and, where these
// are silent, those that the AWS Lambda Runtime Interface Emulator 4fa2157
// answers: the rapid core that it is built from is Lambda's own.
//
// # Clock
//
// Times are int64 nanoseconds on CLOCK_MONOTONIC, the clock of
// bpf_ktime_get_ns. Only what is sent to the subject (deadlines, telemetry)
// carries wall time, as in Lambda.
package sandbox
