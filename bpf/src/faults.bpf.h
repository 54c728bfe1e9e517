/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Page faults, from perf's software events: page-faults marks the begin,
 * page-faults-min and -maj the end, in user and kernel mode, on every
 * architecture and without a kprobe. On x86 tracepoints mark the begin.
 */

SCRATCH(fault, event_fault);

/* regs, if not 0, are those at the fault, and are not kept. */
static __always_inline void emit_fault(struct thread *t, struct pt_regs *regs, __u64 end, __u32 major)
{
	struct fault_record *r = scratch(fault);

	if (!r)
		return;
	fill_header_at(&r->e.h, EVENT_FAULT, 0, bpf_get_current_pid_tgid(), t->fault_ns);
	r->e.end_ns = end;
	r->e.address = t->fault_address;
	r->e.major = major;
	r->e.in_kernel = t->fault_in_kernel;
	if (regs && with_stacks && (!t->fault_in_kernel || !user_regs(regs)))
		walk_user(&r->e.h, r->frames, &r->chunk, regs);
	t->fault_ns = 0;
	emit_with_frames(r, sizeof(r->e));
}

static __always_inline int begin_fault(__u64 address, __u32 in_kernel)
{
	struct thread *t = watched_thread();

	if (!t)
		return 0;
	count(COUNTER_FAULT_HITS);
	if (t->fault_ns) /* the last one failed: a signal, or a fixup in the kernel */
		emit_fault(t, 0, 0, 0);
	t->fault_ns = bpf_ktime_get_ns();
	t->fault_address = address;
	t->fault_in_kernel = in_kernel;
	return 0;
}

SEC("perf_event")
int fault_begin(struct bpf_perf_event_data *ctx)
{
	return begin_fault(ctx->addr, !REGS_IN_USER(&ctx->regs));
}

/* On x86 tracepoints tell of the begin, at half the cost of a perf event. */
#if defined(__TARGET_ARCH_x86)
SEC("tp_btf/page_fault_user")
int BPF_PROG(page_fault_user, unsigned long address)
{
	return active ? begin_fault(address, 0) : 0;
}

SEC("tp_btf/page_fault_kernel")
int BPF_PROG(page_fault_kernel, unsigned long address)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	/* Only what the kernel does to the subject's memory, and not what merely
	 * tries to, such as these programs. */
	if (!active || (__s64)address < 0 || task->pagefault_disabled)
		return 0;
	return begin_fault(address, 1);
}
#endif

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
