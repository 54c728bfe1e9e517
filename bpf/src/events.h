/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The records that the programs write into the ring buffer: the only contract
 * between C and Go. They are also the body of a recording on disk, so a change
 * of a layout needs a new recording version (profiler/capture).
 *
 * All integers are little-endian; every record is a multiple of 8 bytes.
 */
#ifndef INITPROF_EVENTS_H
#define INITPROF_EVENTS_H

enum event_kind {
	EVENT_SYSCALL = 1, /* one system call, written when it returns */
	EVENT_PATH = 2,	   /* the file name given to the thread's current call */
	EVENT_REQUEST = 3, /* the HTTP request line that the current call sends */
	EVENT_SWITCH = 4,  /* a CPU went from one thread to another */
	EVENT_WAKING = 5,  /* a thread was made runnable */
	EVENT_FORK = 6,
	EVENT_EXEC = 7,
	EVENT_EXIT = 8,
	EVENT_FAULT = 9, /* one page fault, written when it is done */
	EVENT_SAMPLE = 10,
	EVENT_MARK = 11,      /* an instruction of interest was reached */
	EVENT_MAPPING = 12,   /* made by the tracer from perf's mmap records */
	EVENT_CALL = 13,      /* one call of a probed function, written when it is left */
	EVENT_CALL_TEXT = 14, /* the string given to a call; ktime_ns is the call's */
	EVENT_GOROUTINE = 24, /* a goroutine went from one status to another */
	EVENT_STACK = 15,     /* registers and the stack's top; never leaves the tracer */
	EVENT_GO_STACK = 25,  /* a goroutine's stack to it; neither does that */
};

#define MAX_USER_FRAMES 127 /* by frame pointer; the tracer's own unwinding gives up to 255 */
#define MAX_KERNEL_FRAMES 48
#define MAX_TEXT 256
#define COMM_SIZE 16

#if defined(__TARGET_ARCH_x86)
#define STACK_REGISTERS 21
#else
#define STACK_REGISTERS 33 /* x0 … x30, sp, pc */
#endif

enum truncation {
	STACK_COMPLETE = 0,
	STACK_DEPTH = 1,  /* more than MAX_USER_FRAMES */
	STACK_MEMORY = 2, /* a frame could not be read */
	STACK_FRAME = 3,  /* the frame pointer is no stack address */
	/* Given by the tracer, which unwinds copied stacks. */
	STACK_NO_CFI = 4,    /* code without unwinding tables and frame pointers */
	STACK_SHORT = 5,     /* the caller lies beyond the copy */
	STACK_PAGE = 6,	     /* a page of the copy could not be read */
	STACK_MALFORMED = 7, /* unwinding tables that make no sense */
	STACK_LOST = 8,	     /* the copy found no room */
};

struct event_header {
	__u8 kind;
	__u8 truncation;
	__u8 user_frames;   /* addresses at the record's end, user first … */
	__u8 kernel_frames; /* … then kernel, each leaf first */
	__u16 size;	    /* of the whole record */
	__u16 text_size;    /* bytes of text right behind the fixed part */
	__u32 cpu;
	__u32 tgid; /* in the initial PID namespace, like all IDs here */
	__u32 tid;
	__u32 stack;	/* key of the EVENT_STACK to unwind; 0: none, as in every recording */
	__u64 ktime_ns; /* CLOCK_MONOTONIC */
	__u64 caller;	/* the word at the stack's top (x86-64) or the link register (arm64) */
};

struct event_syscall {
	struct event_header h; /* ktime_ns: the entry */
	__u64 end_ns;	       /* 0: had not returned */
	__s64 ret;
	__u32 nr;
	__u32 pad;
	/* Of connect and accept [4] is the near end, [5] the far one: address << 16 | port. */
	__u64 args[6];
};

/* EVENT_PATH and EVENT_REQUEST: text behind it. */
struct event_text {
	struct event_header h;
	__u32 nr;
	__u32 pad;
};

struct event_switch {
	struct event_header h; /* of the thread that leaves */
	__u32 next_tgid;
	__u32 next_tid;
	__u32 state; /* enum switch_state */
	__u32 pad;
	char comm[COMM_SIZE];
	char next_comm[COMM_SIZE];
};

enum switch_state {
	SWITCH_PREEMPTED = 0,
	SWITCH_SLEEPING = 1,
	SWITCH_BLOCKED = 2,
	SWITCH_STOPPED = 3,
	SWITCH_DEAD = 4,
};

struct event_waking {
	struct event_header h; /* of the current thread */
	__u32 target_tgid;
	__u32 target_tid;
	__u32 context; /* enum wake_context */
	__u32 pad;
	char comm[COMM_SIZE];
};

enum wake_context {
	WAKE_TASK = 0,
	WAKE_TIMER = 1,
	WAKE_NETWORK = 2,
	WAKE_SOFTIRQ = 3,
	WAKE_HARDIRQ = 4,
};

struct event_fork {
	struct event_header h;
	__u32 child_tgid;
	__u32 child_tid;
};

struct event_exec { /* text: the path as given */
	struct event_header h;
	__u32 old_tid;
	__u32 pad;
	__u64 entry;	    /* AT_ENTRY */
	__u64 base;	    /* AT_BASE */
	__u64 program_hdrs; /* AT_PHDR */
	__u64 vdso;	    /* AT_SYSINFO_EHDR */
};

struct event_exit {
	struct event_header h;
	__s32 code;
	__u32 group_dead;
};

struct event_fault {
	struct event_header h; /* ktime_ns: the begin */
	__u64 end_ns;	       /* 0: never completed */
	__u64 address;
	__u32 major;
	__u32 in_kernel;
};

struct event_sample {
	struct event_header h;
	__u32 in_kernel;
	__u32 pad;
};

/* text: the name given to checkpoint.Reach, Begin or End. */
struct event_mark {
	struct event_header h;
	__u64 ip;
	__u64 id;    /* of a span; of the goroutine (address of its g) at Go's own functions */
	__u64 value; /* MARK_ADDRESS in Go: the word at the first argument + 8 */
	__u32 kind;  /* enum mark_kind */
	__u32 spent; /* ns that noting it took: what it marks began so much later. 0: not known */
};

enum mark_kind {
	MARK_CHECKPOINT = 0,
	MARK_SPAN_BEGIN = 1,
	MARK_SPAN_END = 2,
	MARK_ADDRESS = 3, /* a probed instruction, told apart by ip */
};

#define CALL_ARGUMENTS 3

/* The stack is that of the caller, taken at the return. */
struct event_call {
	struct event_header h; /* ktime_ns: the entry */
	__u64 end_ns;	       /* 0: left without returning (longjmp), or not left yet */
	__u64 ip;	       /* the probed instruction */
	__u64 args[CALL_ARGUMENTS];
	__u64 ret;
	__u64 return_slot;    /* where the return address lay on the stack … */
	__u64 return_address; /* … before the return probe replaced it; 0: it does not */
	__u64 object_base;    /* l_addr and l_ld of the link_map given first; 0: none */
	__u64 object_dynamic; /* its dynamic section lies inside the object's mappings */
	__u32 minor_faults;   /* taken by the thread inside the call */
	__u32 major_faults;
};

/* text: the path. Written by the tracer, never by a program. */
struct event_mapping {
	struct event_header h;
	__u64 start;
	__u64 limit;
	__u64 offset;
	__u32 prot;
	__u32 build_id_size;
	__u8 build_id[24];
};

/* Frames: the goroutine's own, where it parks. */
struct event_goroutine {
	struct event_header h; /* of the thread that changes the status, often another's */
	__u64 g;
	__u64 goid;   /* 0: not set yet, as Go 1.22 and 1.23 do it late */
	__u64 parent; /* this and the two that follow: at birth, else 0 */
	__u64 gopc;
	__u64 startpc;
	__u8 from;
	__u8 to;
	__u8 reason; /* runtime.waitReason of the subject's version of Go */
	__u8 seen;   /* no change: what the thread was seen to run; goid 0: nothing */
	__u32 pad;
};

/*
 * Registers and a copy of the stack's top, written before the event whose stack
 * it is. The tracer unwinds it and lets it go: it holds the subject's data, and
 * no recording holds this event.
 */
struct event_stack {
	struct event_header h;		  /* stack: the key */
	__u64 registers[STACK_REGISTERS]; /* the beginning of struct pt_regs */
	__u64 start;			  /* address of the first byte behind */
	__u64 top;			  /* where the thread's stack begins; 0: unknown */
	__u64 bytes;			  /* copied, behind the fixed part */
	__u64 missing;			  /* bit i: STACK_PIECE bytes at i * STACK_PIECE could not be read */
};

/* Written behind an EVENT_STACK with the same key, where the stack goes on, or
 * began, on a goroutine's own. Its copy follows. */
struct event_go_stack {
	struct event_header h; /* stack: the key */
	__u64 g;
	__u64 start; /* address of the first byte behind */
	__u64 end;   /* where the goroutine's stack begins */
	__u64 bytes; /* copied; 0: it could not be read */
};

enum stack_limits {
	STACK_PIECE = 1024,
	MAX_STACK_COPY = 65536,
	MAX_GO_STACK_COPY = 32768,
};

_Static_assert(sizeof(struct event_header) == 40, "event_header");
_Static_assert(sizeof(struct event_syscall) == 112, "event_syscall");
_Static_assert(sizeof(struct event_text) == 48, "event_text");
_Static_assert(sizeof(struct event_switch) == 88, "event_switch");
_Static_assert(sizeof(struct event_waking) == 72, "event_waking");
_Static_assert(sizeof(struct event_fork) == 48, "event_fork");
_Static_assert(sizeof(struct event_exec) == 80, "event_exec");
_Static_assert(sizeof(struct event_exit) == 48, "event_exit");
_Static_assert(sizeof(struct event_fault) == 64, "event_fault");
_Static_assert(sizeof(struct event_sample) == 48, "event_sample");
_Static_assert(sizeof(struct event_mark) == 72, "event_mark");
_Static_assert(sizeof(struct event_call) == 128, "event_call");
_Static_assert(sizeof(struct event_mapping) == 96, "event_mapping");
_Static_assert(sizeof(struct event_goroutine) == 88, "event_goroutine");
_Static_assert(sizeof(struct event_go_stack) == 72, "event_go_stack");

#endif
