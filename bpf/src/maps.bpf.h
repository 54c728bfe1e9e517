/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
#ifndef INITPROF_MAPS_H
#define INITPROF_MAPS_H

/* What is known of a subject's thread between two events of its own. */
struct thread {
	__u32 tgid;
	__s32 syscall_nr; /* -1: in user mode, or unknown */
	__u64 syscall_ns;
	__u64 args[6];
	__u64 fault_ns; /* 0: not in a fault */
	__u64 fault_address;
	__u32 fault_in_kernel;
	__u64 go_m;	 /* its runtime.m, and the goroutine that it ran when last seen: */
	__u64 goid;	 /* goroutines.bpf.h */
	__u32 runnable;	 /* waits for a CPU: it counts in waiting_for_cpu */
	__u64 stack_top; /* where its stack began; 0: unknown */
	__u32 stack;	 /* key of the copy made in this system call; 0: none */
	__u32 pad;
	__u64 framed; /* begin of the code that keeps frame pointers; 0: none is known to */
};

/* tid → what it is doing; being in it is what makes a thread the subject's */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct thread);
} threads SEC(".maps");

/* records of events.h, in the order of their writing; the size is set at load */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} events SEC(".maps");

enum counter {
	COUNTER_LOST_RINGBUF, /* a record found no room */
	COUNTER_LOST_THREADS, /* a thread found no room in threads */
	COUNTER_LOST_FAULTS,  /* a fault began before the last one was done */
	COUNTER_LOST_CALLS, /* a call found no room among its thread's open ones, or its entry was not seen */
	COUNTER_SYSCALL_HITS,
	COUNTER_SCHED_HITS,
	COUNTER_FAULT_HITS,
	COUNTER_SAMPLE_HITS,
	COUNTER_MARK_HITS,
	COUNTER_CALL_HITS, /* entries and returns */
	COUNTER_GOROUTINE_HITS,
	COUNTER_LOST_GOROUTINES, /* a g could not be read */
	COUNTERS,
};

/* enum counter → events since the cold start began */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, COUNTERS);
	__type(key, __u32);
	__type(value, __u64);
} counters SEC(".maps");

/* 0 → which interrupt contexts this CPU is in: bits 1 << enum wake_context */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} contexts SEC(".maps");

/* Set by the tracer before and during a cold start. */
volatile __u32 active;	     /* 0: every program returns at once */
volatile __u64 nonce;	     /* what the holder announces itself with */
volatile __u64 cpu_mask;     /* the subject's CPUs */
volatile __u16 sandbox_port; /* network order; 0: requests are not looked for */
volatile __u64 wakeup_bytes; /* wake the reader when more is unread */
volatile __u64 copies_bytes; /* copy no stack when more is unread */
volatile __u32 with_stacks;  /* take stacks */

/*
 * The code that is known to keep frame pointers, so that its stacks need no
 * copy: Go's. A program is told by how far its entry is from its headers.
 */
volatile __u64 framed_program; /* AT_ENTRY - AT_PHDR; 0: there is none */
volatile __s64 framed_begin;   /* of the code, from AT_ENTRY */
volatile __u64 framed_size;
volatile __u64 callback_begin; /* of crosscall2, from the code's begin: C called it */
volatile __u64 callback_size;  /* 0: there is no C */
volatile __s32 g_in_thread;    /* of g from the thread pointer, in a program with C; 0: unknown */

/* Where runtime.g and runtime.m keep what; bytes. */
struct go_layout {
	__u16 goid;
	__u16 waitreason;
	__u16 parent;
	__u16 gopc;
	__u16 startpc;
	__u16 m;
	__u16 sched_sp;
	__u16 sched_pc;
	__u16 sched_bp;
	__u16 m_procid;
	__u16 m_curg;
	__u16 cheap; /* look at events: there is no uprobe */
	__s32 tls;   /* of g from the thread pointer (amd64) */
};

volatile struct go_layout layout; /* of the subject's version of Go, set by the tracer */

/* Set by the programs. */
volatile __u32 subject_tgid; /* of the holder that announced itself */
__u32 waiting_for_cpu;	     /* subject's threads that are runnable and not running */

static __always_inline void count(__u32 counter)
{
	__u64 *value = bpf_map_lookup_elem(&counters, &counter);

	if (value)
		*value += 1;
}

/* A wake-up for each record would double the cost of tracing. */
static __always_inline __u64 wakeup(void)
{
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > wakeup_bytes)
		return BPF_RB_FORCE_WAKEUP;
	return BPF_RB_NO_WAKEUP;
}

static __always_inline void emit(void *record, __u64 size)
{
	if (bpf_ringbuf_output(&events, record, size, wakeup()))
		count(COUNTER_LOST_RINGBUF);
}

static __always_inline struct thread *current_thread(void)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();

	return bpf_map_lookup_elem(&threads, &tid);
}

/* The current thread, if it is the subject's and a cold start is under way. */
static __always_inline struct thread *watched_thread(void)
{
	return active ? current_thread() : 0;
}

/* The time is read once an event: each reading costs 20 ns and more. */
static __always_inline void fill_header_at(struct event_header *h, __u8 kind, __u16 size, __u64 id,
					   __u64 ktime_ns)
{
	h->kind = kind;
	h->truncation = 0;
	h->user_frames = 0;
	h->kernel_frames = 0;
	h->size = size;
	h->text_size = 0;
	h->cpu = bpf_get_smp_processor_id();
	h->tgid = id >> 32;
	h->tid = (__u32)id;
	h->stack = 0;
	h->ktime_ns = ktime_ns;
	h->caller = 0;
}

static __always_inline void fill_header(struct event_header *h, __u8 kind, __u16 size)
{
	fill_header_at(h, kind, size, bpf_get_current_pid_tgid(), bpf_ktime_get_ns());
}

#endif
