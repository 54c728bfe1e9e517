package symbolize

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PackageInit is the initialisation of one Go package: its variables, then its
// init functions.
type PackageInit struct {
	Path      string // import path, such as "crypto/x509"
	Task      uint64 // address of its runtime.initTask
	FirstFunc uint64 // address of the first function that it runs
	Funcs     int    // how many it runs
}

// ErrNotGo is returned, wrapped, for an object that is no Go program.
var ErrNotGo = errors.New("not a Go program")

// moduleInittasks is the word of moduledata.inittasks by Go's minor version
// (runtime/symtab.go of go1.22 to go1.26).
var moduleInittasks = map[int]int{22: 58, 23: 58, 24: 58, 25: 58, 26: 59}

const (
	maxPackages  = 1 << 16
	maxInitFuncs = 1 << 12 // of one package
)

// PackageInits returns the package initialisations of a Go program in the order
// in which they run, those with nothing to do left out, as the linker leaves
// them out. The runtime runs its own first, and so those of the packages below
// it, which are in the list all the same. It needs no symbols; the error says
// why a list cannot be had, and wraps ErrNotGo if there is none.
func (o *Object) PackageInits() (inits []PackageInit, err error) {
	defer func() {
		if p := recover(); p != nil {
			inits, err = nil, malformed{p}
		}
	}()
	t := o.goTable()
	if t == nil {
		return nil, ErrNotGo
	}
	_, version := o.Language()
	word, err := inittasksWord(version)
	if err != nil {
		return nil, err
	}
	m := o.findModule(t)
	if m == nil || len(m.words) < word+3 {
		return nil, errors.New("package inits: no moduledata")
	}
	list, n, capacity := m.words[word], m.words[word+1], m.words[word+2]
	if n == 0 || n != capacity || n > maxPackages {
		return nil, fmt.Errorf("package inits: moduledata has a slice of %d, capacity %d, where %s keeps them", n, capacity, version)
	}
	relocations := o.relativeRelocations()
	tasks, err := o.relocatedWords(list, n, relocations)
	if err != nil {
		return nil, fmt.Errorf("package inits: %w", err)
	}
	for _, task := range tasks {
		p, err := o.packageInit(t, task, relocations)
		if err != nil {
			return nil, err
		}
		inits = append(inits, p)
	}
	return inits, nil
}

// inittasksWord returns where moduledata keeps the list in a version of Go.
func inittasksWord(version string) (int, error) {
	digits, ok := strings.CutPrefix(version, "go1.")
	if i := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' }); i >= 0 {
		digits = digits[:i] // of go1.26.8, go1.26rc1
	}
	minor, err := strconv.Atoi(digits)
	if err != nil || !ok {
		return 0, fmt.Errorf("package inits: Go version %q is not known", version)
	}
	word, ok := moduleInittasks[minor]
	if !ok {
		return 0, fmt.Errorf("package inits: where go1.%d keeps them is not known; go1.22 to go1.26 are", minor)
	}
	return word, nil
}

// packageInit reads a runtime.initTask: state and number of functions, both 32
// bits, and the functions' addresses. The package is the first one's, as
// GODEBUG=inittrace=1 has it.
func (o *Object) packageInit(t *goTable, task uint64, relocations []relocation) (PackageInit, error) {
	head, err := o.ReadAddress(task, 8)
	if err != nil || len(head) < 8 {
		return PackageInit{}, fmt.Errorf("package inits: task at %#x is not in the file", task)
	}
	n := le.Uint32(head[4:])
	if n == 0 || n > maxInitFuncs {
		return PackageInit{}, fmt.Errorf("package inits: task at %#x has %d functions", task, n)
	}
	first, err := o.relocatedWords(task+8, 1, relocations)
	if err != nil {
		return PackageInit{}, fmt.Errorf("package inits: %w", err)
	}
	f, ok := t.function(t.findFunc(first[0]))
	if !ok || f.entry != first[0] {
		return PackageInit{}, fmt.Errorf("package inits: task at %#x leads to %#x, which is no function", task, first[0])
	}
	return PackageInit{Path: packagePath(t.funcName(f.name)), Task: task, FirstFunc: f.entry, Funcs: int(n)}, nil
}

// relocatedWords reads n words, with relative relocations applied.
func (o *Object) relocatedWords(address, n uint64, relocations []relocation) ([]uint64, error) {
	b, err := o.ReadAddress(address, 8*n)
	if err != nil {
		return nil, err
	}
	if uint64(len(b)) < 8*n {
		return nil, fmt.Errorf("%d words at %#x are not in the file", n, address)
	}
	words := make([]uint64, n)
	for i := range words {
		words[i] = le.Uint64(b[8*i:])
	}
	at, _ := slices.BinarySearchFunc(relocations, address, compareRelocation)
	for ; at < len(relocations) && relocations[at].address-address < 8*n; at++ {
		if d := relocations[at].address - address; d%8 == 0 {
			words[d/8] = relocations[at].addend
		}
	}
	return words, nil
}

// packagePath returns the import path of a function's symbol: up to the first
// dot behind the last slash, where the linker escapes dots and other bytes of
// the path's last element as %xx (cmd/internal/objabi, PathToPrefix).
func packagePath(symbol string) string {
	slash := strings.LastIndexByte(symbol, '/') + 1
	path := symbol
	if dot := strings.IndexByte(symbol[slash:], '.'); dot >= 0 {
		path = symbol[:slash+dot]
	}
	if !strings.Contains(path, "%") {
		return path
	}
	var b strings.Builder
	for i := 0; i < len(path); i++ {
		if path[i] == '%' && i+2 < len(path) {
			if c, err := strconv.ParseUint(path[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(c))
				i += 2
				continue
			}
		}
		b.WriteByte(path[i])
	}
	return b.String()
}
