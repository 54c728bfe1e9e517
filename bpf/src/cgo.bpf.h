/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks of which Go and C are part (cgo). C runs on the thread's own stack, Go
 * on the goroutine's, and each call of the other changes stacks:
 *
 *   Go → C: runtime.asmcgocall leaves two words on the thread's stack, below
 *   where the scheduler's g (g0) says that it is free: the goroutine, and how
 *   far from the end of the goroutine's stack its own frame is. The goroutine
 *   keeps its own stack pointer in g.sched.
 *   C → Go: crosscall2 and runtime.cgocallback have their frames on the thread's
 *   stack, and say in g0 that what is below is free.
 *
 * Both stacks are copied, from where they are in use up to where they begin, and
 * the tracer goes from one to the other. Of programs without C nothing of this runs.
 *
 * Sources: runtime/asm_GOARCH.s (asmcgocall, cgocallback), runtime/cgo/asm_GOARCH.s
 * (crosscall2) and runtime/runtime2.go (g, m), the same in Go 1.22 to 1.26.
 */
#ifndef INITPROF_CGO_H
#define INITPROF_CGO_H

/* Of runtime.g, which begins with its stack's bounds, low and high; the first word
 * of runtime.m is g0. */
#define G_M 48
#define G_SCHED_SP 56 /* right behind it */

#if defined(__TARGET_ARCH_x86)
#define ASMCGOCALL_G 1 /* which of the two words it is */
#define RECORD_BELOW 0 /* how far below the stack pointer Go's frame records may be */
#else
#define ASMCGOCALL_G 0
#define RECORD_BELOW 8
#endif

struct mixed_stack {
	__u64 g;
	__u64 start; /* of what is in use of the goroutine's stack … */
	__u64 end;
	__u64 thread_start; /* … and of the thread's */
};

/* Whether C called any of the frames up to the last: what lies behind was reached
 * by a frame pointer that C may not have kept. */
static __noinline bool has_callback(__u64 framed, const __u64 *frames, __u64 last)
{
	__u64 begin = framed + callback_begin, size = callback_size;
	__u64 has = 0, from, i;

	for (i = 1; i < MAX_USER_FRAMES; i++) {
		if (i > last)
			break;
		from = frames[i] - begin;
		has |= ~from & (from - size); /* its highest bit: from < size, without a branch */
	}
	return has >> 63;
}

struct go_words { /* of a g, from G_M on */
	__u64 m;
	__u64 sched_sp;
};

static __always_inline bool read_g(struct go_words *to, __u64 g)
{
	return g && !bpf_probe_read_user(to, sizeof(*to), (void *)g + G_M) && to->m;
}

/* Finds the two stacks in use, by a word that should be the thread's g; 0 if it is none. */
static __noinline bool find_stacks(struct mixed_stack *to, __u64 g, __u64 sp, __u64 fp)
{
	__u64 pair[2], g0 = 0;
	struct go_words of_g, of_other;

	if (!read_g(&of_g, g) || bpf_probe_read_user(&g0, sizeof(g0), (void *)of_g.m) ||
	    !read_g(&of_other, g0) || of_other.m != of_g.m)
		return 0;
	to->g = g;
	to->start = to->thread_start = sp - RECORD_BELOW;
	if (g == g0) {
		/* Called by a goroutine, which asmcgocall says, or on its behalf (systemstack). */
		if (bpf_probe_read_user(pair, sizeof(pair), (void *)((of_g.sched_sp - 16) & ~15ULL)))
			return 0;
		to->g = pair[ASMCGOCALL_G];
		if (!read_g(&of_other, to->g) || of_other.m != of_g.m) {
			if (!layout.m_curg ||
			    bpf_probe_read_user(&to->g, sizeof(__u64), (void *)of_g.m + layout.m_curg) ||
			    !read_g(&of_other, to->g) || of_other.m != of_g.m)
				return 0;
		}
		to->start = of_other.sched_sp - RECORD_BELOW;
	}
	if (bpf_probe_read_user(pair, sizeof(pair), (void *)to->g)) /* its stack's bounds */
		return 0;
	if (g != g0) {
		if (sp - pair[0] < pair[1] - pair[0])
			to->thread_start = of_other.sched_sp - RECORD_BELOW;
		else /* in the vDSO, for which Go changes the stack and nothing else */
			to->start = fp;
	}
	to->end = pair[1];
	return to->start - pair[0] < to->end - pair[0];
}

static __always_inline bool find_mixed_stack(struct mixed_stack *to, const struct pt_regs *regs)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 g = 0;

	if (g_in_thread)
		bpf_probe_read_user(&g, sizeof(g), (void *)THREAD_POINTER(task) + g_in_thread);
	if (find_stacks(to, g, REGS_SP(regs), REGS_FP(regs)))
		return 1;
#if defined(__TARGET_ARCH_arm64)
	/* The kernel learns of a new thread pointer when the thread is switched away
	 * from; C keeps the register that Go has g in, unless it needs it itself. */
	if (find_stacks(to, REGS_GO_G(regs), REGS_SP(regs), REGS_FP(regs)))
		return 1;
#endif
	return 0;
}

#define COPY_GO_STACK(limit)                                                                                 \
	({                                                                                                   \
		struct event_go_stack *e = bpf_ringbuf_reserve(&events, sizeof(*e) + (limit), 0);            \
                                                                                                             \
		if (e) {                                                                                     \
			fill_header(&e->h, EVENT_GO_STACK, sizeof(*e));                                      \
			e->h.stack = h->stack;                                                               \
			e->g = from->g;                                                                      \
			e->start = from->start;                                                              \
			e->end = from->end;                                                                  \
			barrier_var(size);                                                                   \
			if (size > (limit))                                                                  \
				size = (limit);                                                              \
			e->bytes = size;                                                                     \
			if (bpf_probe_read_user(e + 1, size, (void *)e->start))                              \
				e->bytes = 0;                                                                \
			bpf_ringbuf_submit(e, wakeup());                                                     \
		} else {                                                                                     \
			h->stack = 0;                                                                        \
			h->truncation = STACK_LOST;                                                          \
		}                                                                                            \
	})

/* Copies a goroutine's stack to the copy of the thread's that h has the key of. */
static __noinline void copy_go_stack(struct event_header *h, const struct mixed_stack *from)
{
	__u64 size = (from->end - from->start) & ~7ULL;

	if (size <= 2048)
		COPY_GO_STACK(2048);
	else if (size <= 8192)
		COPY_GO_STACK(8192);
	else
		COPY_GO_STACK(MAX_GO_STACK_COPY);
}

#endif
