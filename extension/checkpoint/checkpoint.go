package checkpoint

import "sync/atomic"

// Kinds of marks, as mark passes them.
const (
	kindReach uintptr = iota
	kindBegin
	kindEnd
)

// logging is set once LogTo has been called. It is all that a call looks at
// besides mark.
var logging atomic.Bool

// Reach declares that the program has reached the checkpoint of that name.
// It allocates nothing and takes a few nanoseconds unless LogTo was called.
func Reach(name string) {
	mark(name, kindReach, 0)
	if logging.Load() {
		log(name, kindReach, 0)
	}
}

// Begin declares that the span of that name and id begins.
func Begin(name string, id uint64) {
	mark(name, kindBegin, uintptr(id))
	if logging.Load() {
		log(name, kindBegin, id)
	}
}

// End declares that the span of that name and id ends. It may be called on
// another goroutine than Begin.
func End(name string, id uint64) {
	mark(name, kindEnd, uintptr(id))
	if logging.Load() {
		log(name, kindEnd, id)
	}
}
