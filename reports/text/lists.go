package text

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/analysis"
	"github.com/initprof/initprof/reports/figure"
)

func sumSyscalls(calls []analysis.Syscall) (count float64, ns int64) {
	for _, c := range calls {
		count, ns = count+c.Count, ns+c.NS
	}
	return count, ns
}

// each says over what sums are.
func each(r *analysis.Report) string {
	if len(r.Runs) == 1 {
		return ""
	}
	return " per cold start"
}

// known prints a count that is dull when it is zero.
func known(v float64) cell {
	if v == 0 {
		return cell{"0", dim}
	}
	return cell{text: figure.Count(v)}
}

func (p *printer) more(n int, what string) {
	if n > 0 {
		p.line(strings.Repeat(" ", indent) + p.paint(fmt.Sprintf("… %d more%s", n, what), dim))
	}
}

func (p *printer) syscalls(r *analysis.Report) {
	if len(r.Syscalls) == 0 {
		return
	}
	count, total := sumSyscalls(r.Syscalls)
	p.heading("system calls", fmt.Sprintf("%s, %s in them%s, waiting included, over all threads",
		figure.Count(count), figure.Duration(float64(total)), each(r)))
	t := &table{columns: []column{{name: "name", left: true, flex: true}, {name: "count"}, {name: "errors"}, {name: "time"}, {name: "share"}, {left: true}}}
	shown := r.Syscalls[:min(p.Rows, len(r.Syscalls))]
	for _, c := range shown {
		t.add(figure.Clean(c.Name), figure.Count(c.Count), known(c.Errors), figure.Duration(float64(c.NS)),
			figure.Percent(float64(c.NS), float64(total)), cell{bar(0, c.NS, total, 20), green})
	}
	p.print(t)
	rest := r.Syscalls[len(shown):]
	restCount, restNS := sumSyscalls(rest)
	p.more(len(rest), fmt.Sprintf(": %s calls, %s", figure.Count(restCount), figure.Duration(float64(restNS))))
}

func (p *printer) faults(r *analysis.Report) {
	f := r.Faults
	if f == nil || f.Minor+f.Major == 0 {
		return
	}
	p.heading("page faults", fmt.Sprintf("%s minor, %s major, %s in them%s", figure.Count(f.Minor), figure.Count(f.Major),
		figure.Duration(float64(f.NS)), each(r)))
	t := &table{columns: []column{{name: "mapping", left: true, flex: true}, {name: "kind", left: true, quiet: true}, {name: "minor"}, {name: "major"}, {name: "time"}, {name: "share"}}}
	shown := f.ByMapping[:min(p.Rows, len(f.ByMapping))]
	for _, m := range shown {
		major := known(m.Major)
		if m.Major > 0 {
			major.ink = red
		}
		t.add(figure.Clean(m.Mapping), figure.Clean(m.Kind), figure.Count(m.Minor), major, figure.Duration(float64(m.NS)),
			figure.Percent(float64(m.NS), float64(f.NS)))
	}
	p.print(t)
	var restFaults float64
	var restNS int64
	rest := f.ByMapping[len(shown):]
	for _, m := range rest {
		restFaults, restNS = restFaults+m.Minor+m.Major, restNS+m.NS
	}
	p.more(len(rest), fmt.Sprintf(": %s faults, %s", figure.Count(restFaults), figure.Duration(float64(restNS))))
}

func (p *printer) requests(r *analysis.Report) {
	if len(r.Requests) == 0 {
		return
	}
	p.heading("requests", "to the runtime API, since exec")
	t := &table{columns: []column{{name: "request", left: true, flex: true}, {name: "start"}, {name: "until read"}, {name: "status"}}}
	shown := r.Requests[:min(2*p.Rows, len(r.Requests))]
	for _, q := range shown {
		status := cell{"–", dim}
		if q.Status != nil {
			status = cell{fmt.Sprint(*q.Status), plain}
			if *q.Status >= 400 {
				status.ink = red
			}
		}
		ns := cell{"unanswered", dim}
		if q.NS != nil {
			ns = cell{text: figure.Duration(float64(*q.NS))}
		}
		t.add(figure.Clean(q.Method+" "+q.Path), figure.Duration(float64(q.StartNS)), ns, status)
	}
	p.print(t)
	p.more(len(r.Requests)-len(shown), "")
}

func (p *printer) files(r *analysis.Report) {
	if len(r.Files) == 0 {
		return
	}
	var opens float64
	for _, f := range r.Files {
		opens += f.Opens
	}
	p.heading("files", fmt.Sprintf("%s, %s opens%s", plural(len(r.Files), "path"), figure.Count(opens), each(r)))
	t := &table{columns: []column{{name: "path", left: true, flex: true}, {name: "opens"}, {name: "read"}, {name: "time"}, {left: true, quiet: true}}}
	shown := r.Files[:min(p.Rows, len(r.Files))]
	for _, f := range shown {
		t.add(figure.Clean(f.Path), figure.Count(f.Opens), figure.Bytes(f.Bytes), figure.Duration(float64(f.NS)), figure.Clean(f.Category))
	}
	p.print(t)
	p.more(len(r.Files)-len(shown), "")
}

// imports prints the modules that were followed latest.
func (p *printer) imports(r *analysis.Report) {
	if len(r.Imports) == 0 {
		return
	}
	modules := slices.Clone(r.Imports)
	until := func(i analysis.Import) int64 {
		if i.NS == nil {
			return -1
		}
		return *i.NS
	}
	slices.SortStableFunc(modules, func(x, y analysis.Import) int { return cmp.Compare(until(y), until(x)) })
	p.heading("imports", plural(len(modules), "module")+"; until next: until its thread opens another, so without what it imports")
	t := &table{columns: []column{{name: "module", left: true, flex: true}, {name: "start"}, {name: "until next"}, {name: "probes"}, {name: "opens"}}}
	shown := modules[:min(p.Rows, len(modules))]
	for _, m := range shown {
		ns := cell{"–", dim}
		if m.NS != nil {
			ns = cell{text: figure.Duration(float64(*m.NS))}
		}
		t.add(figure.Clean(m.Module), figure.Duration(float64(m.StartNS)), ns, figure.Count(m.Probes), figure.Count(m.Opens))
	}
	p.print(t)
	p.more(len(modules)-len(shown), "")
}

func (p *printer) threads(r *analysis.Report) {
	if len(r.Threads) == 0 {
		return
	}
	p.heading("threads", plural(len(r.Threads), "thread")+", time inside the window"+each(r))
	t := &table{columns: []column{{name: "thread", left: true, flex: true}, {name: "on CPU"}, {name: "runnable"}, {name: "waiting"}, {left: true}}}
	shown := r.Threads[:min(p.Rows, len(r.Threads))]
	for _, th := range shown {
		name := figure.Clean(th.Name)
		if th.TID != 0 {
			name += fmt.Sprintf(" (%d)", th.TID)
		}
		total := th.OnCPUNS + th.RunnableNS + th.WaitingNS
		t.add(name, figure.Duration(float64(th.OnCPUNS)), figure.Duration(float64(th.RunnableNS)), figure.Duration(float64(th.WaitingNS)),
			cell{bar(0, th.OnCPUNS, total, 20), green})
	}
	p.print(t)
	p.more(len(r.Threads)-len(shown), "")
}

// quality prints what the figures rest on: the tracer's overhead, losses,
// truncated stacks and what could not be observed.
func (p *printer) quality(r *analysis.Report) {
	var parts []string
	if o := r.Overhead; o != nil {
		if o.Ratio != nil && o.TracedP50NS != nil && o.UntracedP50NS != nil {
			parts = append(parts, fmt.Sprintf("overhead of tracing %s: release → /next %s traced, %s untraced (medians)",
				figure.Signed(*o.TracedP50NS-*o.UntracedP50NS, figure.Percent(*o.Ratio-1, 1)),
				figure.Duration(float64(*o.TracedP50NS)), figure.Duration(float64(*o.UntracedP50NS))))
		}
		if o.EventsPerRun != nil {
			parts = append(parts, figure.Count(*o.EventsPerRun)+" events per cold start")
		}
		if o.EstimatedNS != nil {
			parts = append(parts, hits(r.Probes)+figure.Duration(float64(*o.EstimatedNS))+" by what a hit costs on x86-64")
		}
		if o.TracerCPUNS != nil {
			parts = append(parts, figure.Duration(float64(*o.TracerCPUNS))+" of the tracer's own CPU time")
		}
	}
	var lost int64
	knownLosses := false
	for _, run := range r.Runs {
		if run.LostEvents != nil {
			lost, knownLosses = lost+*run.LostEvents, true
		}
	}
	if knownLosses && lost == 0 {
		parts = append(parts, "no event lost")
	}
	if s := r.Stacks; s != nil {
		var truncated float64
		var reasons []string
		for _, c := range s.Truncated {
			if c.Count > 0 {
				truncated += c.Count
				reasons = append(reasons, figure.Count(c.Count)+" "+figure.Clean(c.Reason))
			}
		}
		if all := s.Complete + truncated; all > 0 {
			text := figure.Percent(s.Complete, all) + " of user stacks complete"
			if len(reasons) > 0 {
				text += " (else: " + strings.Join(reasons, ", ") + ")"
			}
			parts = append(parts, text)
		}
	}
	var unavailable []analysis.Probe
	for _, probe := range r.Probes {
		if probe.Status == analysis.ProbeUnavailable {
			unavailable = append(unavailable, probe)
		}
	}
	if len(parts) == 0 && lost == 0 && len(unavailable) == 0 {
		return
	}
	p.heading("measurement", "")
	for _, part := range parts {
		p.wrap(part, indent, plain)
	}
	if lost > 0 {
		p.wrap(fmt.Sprintf("! %s lost: figures are lower bounds", plural(int(lost), "event")), indent, red)
	}
	for _, probe := range unavailable {
		text := "unavailable: " + figure.Clean(probe.Name)
		if probe.Reason != "" {
			text += " — " + figure.Clean(probe.Reason)
		}
		p.wrap(text, indent, yellow)
	}
}

// hits says how often instructions of the subject were probed.
func hits(probes []analysis.Probe) string {
	var count, uprobes float64
	var ns int64
	for _, p := range probes {
		if !strings.HasPrefix(p.Name, "uprobe ") || p.Hits == nil || p.EstimatedNS == nil {
			continue
		}
		uprobes++
		count += *p.Hits
		ns += *p.EstimatedNS
	}
	if uprobes == 0 {
		return "estimated cost of all probes "
	}
	return fmt.Sprintf("%s hit %s times, estimated cost %s; of all probes ", plural(int(uprobes), "uprobe"),
		figure.Count(count), figure.Duration(float64(ns)))
}

var outcomes = map[string]string{
	analysis.OutcomeCrashed:       "crashed before the end of INIT",
	analysis.OutcomeExited:        "exited before the end of INIT",
	analysis.OutcomeKilled:        "was killed before the end of INIT",
	analysis.OutcomeInitError:     "reported an error of its initialization",
	analysis.OutcomeTimeout:       "had not ended INIT in time",
	analysis.OutcomeNotExecutable: "could not be executed",
}

// failures prints a sentence for each way in which cold starts failed, and the
// subject's last output.
func (p *printer) failures(r *analysis.Report) {
	type failure struct {
		first *analysis.Run
		runs  []string
	}
	var kinds []string
	failures := map[string]*failure{}
	for i := range r.Runs {
		run := &r.Runs[i]
		if run.Outcome == analysis.OutcomeOK || run.Outcome == "" {
			continue
		}
		f := failures[run.Outcome]
		if f == nil {
			f = &failure{first: run}
			failures[run.Outcome] = f
			kinds = append(kinds, run.Outcome)
		}
		f.runs = append(f.runs, fmt.Sprint(run.Index))
	}
	if len(kinds) == 0 {
		return
	}
	p.heading("failed cold starts", "")
	for _, kind := range kinds {
		f := failures[kind]
		sentence := outcomes[kind]
		if sentence == "" {
			sentence = "ended as " + figure.Clean(kind)
		}
		who := "the subject " + sentence + " in cold start "
		if len(f.runs) > 1 {
			who = "the subject " + sentence + " in cold starts "
		}
		const named = 10
		if len(f.runs) > named {
			f.runs = append(f.runs[:named:named], fmt.Sprintf("and %d more", len(f.runs)-named))
		}
		text := who + strings.Join(f.runs, ", ")
		if f.first.OutcomeDetail != "" {
			text += ": " + figure.Clean(f.first.OutcomeDetail)
		}
		p.wrap(text, indent, red)
		for _, line := range f.first.LastOutput {
			p.line(strings.Repeat(" ", indent) + p.paint("│ "+figure.Shorten(figure.Clean(line), p.Width-indent-2), dim))
		}
	}
}
