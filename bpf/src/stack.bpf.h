/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks. Code that is known to keep frame pointers is walked here and not by
 * bpf_get_stack: that one was seen to take about one page fault a walk, and
 * cannot say why it ended. Of all other code the registers and the top of the
 * stack are copied, for the tracer to unwind when the cold start is over.
 */
#ifndef INITPROF_STACK_H
#define INITPROF_STACK_H

#define MAX_FRAMES (MAX_USER_FRAMES + MAX_KERNEL_FRAMES)

/*
 * Stack memory is read in pieces: a read costs 50 ns or more whatever its size,
 * and a piece holds several frames. None reaches beyond its page, since the next
 * one may not be there: a read that fails costs more than ten that do not.
 */
#define CHUNK_WORDS 256
#define PAGE 4096 /* the smallest of both architectures */

struct chunk {
	__u64 base; /* address of words[0] */
	__u64 size; /* bytes that were read */
	__u64 words[CHUNK_WORDS];
};

/* Reads the two words at an address into to; not 0 where it cannot. */
static __always_inline int read_pair(struct chunk *c, __u64 address, __u64 *to)
{
	__u64 offset = address - c->base;

	/* Not "offset + 16 > size", which wraps just below the piece; a size is 16 or more, or 0. */
	if (!c->size || offset > c->size - 2 * sizeof(__u64) || offset & 7) {
		__u64 size = PAGE - (address & (PAGE - 1));

		if (size > sizeof(c->words))
			size = sizeof(c->words);
		if (size < 2 * sizeof(__u64))
			return bpf_probe_read_user(to, 2 * sizeof(__u64), (void *)address);
		c->size = 0;
		if (bpf_probe_read_user(c->words, size, (void *)address))
			return -1;
		c->base = address;
		c->size = size;
		offset = 0;
	}
	offset = offset / sizeof(__u64) & (CHUNK_WORDS - 1);
	to[0] = c->words[offset];
	to[1] = c->words[(offset + 1) & (CHUNK_WORDS - 1)];
	return 0;
}

/* Reads as many pieces as can be read, and notes which cannot. */
static __always_inline __u64 read_pieces(void *to, __u64 limit, __u64 from)
{
	__u64 missing = 0;
	__u64 i;

	for (i = 0; i < MAX_STACK_COPY / STACK_PIECE; i++) {
		if (i * STACK_PIECE >= limit)
			break;
		/* Without a branch, of which the verifier would follow both ways. */
		long error =
		    bpf_probe_read_user(to + i * STACK_PIECE, STACK_PIECE, (void *)from + i * STACK_PIECE);

		missing |= (__u64)error >> 63 << i;
	}
	return missing;
}

/* Fills an EVENT_STACK that has room for limit bytes, of which it takes size. */
static __always_inline void fill_stack(struct event_stack *e, __u64 limit, __u64 size, __u64 top, __u64 sp,
				       const struct pt_regs *regs)
{
	void *bytes = e + 1;

	fill_header(&e->h, EVENT_STACK, 0);
	e->h.stack = (__u32)e->h.ktime_ns | 1;
	bpf_probe_read_kernel(e->registers, sizeof(e->registers), regs);
	e->top = top;
	e->start = sp;
	e->missing = 0;
	barrier_var(size); /* clang knows its bound, the verifier does not (6.1) */
	if (size > limit)
		size = limit;
	if (bpf_probe_read_user(bytes, size, (void *)sp)) {
		/* A page that was never touched, or the stack's end. */
		e->start = sp & ~(STACK_PIECE - 1ULL);
		e->missing = read_pieces(bytes, limit, e->start);
		size = limit;
	}
	e->bytes = size;
	e->h.size = sizeof(*e); /* the rest does not fit into 16 bits */
}

/* The size of a reservation must be a constant. */
#define COPY_STACK(limit)                                                                                    \
	({                                                                                                   \
		struct event_stack *e = bpf_ringbuf_reserve(&events, sizeof(*e) + (limit), 0);               \
                                                                                                             \
		if (e) {                                                                                     \
			fill_stack(e, limit, size, top, sp, regs);                                           \
			h->stack = e->h.stack;                                                               \
			bpf_ringbuf_submit(e, wakeup());                                                     \
		} else {                                                                                     \
			h->truncation = STACK_LOST;                                                          \
		}                                                                                            \
	})

/* Of a stack that is not the one which its thread began with, this much is copied. */
#define OTHER_STACK_COPY 8192
#define MAX_THREAD_STACK (64 << 20)

/* Copies the stack from sp on, which is that of regs unless Go was called by C. */
static __noinline void copy_stack(struct event_header *h, __u64 top, __u64 sp, const struct pt_regs *regs)
{
	__u64 size = OTHER_STACK_COPY;

	sp &= ~7ULL;
	if (top - sp < MAX_STACK_COPY)
		size = (top - sp + 7) & ~7ULL;
	else if (top > sp && top - sp < MAX_THREAD_STACK)
		size = MAX_STACK_COPY;
	/* What room is left is for events: a stack without its copy says so. */
	if (bpf_ringbuf_query(&events, BPF_RB_AVAIL_DATA) > copies_bytes) {
		h->truncation = STACK_LOST;
		return;
	}
	if (size <= 2048)
		COPY_STACK(2048);
	else if (size <= 8192)
		COPY_STACK(8192);
	else if (size <= 16384)
		COPY_STACK(16384);
	else
		COPY_STACK(MAX_STACK_COPY);
}

/* Copies a stack of a program in which Go and C call each other. */
static __noinline void copy_mixed(struct event_header *h, __u64 top, const struct pt_regs *regs)
{
	struct mixed_stack mixed = {};

	if (!find_mixed_stack(&mixed, regs)) {
		copy_stack(h, top, REGS_SP(regs), regs);
		return;
	}
	copy_stack(h, top, mixed.thread_start, regs);
	if (h->stack)
		copy_go_stack(h, &mixed);
}

/* Whether a walk that says it is complete began and ended in code with frame pointers. */
static __always_inline bool is_framed(__u64 framed, __u64 ip)
{
	return ip - framed < framed_size;
}

static __always_inline void walk_frame_pointers(struct event_header *h, __u64 *frames, struct chunk *c,
						const struct pt_regs *regs)
{
	__u64 fp = REGS_FP(regs);
	__u64 record[2];
	__u32 n = 1;
	int i;

	frames[0] = REGS_IP(regs);
	h->truncation = STACK_DEPTH;
	c->base = c->size = 0;
#if defined(__TARGET_ARCH_x86)
	if (!read_pair(c, REGS_SP(regs), record))
		h->caller = record[0];
#else
	h->caller = REGS_LR(regs);
#endif
	for (i = 1; i < MAX_USER_FRAMES; i++) {
		if (!fp) {
			h->truncation = STACK_COMPLETE;
			break;
		}
		if (fp & 7) {
			h->truncation = STACK_FRAME;
			break;
		}
		if (read_pair(c, fp, record)) {
			h->truncation = STACK_MEMORY;
			break;
		}
		if (!record[1]) {
			h->truncation = STACK_COMPLETE;
			break;
		}
		frames[i] = record[1];
		n = i + 1;
		/* Not "must grow": Go's systemstack returns to a goroutine's stack below. */
		if (record[0] == fp) {
			h->truncation = STACK_FRAME;
			break;
		}
		fp = record[0];
	}
	h->user_frames = n;
}

/*
 * Puts the user stack at frames and says in h how many there are. Where the
 * frame pointers are not to be trusted there is one, and a copy to unwind.
 */
static __always_inline void walk_user(struct event_header *h, __u64 *frames, struct chunk *c,
				      const struct pt_regs *regs)
{
	struct thread *t = current_thread();
	__u64 n;

	if (!t)
		return;
	frames[0] = REGS_IP(regs);
	h->user_frames = 1;
	/* Without callbacks there is no C: the vDSO and uprobes' trampolines keep the pointer. */
	if (t->framed && (!callback_size || is_framed(t->framed, frames[0]))) {
		walk_frame_pointers(h, frames, c, regs);
		/* From memory: the verifier follows what comes once for each value that it knows. */
		n = *(volatile __u8 *)&h->user_frames - 1;
		if (h->truncation == STACK_COMPLETE && n < MAX_USER_FRAMES &&
		    is_framed(t->framed, frames[n]) && !(callback_size && has_callback(t->framed, frames, n)))
			return;
	}
	/* Nothing of the thread runs, and moves its stack, in a system call. */
	if (t->stack) {
		h->stack = t->stack;
		return;
	}
	if (t->framed && callback_size)
		copy_mixed(h, t->stack_top, regs);
	else
		copy_stack(h, t->stack_top, REGS_SP(regs), regs);
	if (t->syscall_nr >= 0)
		t->stack = h->stack;
}

/* Appends the kernel's stack behind the user's. */
static __always_inline void walk_kernel(void *ctx, struct event_header *h, __u64 *frames)
{
	__u64 n = h->user_frames;
	long size;

	barrier_var(n); /* clang would prove away the bound that the verifier must see */
	if (n > MAX_USER_FRAMES)
		return;
	size = bpf_get_stack(ctx, &frames[n], MAX_KERNEL_FRAMES * sizeof(__u64), 0);
	if (size > 0)
		h->kernel_frames = size / sizeof(__u64);
}

/* Sends a record that ends with the frames that h counts. */
static __always_inline void emit_with_frames(void *record, __u64 fixed_size)
{
	struct event_header *h = record;
	__u64 n = (__u64)h->user_frames + h->kernel_frames;

	barrier_var(n);
	if (n > MAX_FRAMES)
		n = MAX_FRAMES;
	h->size = fixed_size + n * sizeof(__u64);
	emit(record, fixed_size + n * sizeof(__u64));
}

/* A record with room for its frames, and for walking the stack. */
#define RECORD(name, event)                                                                                  \
	struct name##_record {                                                                               \
		struct event e;                                                                              \
		__u64 frames[MAX_FRAMES];                                                                    \
		struct chunk chunk;                                                                          \
	}

/* One buffer a CPU for each family of programs: they can interrupt each other. */
#define SCRATCH(name, event)                                                                                 \
	RECORD(name, event);                                                                                 \
	struct {                                                                                             \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                                     \
		__uint(max_entries, 1);                                                                      \
		__type(key, __u32);                                                                          \
		__type(value, struct name##_record);                                                         \
	} name##_scratch SEC(".maps")

#define scratch(name)                                                                                        \
	({                                                                                                   \
		__u32 zero = 0;                                                                              \
		bpf_map_lookup_elem(&name##_scratch, &zero);                                                 \
	})

#endif
