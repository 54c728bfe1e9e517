// Package cli is initprof's command line: it turns flags into options, and is
// the only package that prints or exits.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/capture"
)

// Version is set when initprof is linked.
var Version = "dev"

// Exit codes, as docs/architecture.md lists them.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitSubject     = 3
	exitTimeout     = 4
	exitSlower      = 5
	exitInterrupted = 130
)

// exitError is an error with an exit code of its own; without a text it was
// already told.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{exitUsage, fmt.Errorf(format, args...)}
}

// Main runs the command line and returns the exit code.
func Main(args []string, out, errOut io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use:   "initprof",
		Short: "Tells where a Lambda cold start goes",
		Long: `initprof starts a Lambda extension (or a function's runtime) in an emulated
execution environment, watches it with eBPF and perf events from its exec to its
first /next, over many cold starts, and tells where the time went.`,
		Example: `  sudo initprof record -- ./my-extension
  initprof report my-extension.initprof
  initprof flamegraph my-extension.initprof --phase register -o register.svg
  go tool pprof -top my-extension.initprof/profiles/cpu.pb.gz`,
		Version: Version, SilenceErrors: true, SilenceUsage: true,
	}
	root.SetArgs(args)
	root.SetOut(out)
	root.SetErr(errOut)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usage("%w\nsee '%s --help'", err, c.CommandPath())
	})
	root.AddCommand(recordCommand(), reportCommand(), blameCommand(), criticalChainCommand(), whatifCommand(), flamegraphCommand(), diffCommand(), sandboxCommand(), benchCommand(), doctorCommand())
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	var exit *exitError
	if !errors.As(err, &exit) {
		exit = &exitError{exitFailed, err}
		if ctx.Err() != nil {
			exit.code = exitInterrupted
		}
	}
	if text := exit.Error(); text != "" {
		fmt.Fprintln(errOut, "initprof:", text)
	}
	var missing *capture.UnavailableError
	if errors.As(err, &missing) && missing.Err != nil {
		fmt.Fprintln(errOut, "  because:", missing.Err)
	}
	return exit.code
}

// subject makes the subject's file absolute; a bare name is looked up in PATH.
func subject(args []string) ([]string, error) {
	if len(args) == 0 {
		return nil, usage("which program? give it behind --, such as: initprof record -- ./my-extension")
	}
	path := args[0]
	if filepath.Base(path) == path {
		if found, err := exec.LookPath(path); err == nil {
			path = found
		}
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, usage("%w", err)
	}
	if info.IsDir() {
		return nil, usage("%s is a directory, not a program", path)
	}
	return append([]string{path}, args[1:]...), nil
}
