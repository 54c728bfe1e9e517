// Package launch starts the subject of a cold start: it builds the execution
// environment (a Box: namespaces, cgroup, hosts file), keeps each process of it
// before its exec until the profiler is ready (Hold, Release), and ends all of
// it, however initprof itself ends.
//
// It stands before the data flow: it imports no other package of initprof, and
// what it starts is what probe and capture then watch.
//
// # The holder
//
// What waits in front of the subject's exec is part of the subject's first
// microseconds: execve has to kill the other threads of the caller and to tear
// down its address space, and rusage counts the caller's faults and CPU time as
// the subject's. A Go process is a bad caller for that reason: initprof
// re-executed takes milliseconds of it. So initprof writes the holder itself: a
// static ELF image of a few pages, in a memfd, that holds a list of system calls
// and the few bytes of code which make them one after another (see program). It
// is forked by a thread that has entered the box's namespaces, so that initprof
// is its parent and waits for it. It announces itself to BPF, waits on its
// pipe, and execs.
//
// # The watchdog
//
// PID 1 of the box is the same kind of image. It makes the mounts of the box,
// then reads from a pipe whose other end only initprof has. At end of file it
// exits, and the kernel ends with it all that is inside: so nothing survives
// initprof, not even a SIGKILL of it. Orphans are reaped by the kernel, since
// the watchdog ignores SIGCHLD. Cgroups that are left then are removed by
// CleanStale, at initprof's next start.
//
// # Without root
//
// Where namespaces cannot be had the box is plain: processes of the caller's
// user in sessions of their own, each with a guard of the same kind of image
// that kills its process group should initprof die. What is missing stands in
// Settings, with its reason.
package launch
