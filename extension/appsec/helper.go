package appsec

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
)

// Limits on the helper: how often it is started, how long it may take to start
// and, beside the rules' own budget, to answer, and how long its lines may be.
const (
	maxStarts   = 3
	startLimit  = 5 * time.Second
	answerLimit = time.Second
	maxLine     = 1 << 20
)

// helper is the program that runs the firewall. Only one goroutine uses it.
type helper struct {
	options Options
	closing context.Context // ends the process whatever it does
	forget  func() bool     // stops watching closing
	process *os.Process     // nil: not running
	in, out *os.File
	lines   *bufio.Reader
	starts  int
}

// line is what the helper writes.
type line struct {
	Tags
	Ready bool   `json:"ready"`
	Error string `json:"error"`
}

// start runs the program and waits until its rules are compiled.
func (h *helper) start() error {
	h.starts++
	childIn, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	out, childOut, err := os.Pipe()
	if err == nil {
		h.in, h.out, h.lines = in, out, bufio.NewReader(out)
		argv := []string{h.options.Helper, "-budget", h.options.Budget.String(), "-rules", h.options.Rules}
		// It needs nothing of the environment, the key least of all. It ends when
		// its input does: an extension that is killed leaves no helper behind.
		h.process, err = os.StartProcess(h.options.Helper, argv, &os.ProcAttr{
			Env: []string{}, Files: []*os.File{childIn, childOut, os.Stderr},
		})
		_ = childOut.Close()
	}
	_ = childIn.Close()
	if err != nil {
		h.stop()
		return fmt.Errorf("%w: starting the helper: %w", ErrUnavailable, err)
	}
	_ = h.out.SetReadDeadline(time.Now().Add(startLimit))
	process := h.process
	h.forget = context.AfterFunc(h.closing, func() {
		_ = process.Kill()
		_ = out.SetReadDeadline(time.Unix(1, 0)) // a child of its own may keep the pipe open
	})
	l, err := h.read()
	switch {
	case err != nil:
		err = fmt.Errorf("%w: the helper: %w%s", ErrUnavailable, err, h.stop())
	case !l.Ready:
		h.starts = maxStarts // it would say the same again
		_ = h.stop()
		err = fmt.Errorf("%w: the helper: %s", ErrUnavailable, l.Error)
	}
	return err
}

// ask puts one question. A helper that breaks or hangs is started again a few
// times; the question is lost.
func (h *helper) ask(j job) (Tags, error) {
	if h.process == nil {
		if h.starts >= maxStarts || j.kind == "answer" { // has been said
			return Tags{}, nil
		}
		if err := h.start(); err != nil {
			return Tags{}, err
		}
	}
	head := append(append(append([]byte(`{"invocation":`), strconv.FormatUint(j.invocation, 10)...), `,"kind":"`...), j.kind...)
	head = append(append(append(head, `","size":`...), strconv.Itoa(len(j.payload))...), "}\n"...)
	deadline := time.Now().Add(answerLimit + h.options.Budget)
	_ = h.in.SetWriteDeadline(deadline)
	_ = h.out.SetReadDeadline(deadline)
	_, err := h.in.Write(head)
	if err == nil {
		_, err = h.in.Write(j.payload)
	}
	var l line
	if err == nil {
		l, err = h.read()
	}
	if err != nil {
		end := h.stop()
		again := "it is started again for the next event"
		if h.starts >= maxStarts {
			again = "it is not started again"
		}
		return Tags{}, fmt.Errorf("an event was not inspected: the helper: %w%s; %s", err, end, again)
	}
	if l.Error != "" {
		h.options.Log.WarnOnce("appsec "+l.Error, "appsec: %s", l.Error)
	}
	return l.Tags, nil
}

// read reads one line, of bounded length.
func (h *helper) read() (l line, err error) {
	var text []byte
	for {
		part, err := h.lines.ReadSlice('\n')
		text = append(text, part...)
		if err == nil {
			break
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return l, errors.New("no answer in time")
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return l, errors.New("ended without an answer")
		}
		if len(text) > maxLine {
			return l, fmt.Errorf("a line of more than %d bytes", maxLine)
		}
	}
	if err := json.Unmarshal(text, &l); err != nil {
		return l, fmt.Errorf("answer: %w", err)
	}
	return l, nil
}

// stop ends the process, and says how it ended if it had done so itself.
func (h *helper) stop() (how string) {
	for _, f := range []*os.File{h.in, h.out} {
		if f != nil {
			_ = f.Close()
		}
	}
	h.in, h.out = nil, nil
	if h.process == nil {
		return ""
	}
	if h.forget != nil {
		h.forget()
	}
	_ = h.process.Kill()
	if state, err := h.process.Wait(); err == nil && state.String() != "signal: killed" {
		how = " (" + state.String() + ")"
	}
	h.process = nil
	return how
}
