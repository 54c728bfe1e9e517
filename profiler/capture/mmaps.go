package capture

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/initprof/initprof/bpf"
	"github.com/initprof/initprof/profiler/trace"
)

// mmapRing collects perf's MMAP2 records of one CPU: the kernel's own account
// of what was mapped where, with the build ID on kernels from 5.12 on.
type mmapRing struct {
	fd     int
	memory []byte
	data   []byte // the ring, without the control page
}

const mmapRingPages = 256 // 1 MiB: some thousand mappings

// mmapTrailer is the size of what sample_id_all appends for
// PERF_SAMPLE_TID | PERF_SAMPLE_TIME.
const mmapTrailer = 16

func openMmapRing(cpu int) (*mmapRing, error) {
	attr := unix.PerfEventAttr{
		Type: unix.PERF_TYPE_SOFTWARE, Config: unix.PERF_COUNT_SW_DUMMY, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})),
		Sample_type: unix.PERF_SAMPLE_TID | unix.PERF_SAMPLE_TIME,
		Clockid:     unix.CLOCK_MONOTONIC,
		Bits: unix.PerfBitDisabled | unix.PerfBitMmap | unix.PerfBitMmap2 | unix.PerfBitMmapData |
			unix.PerfBitSampleIDAll | unix.PerfBitUseClockID | unix.PerfBitWatermark | perfBitBuildID,
		Wakeup: 1 << 30, // never: it is read after the cold start
	}
	fd, err := unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.EINVAL) { // before 5.12 there are no build IDs
		attr.Bits &^= perfBitBuildID
		fd, err = unix.PerfEventOpen(&attr, -1, cpu, -1, unix.PERF_FLAG_FD_CLOEXEC)
	}
	if err != nil {
		return nil, fmt.Errorf("open perf mmap records on CPU %d: %w", cpu, err)
	}
	page := os.Getpagesize()
	memory, err := unix.Mmap(fd, 0, (mmapRingPages+1)*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map perf's buffer of CPU %d: %w", cpu, errors.Join(err, unix.Close(fd)))
	}
	return &mmapRing{fd: fd, memory: memory, data: memory[page:]}, nil
}

// perfBitBuildID is attr.build_id (linux/perf_event.h).
const perfBitBuildID = 1 << 34

func (m *mmapRing) enable() error  { return unix.IoctlSetInt(m.fd, unix.PERF_EVENT_IOC_ENABLE, 0) }
func (m *mmapRing) disable() error { return unix.IoctlSetInt(m.fd, unix.PERF_EVENT_IOC_DISABLE, 0) }

func (m *mmapRing) close() error {
	return errors.Join(unix.Munmap(m.memory), unix.Close(m.fd))
}

// discard empties the ring.
func (m *mmapRing) discard() {
	control := (*unix.PerfEventMmapPage)(unsafe.Pointer(unsafe.SliceData(m.memory)))
	atomic.StoreUint64(&control.Data_tail, atomic.LoadUint64(&control.Data_head))
}

// drain calls mapped for each mapping since the last call, and returns how many
// records the kernel dropped.
func (m *mmapRing) drain(mapped func(*trace.Mapping)) (lost uint64) {
	control := (*unix.PerfEventMmapPage)(unsafe.Pointer(unsafe.SliceData(m.memory)))
	head := atomic.LoadUint64(&control.Data_head)
	tail := control.Data_tail
	for tail < head {
		header := m.copy(tail, 8)
		size := binary.LittleEndian.Uint16(header[6:])
		if size < 8 || uint64(size) > head-tail {
			break
		}
		record := m.copy(tail, int(size))
		switch binary.LittleEndian.Uint32(record) {
		case unix.PERF_RECORD_MMAP2:
			if e := parseMmap2(record); e != nil {
				mapped(e)
			}
		case unix.PERF_RECORD_LOST:
			if len(record) >= 24 {
				lost += binary.LittleEndian.Uint64(record[16:])
			}
		}
		tail += uint64(size)
	}
	atomic.StoreUint64(&control.Data_tail, head)
	return lost
}

func (m *mmapRing) copy(at uint64, n int) []byte {
	out := make([]byte, n)
	offset := int(at % uint64(len(m.data)))
	copy(out[copy(out, m.data[offset:]):], m.data)
	return out
}

// parseMmap2 reads struct perf_record_mmap2 of linux/perf_event.h, or returns
// nil for a record that is too short.
func parseMmap2(record []byte) *trace.Mapping {
	const fixed = 8 + 8 + 24 + 24 + 8
	if len(record) < fixed+mmapTrailer {
		return nil
	}
	u32 := func(at int) uint32 { return binary.LittleEndian.Uint32(record[at:]) }
	u64 := func(at int) uint64 { return binary.LittleEndian.Uint64(record[at:]) }
	path, _, _ := bytes.Cut(record[fixed:len(record)-mmapTrailer], []byte{0})
	e := &trace.Mapping{
		Header: trace.Header{Time: int64(u64(len(record) - 8)), PID: int(u32(8)), TID: int(u32(12))},
		Start:  u64(16), Limit: u64(16) + u64(24), Offset: u64(32), Prot: u32(64), Path: string(path),
	}
	misc := binary.LittleEndian.Uint16(record[4:])
	if size := int(record[40]); misc&unix.PERF_RECORD_MISC_MMAP_BUILD_ID != 0 && size <= 20 {
		e.BuildID = fmt.Sprintf("%x", record[44:44+size])
	}
	return e
}

// appendMapping appends the EVENT_MAPPING record of m.
func appendMapping(records []byte, m *trace.Mapping) []byte {
	path := m.Path
	if len(path) > maxPath {
		path = path[:maxPath]
	}
	padded := (len(path) + recordAlignment - 1) / recordAlignment * recordAlignment
	e := bpf.InitprofEventMapping{
		H: bpf.InitprofEventHeader{
			Kind: uint8(bpf.InitprofEventKindEVENT_MAPPING), TextSize: uint16(len(path)), Cpu: uint32(m.CPU),
			Tgid: uint32(m.PID), Tid: uint32(m.TID), KtimeNs: uint64(m.Time),
		},
		Start: m.Start, Limit: m.Limit, Offset: m.Offset, Prot: m.Prot,
	}
	if id, err := hex.DecodeString(m.BuildID); err == nil && len(id) <= len(e.BuildId) {
		e.BuildIdSize = uint32(copy(e.BuildId[:], id))
	}
	size := int(unsafe.Sizeof(e))
	e.H.Size = uint16(size + padded)
	records = append(records, unsafe.Slice((*byte)(unsafe.Pointer(&e)), size)...)
	records = append(records, path...)
	return append(records, make([]byte, padded-len(path))...)
}

const maxPath = 4096

// processMappings reads /proc/PID/maps. Its entries have the time of at.
func processMappings(pid int, at int64) ([]*trace.Mapping, error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/maps")
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	var found []*trace.Mapping
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if m := parseMapsLine(lines.Text()); m != nil {
			m.Time, m.PID, m.TID = at, pid, pid
			found = append(found, m)
		}
	}
	return found, lines.Err()
}

// parseMapsLine reads one line of /proc/PID/maps (proc(5)), or returns nil.
func parseMapsLine(line string) *trace.Mapping {
	fields := strings.Fields(line)
	if len(fields) < 5 {
		return nil
	}
	from, to, ok := strings.Cut(fields[0], "-")
	if !ok {
		return nil
	}
	start, err1 := strconv.ParseUint(from, 16, 64)
	limit, err2 := strconv.ParseUint(to, 16, 64)
	offset, err3 := strconv.ParseUint(fields[2], 16, 64)
	if errors.Join(err1, err2, err3) != nil || limit < start {
		return nil
	}
	m := &trace.Mapping{Start: start, Limit: limit, Offset: offset, Path: "//anon"}
	for i, bit := range []uint32{trace.ProtRead, trace.ProtWrite, trace.ProtExec} {
		if len(fields[1]) > i && fields[1][i] != '-' {
			m.Prot |= bit
		}
	}
	if len(fields) > 5 {
		rest := line // the path may hold spaces itself
		for range 5 {
			_, rest, _ = strings.Cut(strings.TrimLeft(rest, " "), " ")
		}
		m.Path = strings.TrimSpace(rest)
	}
	return m
}
