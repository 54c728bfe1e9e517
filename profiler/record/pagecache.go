package record

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/initprof/initprof/profiler/launch"
	"github.com/initprof/initprof/profiler/trace"
)

// pageCache drops the subject's files from memory before each cold start.
type pageCache struct {
	files []string
}

// find learns from the events of one cold start which files the subject maps
// and opens. Without any only its executable is known.
func (p *pageCache) find(command string, events []trace.Event) {
	seen := map[string]bool{}
	add := func(path string) {
		if !filepath.IsAbs(path) || seen[path] {
			return
		}
		seen[path] = true
		for _, pseudo := range []string{"/proc/", "/sys/", "/dev/"} {
			if strings.HasPrefix(path, pseudo) {
				return
			}
		}
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			p.files = append(p.files, path)
		}
	}
	add(command)
	for _, e := range events {
		switch e := e.(type) {
		case *trace.Mapping:
			add(e.Path)
		case *trace.Syscall:
			if e.Path != "" && e.Return >= 0 {
				add(e.Path)
			}
		}
	}
	slices.Sort(p.files)
}

// drop empties the page cache of the files, and returns those of which pages
// stayed, since other processes keep them mapped.
func (p *pageCache) drop() (residual []launch.Residual, err error) {
	for _, file := range p.files {
		if err := launch.EvictPageCache([]string{file}); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	all, err := launch.ResidualPages(p.files)
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(all, func(r launch.Residual) bool { return r.Resident == 0 }), nil
}

// prepareCache drops the pages for one cold start. What stays is avoided by
// private copies where the box can have them, and told otherwise.
func (s *session) prepareCache() error {
	residual, err := s.cache.drop()
	if err != nil {
		return err
	}
	s.opts.ColdStart.Copies, s.opts.ColdStart.Boxed = nil, nil
	for _, r := range residual {
		if r.Path != s.opts.ColdStart.Command[0] && os.Geteuid() == 0 {
			s.opts.ColdStart.Copies = append(s.opts.ColdStart.Copies, r.Path)
			continue
		}
		s.warn(fmt.Sprintf("page cache: pages of %s stay in memory, since another process keeps them mapped", r.Path))
	}
	if len(s.opts.ColdStart.Copies) > 0 && s.tracer != nil {
		s.opts.ColdStart.Boxed = s.probeCopies
	}
	return nil
}

// probeCopies probes the copies that this cold start runs from: a uprobe
// belongs to a file and not to its name.
func (s *session) probeCopies(b *launch.Box) {
	points := slices.Clone(s.points)
	for i := range points {
		points[i].File = b.Copy(points[i].Path)
	}
	s.tracer.WatchPoints(points)
	if g := s.goroutines.plan; g != nil {
		of := *g
		of.File = b.Copy(g.Path)
		s.tracer.WatchGoroutines(&of, nil)
	}
}

// warn notes a warning once.
func (s *session) warn(text string) {
	if !slices.Contains(s.manifest.Head.Warnings, text) {
		s.manifest.Head.Warnings = append(s.manifest.Head.Warnings, text)
	}
}
