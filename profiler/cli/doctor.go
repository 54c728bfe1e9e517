package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/initprof/initprof/profiler/capture"
	"github.com/initprof/initprof/profiler/doctor"
	"github.com/initprof/initprof/profiler/launch"
)

func doctorCommand() *cobra.Command {
	var format string
	c := &cobra.Command{
		Use:   "doctor [BINARY]",
		Short: "Tell what this host and a program allow, and which changes are inert or free to try",
		Long: `Tells which probes this host allows. With BINARY it also tells, from that file
alone and without running it, of each known cold-start change whether it is

  inert    the program has it already, or has nothing that it could act on
  try      it can be tried without a rebuild, by the command printed with it
  applies  it has something to act on, and needs a rebuild
  unknown  the file does not tell

and which Go packages initialise themselves, what stacks to expect, and for each
probe of record whether it is possible (0.6 to 0.8 µs a hit), dear (11 to 16 µs,
single-stepped) or unavailable. Libraries and the dynamic loader are this host's.`,
		Example: `  initprof doctor
  initprof doctor ./my-extension
  initprof doctor --format json ./my-extension | jq '.program.changes[] | select(.verdict == "try")'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "text" && format != "json" {
				return usage("--format is text or json, not %s", format)
			}
			return runDoctor(cmd.OutOrStdout(), args, format)
		},
	}
	c.Flags().StringVar(&format, "format", "text", "text or json")
	return c
}

// doctorReport is the JSON form.
type doctorReport struct {
	Host    hostReport     `json:"host"`
	Program *doctor.Report `json:"program,omitempty"`
}

type hostReport struct {
	Probes      []hostProbe `json:"probes"`
	Tracing     string      `json:"tracing,omitempty"` // why it is unavailable
	Namespaces  bool        `json:"namespaces"`
	Isolated    bool        `json:"own_network"`
	Cgroup      int         `json:"cgroup_version"`
	Missing     []string    `json:"missing"`
	Environment string      `json:"environment,omitempty"` // why it is unavailable
}

type hostProbe struct {
	Name   string `json:"name"`
	Reason string `json:"reason,omitempty"` // why it is unavailable
}

func runDoctor(out io.Writer, args []string, format string) error {
	var r doctorReport
	if len(args) > 0 {
		program, err := examine(args[0])
		if err != nil {
			return err
		}
		r.Program = program
	}
	var err error
	r.Host, err = examineHost()
	if format == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return errors.Join(err, e.Encode(r))
	}
	writeHost(out, r.Host)
	if r.Program != nil {
		fmt.Fprintln(out)
		writeProgram(out, r.Program)
	}
	return err
}

func examine(path string) (*doctor.Report, error) {
	f, err := openRegular(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := doctor.Examine(f, path, doctor.Options{Open: openRegular})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}

// openRegular opens a file that the command line or an ELF file names. It never
// waits, as opening a pipe would.
func openRegular(path string) (doctor.ReaderAtCloser, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, fmt.Errorf("%s is no regular file", path)
	}
	return f, nil
}

// examineHost tries what a recording needs. The error is of what could not be
// undone.
func examineHost() (hostReport, error) {
	h := hostReport{Probes: []hostProbe{}, Missing: []string{}}
	var errs []error
	t, err := capture.New(capture.Options{})
	if err != nil {
		h.Tracing = err.Error()
	} else {
		for _, p := range t.Probes() {
			h.Probes = append(h.Probes, hostProbe{p.Name, p.Reason})
		}
		errs = append(errs, t.Close())
	}
	box, err := launch.New(context.Background(), launch.Options{Isolated: os.Geteuid() == 0, CPUs: 2, CPUQuota: 1, MemoryMB: 1024})
	if err != nil {
		h.Environment = err.Error()
		return h, errors.Join(errs...)
	}
	s := box.Settings()
	h.Namespaces, h.Isolated, h.Cgroup = s.Namespaces, s.Isolated, s.CgroupVersion
	h.Missing = append(h.Missing, s.Missing...)
	return h, errors.Join(append(errs, box.Close())...)
}
