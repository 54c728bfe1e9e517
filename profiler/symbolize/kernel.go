package symbolize

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

// ErrKernelRestricted says that the kernel hides its addresses.
var ErrKernelRestricted = errors.New("/proc/kallsyms shows no addresses: " +
	"kernel functions stay unnamed; run as root, or set sysctl kernel.kptr_restrict to 0 (1 for root alone)")

// maxKallsyms bounds the text of /proc/kallsyms; it has about 6 MB.
const maxKallsyms = 256 << 20

// Kernel holds the functions of the running kernel and its modules.
type Kernel struct {
	BuildID string

	addresses []uint64
	names     []uint32 // start of each name in text
	text      []byte
}

// ReadKernel reads /proc/kallsyms and the kernel's build ID. It takes some 100
// ms: do it once, and not within a recorded window. The error wraps
// ErrKernelRestricted if addresses are hidden.
func ReadKernel() (*Kernel, error) {
	f, err := os.Open("/proc/kallsyms")
	if err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	defer func() { _ = f.Close() }()
	k, err := parseKallsyms(f)
	if err != nil {
		return nil, err
	}
	if notes, err := os.ReadFile("/sys/kernel/notes"); err == nil {
		k.BuildID, _ = parseNotes(notes)
	}
	return k, nil
}

// parseKallsyms reads lines "address type name[\t[module]]" (proc(5)) and keeps
// the functions, which have the types t, T, w and W.
func parseKallsyms(r io.Reader) (*Kernel, error) {
	type entry struct {
		address uint64
		name    uint32
		global  bool
	}
	var entries []entry
	k := &Kernel{}
	lines := bufio.NewScanner(io.LimitReader(r, maxKallsyms))
	lines.Buffer(make([]byte, 64<<10), 64<<10)
	hidden := true
	for lines.Scan() {
		line := lines.Bytes()
		address, rest, ok := hexPrefix(line)
		if !ok || len(rest) < 4 || rest[0] != ' ' || rest[2] != ' ' {
			continue
		}
		if address == 0 {
			continue
		}
		hidden = false
		typ := rest[1]
		if typ != 't' && typ != 'T' && typ != 'w' && typ != 'W' {
			continue
		}
		name := rest[3:]
		if i := bytes.IndexAny(name, " \t"); i >= 0 {
			name = name[:i]
		}
		entries = append(entries, entry{address, uint32(len(k.text)), typ == 'T' || typ == 'W'})
		k.text = append(append(k.text, name...), 0)
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("kernel symbols: %w", err)
	}
	if hidden {
		return nil, ErrKernelRestricted
	}
	slices.SortStableFunc(entries, func(a, b entry) int {
		switch {
		case a.address != b.address:
			if a.address < b.address {
				return -1
			}
			return 1
		case a.global != b.global:
			if a.global {
				return -1
			}
			return 1
		}
		return 0
	})
	entries = slices.CompactFunc(entries, func(a, b entry) bool { return a.address == b.address })
	for _, e := range entries {
		k.addresses = append(k.addresses, e.address)
		k.names = append(k.names, e.name)
	}
	return k, nil
}

func hexPrefix(b []byte) (v uint64, rest []byte, ok bool) {
	for i, c := range b {
		switch {
		case c >= '0' && c <= '9':
			v = v<<4 | uint64(c-'0')
		case c >= 'a' && c <= 'f':
			v = v<<4 | uint64(c-'a'+10)
		default:
			return v, b[i:], i > 0 && i <= 16
		}
	}
	return v, nil, len(b) > 0 && len(b) <= 16
}

// Name returns the function that holds an address, or "". Functions reach to
// the next one: kallsyms knows no sizes. The last one is given 64 KB.
func (k *Kernel) Name(address uint64) string {
	i, exact := slices.BinarySearch(k.addresses, address)
	if !exact {
		i--
	}
	if i < 0 || i == len(k.addresses)-1 && address-k.addresses[i] >= 64<<10 {
		return ""
	}
	name := cString(k.text[k.names[i]:])
	// Compilers' suffixes of static clones say nothing to a reader.
	name, _, _ = strings.Cut(name, ".llvm.")
	return name
}
