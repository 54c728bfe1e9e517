/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Page faults, from perf's software events: page-faults marks the begin,
 * page-faults-min and -maj the end, in user and kernel mode, on every
 * architecture and without a kprobe.
 */

SCRATCH(fault, event_fault);

/* regs, if not 0, are those at the fault, and are not kept. */
static __always_inline void emit_fault(struct thread *t, struct pt_regs *regs, __u64 end, __u32 major)
{
	struct fault_record *r = scratch(fault);

	if (!r)
		return;
	fill_header(&r->e.h, EVENT_FAULT, 0);
	r->e.h.ktime_ns = t->fault_ns;
	r->e.end_ns = end;
	r->e.address = t->fault_address;
	r->e.major = major;
	r->e.in_kernel = t->fault_in_kernel;
	if (regs && with_stacks && (!t->fault_in_kernel || !user_regs(regs)))
		walk_user(&r->e.h, r->frames, &r->chunk, regs);
	t->fault_ns = 0;
	emit_with_frames(r, sizeof(r->e));
}

SEC("perf_event")
int fault_begin(struct bpf_perf_event_data *ctx)
{
	struct thread *t;

	t = watched_thread();
	if (!t)
		return 0;
	count(COUNTER_FAULT_HITS);
	if (t->fault_ns) /* the last one failed: a signal, or a fixup in the kernel */
		emit_fault(t, 0, 0, 0);
	t->fault_ns = bpf_ktime_get_ns();
	t->fault_address = ctx->addr;
	t->fault_in_kernel = !REGS_IN_USER(&ctx->regs);
	return 0;
}

static __always_inline int fault_end(struct bpf_perf_event_data *ctx, __u32 major)
{
	struct thread *t;
	struct pt_regs regs;
	__u64 now;

	t = watched_thread();
	if (!t)
		return 0;
	now = bpf_ktime_get_ns();
	if (!t->fault_ns) { /* the begin was not seen: the count is right, the time unknown */
		count(COUNTER_LOST_FAULTS);
		t->fault_ns = now;
		t->fault_address = ctx->addr;
		t->fault_in_kernel = !REGS_IN_USER(&ctx->regs);
	}
	__builtin_memcpy(&regs, &ctx->regs, sizeof(regs));
	emit_fault(t, &regs, now, major);
	return 0;
}

SEC("perf_event")
int fault_minor(struct bpf_perf_event_data *ctx)
{
	return fault_end(ctx, 0);
}

SEC("perf_event")
int fault_major(struct bpf_perf_event_data *ctx)
{
	return fault_end(ctx, 1);
}
