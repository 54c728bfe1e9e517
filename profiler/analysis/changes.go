package analysis

import (
	"cmp"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
)

// ownNumbers are the parts of paths that differ in each cold start: PIDs, and
// initprof's own cgroups.
var ownNumbers = regexp.MustCompile(`(^/proc/|/task/|/initprof-)\d+(-\d+)?`)

// listed is one side of what two runs list.
type listed struct {
	ns    *int64 // nil: unknown
	count *float64
}

// listing is all that a run lists of one kind; nil: it did not record it.
type listing map[string]*listed

// add sums up what has the same key.
func (l listing) add(key string, ns *int64, count float64) {
	x := l[key]
	if x == nil {
		x = &listed{count: new(float64(0))}
		l[key] = x
	}
	*x.count += count
	if ns != nil {
		if x.ns == nil {
			x.ns = new(int64(0))
		}
		*x.ns += *ns
	}
}

// listOf gives a listing of what was recorded, nil of what was not.
func listOf[T any](items []T, add func(listing, *T)) listing {
	if items == nil {
		return nil
	}
	l := listing{}
	for i := range items {
		add(l, &items[i])
	}
	return l
}

// lists compares what both runs list.
func (d *Diff) lists(b, a *Report) {
	d.Syscalls = d.compare("syscalls", b, a, func(r *Report) listing {
		return listOf(r.Syscalls, func(l listing, x *Syscall) { l.add(x.Name, &x.NS, x.Count) })
	})
	d.Packages = d.compare("packages", b, a, func(r *Report) listing {
		return listOf(r.Packages, func(l listing, x *Package) { l.add(x.Path, &x.NS, 0) })
	})
	d.Certs = d.compare("certs", b, a, func(r *Report) listing {
		return listOf(r.Certs, func(l listing, x *Cert) { l.add(cmp.Or(x.Path, x.Function), &x.NS, 0) })
	})
	d.Goroutines = d.compare("goroutines", b, a, func(r *Report) listing {
		return listOf(r.Goroutines, func(l listing, x *Goroutine) { l.add(x.Function, new(x.RunningNS+x.SyscallNS), 1) })
	})
	d.Files = d.compare("files", b, a, func(r *Report) listing {
		return listOf(r.Files, func(l listing, x *File) { l.add(ownNumbers.ReplaceAllString(x.Path, "${1}N"), &x.NS, x.Opens) })
	})
	d.Requests = d.compare("requests", b, a, func(r *Report) listing {
		return listOf(r.Requests, func(l listing, x *Request) { l.add(x.Method+" "+x.Path, x.NS, 1) })
	})
	d.Dlopens = d.compare("dlopens", b, a, func(r *Report) listing {
		return listOf(r.Dlopens, func(l listing, x *Dlopen) {
			key := cmp.Or(x.Path, "[the program]")
			if !x.OK {
				key += " (failed)"
			}
			l.add(key, x.NS, x.Count)
		})
	})
	d.Allocator = d.compare("allocators", b, a, func(r *Report) listing {
		return listOf(r.Allocator, func(l listing, x *Allocation) { l.add(x.Name+": "+x.Function, &x.NS, 0) })
	})
	d.Binding = d.compare("binding", b, a, func(r *Report) listing {
		if r.Binding == nil {
			return nil
		}
		return listOf(r.Binding.Symbols, func(l listing, x *BoundSymbol) {
			object := x.Object
			if len(r.Subject.Command) > 0 && object == r.Subject.Command[0] {
				object = "[the program]"
			}
			l.add(path.Base(object)+": "+cmp.Or(x.Name, "[unnamed]")+" ("+x.Mode+")", x.NS, x.Count)
		})
	})
	if len(d.oneSided) > 0 {
		d.Warnings = append(d.Warnings, "only one run recorded these, which are not compared: "+strings.Join(d.oneSided, ", "))
	}
}

// compare lists what changed, the greatest change first.
func (d *Diff) compare(name string, b, a *Report, of func(*Report) listing) []Change {
	before, after := of(b), of(a)
	if before == nil && after == nil {
		return nil
	}
	if before == nil || after == nil {
		d.oneSided = append(d.oneSided, name)
		return nil
	}
	changes := []Change{}
	for key, x := range before {
		y := after[key]
		if y == nil {
			changes = append(changes, Change{Key: key, Status: StatusVanished, Before: x.ns, BeforeCount: counted(x)})
			continue
		}
		c := Change{Key: key, Before: x.ns, After: y.ns, BeforeCount: counted(x), AfterCount: counted(y)}
		change := cmp.Compare(*y.count, *x.count)
		if x.ns != nil && y.ns != nil && *x.ns != *y.ns {
			change = cmp.Compare(*y.ns, *x.ns)
		}
		switch {
		case change > 0:
			c.Status = StatusGrew
		case change < 0:
			c.Status = StatusShrank
		default:
			continue
		}
		changes = append(changes, c)
	}
	for key, y := range after {
		if before[key] == nil {
			changes = append(changes, Change{Key: key, Status: StatusAppeared, After: y.ns, AfterCount: counted(y)})
		}
	}
	difference := func(c *Change) float64 {
		return max(deref(c.AfterCount)-deref(c.BeforeCount), deref(c.BeforeCount)-deref(c.AfterCount))
	}
	slices.SortFunc(changes, func(x, y Change) int {
		xNS, _ := x.Delta()
		yNS, _ := y.Delta()
		return cmp.Or(cmp.Compare(size(yNS), size(xNS)), cmp.Compare(difference(&y), difference(&x)), cmp.Compare(x.Key, y.Key))
	})
	if n := len(changes); n > mostChanges {
		changes = changes[:mostChanges]
		d.Warnings = append(d.Warnings, fmt.Sprintf("of %s, %d that changed least are left out", name, n-mostChanges))
	}
	return changes
}

// counted is absent of what is not counted.
func counted(x *listed) *float64 {
	if *x.count == 0 {
		return nil
	}
	return x.count
}
