// Package usage reads from /proc and /tmp what an invocation used of its
// environment: CPU time, network, room in /tmp, file descriptors, threads. boot
// reads it when an invocation begins and when it ends, and makes metrics of the
// difference.
package usage

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// network is the interface through which a function in Lambda speaks to others.
// Where there is none of that name, all but the loopback count.
const network = "vinternal_1"

// millisecondsPerTick is 1000 / USER_HZ, which is 100 on every architecture that
// Lambda has.
const millisecondsPerTick = 10

// Snapshot is the state at one instant. All but the idle times count up from the
// start of the environment.
type Snapshot struct {
	User, System, Idle float64   // ms of CPU time, of all CPUs
	IdleOf             []float64 // ms, of each CPU
	Uptime             float64   // ms
	Received, Sent     float64   // bytes
}

// Read takes a snapshot. root is "/proc", or a copy of it.
func Read(root string) (s Snapshot, err error) {
	stat, err := os.ReadFile(root + "/stat")
	if err != nil {
		return s, err
	}
	if err := s.stat(stat); err != nil {
		return s, fmt.Errorf("%s/stat: %w", root, err)
	}
	uptime, err := os.ReadFile(root + "/uptime")
	if err != nil {
		return s, err
	}
	first, _, _ := strings.Cut(string(uptime), " ")
	seconds, err := strconv.ParseFloat(strings.TrimSpace(first), 64)
	if err != nil {
		return s, fmt.Errorf("%s/uptime: %w", root, err)
	}
	s.Uptime = 1000 * seconds
	if dev, err := os.ReadFile(root + "/net/dev"); err == nil {
		s.dev(dev)
	}
	return s, nil
}

// stat reads /proc/stat: "cpu  user nice system idle …" in ticks. (proc_stat(5))
func (s *Snapshot) stat(text []byte) error {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 5 || !strings.HasPrefix(fields[0], "cpu") {
			break // they stand at the beginning
		}
		var ms [4]float64
		for i := range ms {
			ticks, err := strconv.ParseUint(fields[i+1], 10, 64)
			if err != nil {
				return err
			}
			ms[i] = float64(ticks) * millisecondsPerTick
		}
		if fields[0] == "cpu" {
			s.User, s.System, s.Idle = ms[0]+ms[1], ms[2], ms[3] // nice is user time, too
		} else {
			s.IdleOf = append(s.IdleOf, ms[3])
		}
	}
	if len(s.IdleOf) == 0 {
		return fmt.Errorf("no CPU in it")
	}
	return nil
}

// dev reads /proc/net/dev: "NAME: bytes packets … (8 fields received) bytes …".
func (s *Snapshot) dev(text []byte) {
	lines := bufio.NewScanner(bytes.NewReader(text))
	for lines.Scan() {
		name, rest, ok := strings.Cut(lines.Text(), ":")
		fields := strings.Fields(rest)
		if name = strings.TrimSpace(name); !ok || name == "lo" || len(fields) < 9 {
			continue
		}
		received, err1 := strconv.ParseFloat(fields[0], 64)
		sent, err2 := strconv.ParseFloat(fields[8], 64)
		if err1 != nil || err2 != nil {
			continue
		}
		if name == network {
			s.Received, s.Sent = received, sent
			return
		}
		s.Received += received
		s.Sent += sent
	}
}

// Since calls add for what was used between before and s, with the names that
// aws.lambda.enhanced metrics have.
func (s *Snapshot) Since(before *Snapshot, add func(name string, value float64)) {
	user, system := s.User-before.User, s.System-before.System
	add("cpu_user_time", user)
	add("cpu_system_time", system)
	add("cpu_total_time", user+system)
	add("rx_bytes", s.Received-before.Received)
	add("tx_bytes", s.Sent-before.Sent)
	add("total_network", s.Received-before.Received+s.Sent-before.Sent)
	wall, cores := s.Uptime-before.Uptime, float64(len(s.IdleOf))
	add("num_cores", cores)
	if wall <= 0 || len(s.IdleOf) != len(before.IdleOf) {
		return // shorter than the clock's tick of 10 ms
	}
	most, least := 0.0, wall
	for i := range s.IdleOf {
		idle := s.IdleOf[i] - before.IdleOf[i]
		most, least = max(most, idle), min(least, idle)
	}
	busy := max(1-(s.Idle-before.Idle)/(wall*cores), 0)
	add("cpu_total_utilization_pct", 100*busy)
	add("cpu_total_utilization", busy*cores)
	add("cpu_max_utilization", 100*max(1-least/wall, 0))
	add("cpu_min_utilization", 100*max(1-most/wall, 0))
}

// Held calls add for what the processes of the environment hold at this instant.
// root is as in Read; tmp is "/tmp".
func Held(root, tmp string, add func(name string, value float64)) {
	var st syscall.Statfs_t
	if syscall.Statfs(tmp, &st) == nil {
		size := float64(st.Bsize)
		add("tmp_max", size*float64(st.Blocks))
		add("tmp_free", size*float64(st.Bavail))
		add("tmp_used", size*float64(st.Blocks-st.Bavail))
	}
	entries, err := os.ReadDir(root)
	if err != nil {
		return
	}
	var files, threads, maxFiles, maxThreads float64
	for _, e := range entries {
		if _, err := strconv.ParseUint(e.Name(), 10, 32); err != nil {
			continue
		}
		files += float64(count(root + "/" + e.Name() + "/fd"))
		threads += float64(count(root + "/" + e.Name() + "/task"))
		limits, err := os.ReadFile(root + "/" + e.Name() + "/limits")
		if err != nil {
			continue
		}
		maxFiles = lower(maxFiles, limit(limits, "Max open files"))
		maxThreads = lower(maxThreads, limit(limits, "Max processes"))
	}
	add("fd_use", files)
	add("threads_use", threads)
	if maxFiles > 0 {
		add("fd_max", maxFiles)
	}
	if maxThreads > 0 {
		add("threads_max", maxThreads)
	}
}

// count is the number of entries, 0 for what may not be read.
func count(dir string) int {
	entries, err := fs.ReadDir(os.DirFS(dir), ".")
	if err != nil {
		return 0
	}
	return len(entries)
}

// lower is the lower of two limits, of which 0 is none.
func lower(a, b float64) float64 {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// limit finds the soft limit in /proc/PID/limits; 0 if there is none.
func limit(text []byte, name string) float64 {
	for _, line := range strings.Split(string(text), "\n") {
		if rest, ok := strings.CutPrefix(line, name); ok {
			if fields := strings.Fields(rest); len(fields) > 0 {
				n, _ := strconv.ParseUint(fields[0], 10, 63) // or "unlimited"
				return float64(n)
			}
		}
	}
	return 0
}
