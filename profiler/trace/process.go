package trace

import (
	"cmp"
	"path"
)

// finish names and counts the threads of a process: since its last exec, for
// those before belong to another program.
func (p *Process) finish(stop int64) {
	p.End = p.Start
	if len(p.Threads) == 0 {
		p.End = stop
	}
	image, ordinal := 0, 0
	for _, t := range p.Threads {
		p.End = max(p.End, t.End)
		for image < len(p.Execs) && p.Execs[image].Time <= t.Start {
			image++
			ordinal = 1 // 0 is the thread that called exec
		}
		t.Ordinal = ordinal
		ordinal++
	}
	leader := ""
	if len(p.Execs) > 0 {
		last := p.Execs[len(p.Execs)-1]
		leader = path.Base(last.Path)
		for _, t := range p.Threads {
			if t.Start <= last.Time && last.Time < t.End {
				t.Ordinal = 0
			}
		}
	}
	for _, t := range p.Threads {
		if t.Name == "" {
			t.Name = cmp.Or(leader, p.Threads[0].Name, "thread")
		}
	}
}
