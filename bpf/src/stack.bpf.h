/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Stacks by frame pointer. The user's part is walked here and not by
 * bpf_get_stack: that one was seen to take about one page fault a walk, and
 * cannot say why it ended.
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

	if (offset + 2 * sizeof(__u64) > c->size || offset & 7) {
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

/* Puts the user stack at frames and says in h how many there are. */
static __always_inline void walk_user(struct event_header *h, __u64 *frames, struct chunk *c,
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
