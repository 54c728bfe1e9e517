// Package launch starts the subject of a cold start: it builds the execution
// environment (a Box: namespaces, cgroup, user, hosts file), keeps each process
// of it before its exec until the profiler is ready (Hold, Release), and ends
// all of it, however initprof itself ends.
//
// It stands before the data flow: it imports no other package of initprof, and
// what it starts is what probe and capture then watch.
//
// # The holder
//
// What waits in front of the subject's exec is part of the subject's first
// microseconds: execve has to kill the other threads of the caller and to tear
// down its address space, and rusage counts the caller's faults, CPU time and
// peak memory as the subject's. A Go process is a bad caller for that reason:
// initprof re-executed would be several times dearer. So initprof writes the
// holder itself: a static ELF image of a few pages, in a memfd, that holds a
// list of system calls and the few bytes of code which make them one after
// another (see program).
//
// It has two stages. The first joins the box's cgroup and enters its namespaces,
// so that no thread of initprof ever does, and clones the second as a child of
// initprof, whose rusage begins at zero. The second drops to the user, closes
// what the subject must not inherit, gives back signal dispositions and resource
// limits, announces itself to BPF, waits on its pipe, and execs.
//
// # The watchdog
//
// PID 1 of the box is the same kind of image. It makes the mounts of the box,
// then reads from a pipe whose other end only initprof has. At end of file it
// kills all that is inside, removes the cgroup and the private copies, and
// exits: so nothing survives initprof, not even a SIGKILL of it. Orphans are
// reaped by the kernel, since the watchdog ignores SIGCHLD. Should the watchdog
// be killed together with initprof, CleanStale removes what is left.
//
// # Without root
//
// Where namespaces cannot be had the box is plain: processes of the caller's
// user in sessions of their own, each with a guard of the same kind of image
// that kills its process group should initprof die. What is missing stands in
// Settings, with its reason.
package launch
