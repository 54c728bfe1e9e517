package probe

// waitReasons returns the strings of runtime.waitReason of Go 1.minor, by
// value. The table has grown in places since 1.22, and 1.26 moved those of
// channels.
func waitReasons(minor int) []string {
	var all []string
	add := func(since, before int, reasons ...string) {
		if since <= minor && minor < before {
			all = append(all, reasons...)
		}
	}
	const first, ever = 22, 1 << 30
	add(first, ever, "", "GC assist marking", "IO wait")
	add(first, 26, "chan receive (nil chan)", "chan send (nil chan)")
	add(first, ever, "dumping heap", "garbage collection", "garbage collection scan", "panicwait")
	add(first, 26, "select", "select (no cases)")
	add(first, ever, "GC assist wait", "GC sweep wait", "GC scavenge wait")
	add(first, 26, "chan receive", "chan send")
	add(first, ever, "finalizer wait", "force gc (idle)")
	add(25, ever, "GOMAXPROCS updater (idle)")
	add(first, ever, "semacquire", "sleep")
	add(26, ever, "chan receive (nil chan)", "chan send (nil chan)", "select (no cases)", "select", "chan receive", "chan send")
	add(first, ever, "sync.Cond.Wait", "sync.Mutex.Lock", "sync.RWMutex.RLock", "sync.RWMutex.Lock")
	add(24, ever, "sync.WaitGroup.Wait")
	add(first, ever, "trace reader (blocked)", "wait for GC cycle", "GC worker (idle)", "GC worker (active)", "preempted",
		"debug call", "GC mark termination", "stopping the world", "flushing proc caches", "trace goroutine status",
		"trace proc status", "page trace flush", "coroutine")
	add(23, ever, "GC weak to strong wait")
	add(24, ever, "synctest.Run", "synctest.Wait")
	add(24, 25, "chan receive (synctest)", "chan send (synctest)", "select (synctest)")
	add(25, ever, "chan receive (durable)", "chan send (durable)", "select (durable)", "sync.WaitGroup.Wait (durable)", "cleanup wait")
	return all
}
