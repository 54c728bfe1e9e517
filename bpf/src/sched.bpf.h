/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Threads: born, running, waiting, woken, replaced, gone. */

SCRATCH(switch, event_switch);

struct exec_record {
	struct event_exec e;
	char text[MAX_TEXT];
};

/* 0 → a record being made */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct exec_record);
} exec_scratch SEC(".maps");

static __always_inline void set_runnable(struct thread *t, __u32 runnable)
{
	if (t->runnable == runnable)
		return;
	t->runnable = runnable;
	__sync_fetch_and_add(&waiting_for_cpu, runnable ? 1 : -1);
}

static __always_inline __u32 switch_state(struct task_struct *prev, bool preempt)
{
	__u32 state = task_state(prev);

	if (preempt || state == 0)
		return SWITCH_PREEMPTED;
	if (state & (0x10 | 0x20 | 0x80)) /* EXIT_DEAD, EXIT_ZOMBIE, TASK_DEAD */
		return SWITCH_DEAD;
	if (state & 0x1)
		return SWITCH_SLEEPING;
	if (state & 0x2)
		return SWITCH_BLOCKED;
	return SWITCH_STOPPED;
}

/* Whether a switch between two strangers keeps a thread of the subject off this CPU. */
static __always_inline bool concerns_waiting(void)
{
	__u32 cpu = bpf_get_smp_processor_id();

	return waiting_for_cpu && (cpu >= 64 || cpu_mask >> cpu & 1);
}

SEC("tp_btf/sched_switch")
int BPF_PROG(sched_switch, bool preempt, struct task_struct *prev, struct task_struct *next)
{
	__u32 prev_tid, next_tid, state;
	struct thread *leaves, *comes;
	struct switch_record *r;
	bool waits;

	if (!active)
		return 0;
	prev_tid = prev->pid;
	next_tid = next->pid;
	leaves = prev_tid ? bpf_map_lookup_elem(&threads, &prev_tid) : 0;
	comes = next_tid ? bpf_map_lookup_elem(&threads, &next_tid) : 0;
	/* Two tests: clang would make one of them by an OR of pointers, which the verifier forbids. */
	if (!leaves) {
		barrier();
		if (!comes && !concerns_waiting())
			return 0;
	}
	count(COUNTER_SCHED_HITS);
	r = scratch(switch);
	if (!r)
		return 0;
	state = switch_state(prev, preempt);
	if (leaves)
		see_goroutine(leaves);
	fill_header(&r->e.h, EVENT_SWITCH, 0);
	r->e.h.tgid = prev->tgid;
	r->e.h.tid = prev_tid;
	r->e.next_tgid = next->tgid;
	r->e.next_tid = next_tid;
	r->e.state = state;
	r->e.pad = 0;
	__builtin_memcpy(r->e.comm, prev->comm, COMM_SIZE);
	__builtin_memcpy(r->e.next_comm, next->comm, COMM_SIZE);
	waits = 0;
	if (comes)
		set_runnable(comes, 0);
	if (leaves) {
		waits = state == SWITCH_SLEEPING || state == SWITCH_BLOCKED;
		if (state == SWITCH_DEAD)
			bpf_map_delete_elem(&threads, &prev_tid);
		else
			set_runnable(leaves, state == SWITCH_PREEMPTED);
	}
	/* Last, since the verifier follows a walk once for each way that leads to it. */
	if (waits && with_stacks) {
		struct pt_regs regs;

		if (!user_regs(&regs))
			walk_user(&r->e.h, r->frames, &r->chunk, &regs);
		walk_kernel(ctx, &r->e.h, r->frames);
	}
	emit_with_frames(r, sizeof(r->e));
	return 0;
}

static __always_inline __u32 wake_context(void)
{
	__u32 zero = 0;
	__u32 *bits = bpf_map_lookup_elem(&contexts, &zero);

	if (!bits || !*bits)
		return WAKE_TASK;
	if (*bits & 1 << WAKE_TIMER)
		return WAKE_TIMER;
	if (*bits & 1 << WAKE_HARDIRQ)
		return WAKE_HARDIRQ;
	if (*bits & 1 << WAKE_NETWORK)
		return WAKE_NETWORK;
	return WAKE_SOFTIRQ;
}

SEC("tp_btf/sched_waking")
int BPF_PROG(sched_waking, struct task_struct *p)
{
	struct event_waking e = {};
	struct thread *t;
	__u32 tid;

	if (!active)
		return 0;
	tid = p->pid;
	t = bpf_map_lookup_elem(&threads, &tid);
	if (!t)
		return 0;
	count(COUNTER_SCHED_HITS);
	set_runnable(t, 1);
	fill_header(&e.h, EVENT_WAKING, sizeof(e));
	e.target_tgid = p->tgid;
	e.target_tid = tid;
	e.context = wake_context();
	bpf_get_current_comm(e.comm, sizeof(e.comm));
	emit(&e, sizeof(e));
	return 0;
}

static __always_inline void enter_context(__u32 context)
{
	__u32 zero = 0;
	__u32 *bits = bpf_map_lookup_elem(&contexts, &zero);

	if (bits)
		*bits |= 1 << context;
}

static __always_inline void leave_context(__u32 context)
{
	__u32 zero = 0;
	__u32 *bits = bpf_map_lookup_elem(&contexts, &zero);

	if (bits)
		*bits &= ~(1 << context);
}

static __always_inline __u32 softirq_context(unsigned int vector)
{
	switch (vector) { /* include/linux/interrupt.h */
	case 1:		  /* TIMER_SOFTIRQ */
	case 8:		  /* HRTIMER_SOFTIRQ */
		return WAKE_TIMER;
	case 3: /* NET_RX_SOFTIRQ */
		return WAKE_NETWORK;
	}
	return WAKE_SOFTIRQ;
}

/* These keep contexts right even while inactive: a cold start may begin inside one. */
SEC("tp_btf/softirq_entry")
int BPF_PROG(softirq_entry, unsigned int vector)
{
	enter_context(softirq_context(vector));
	return 0;
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(softirq_exit, unsigned int vector)
{
	leave_context(softirq_context(vector));
	return 0;
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(hrtimer_expire_entry, struct hrtimer *timer)
{
	enter_context(WAKE_TIMER);
	return 0;
}

SEC("tp_btf/hrtimer_expire_exit")
int BPF_PROG(hrtimer_expire_exit, struct hrtimer *timer)
{
	leave_context(WAKE_TIMER);
	return 0;
}

SEC("tp_btf/irq_handler_entry")
int BPF_PROG(irq_handler_entry, int irq, struct irqaction *action)
{
	enter_context(WAKE_HARDIRQ);
	return 0;
}

SEC("tp_btf/irq_handler_exit")
int BPF_PROG(irq_handler_exit, int irq, struct irqaction *action)
{
	leave_context(WAKE_HARDIRQ);
	return 0;
}

/* A thread begins where its creator told it to, a process where its parent stands. */
static __noinline __u64 new_stack_top(struct thread *parent, struct task_struct *child)
{
	struct pt_regs regs;
	__u64 top;

	if (user_regs_of(child, &regs))
		return 0;
	top = REGS_SP(&regs);
	if (user_regs(&regs))
		return 0;
	return REGS_SP(&regs) == top ? parent->stack_top : top;
}

SEC("tp_btf/sched_process_fork")
int BPF_PROG(sched_process_fork, struct task_struct *parent, struct task_struct *child)
{
	struct thread fresh = {.syscall_nr = -1, .runnable = 1};
	struct event_fork e = {};
	struct thread *t;
	__u32 tid;

	if (!active)
		return 0;
	tid = parent->pid;
	t = bpf_map_lookup_elem(&threads, &tid);
	if (!t)
		return 0;
	count(COUNTER_SCHED_HITS);
	fresh.framed = t->framed;
	fresh.stack_top = new_stack_top(t, child);
	tid = child->pid;
	fresh.tgid = child->tgid;
	if (bpf_map_update_elem(&threads, &tid, &fresh, BPF_ANY))
		count(COUNTER_LOST_THREADS);
	else
		__sync_fetch_and_add(&waiting_for_cpu, 1);
	fill_header(&e.h, EVENT_FORK, sizeof(e));
	e.child_tgid = child->tgid;
	e.child_tid = tid;
	emit(&e, sizeof(e));
	return 0;
}

#define AUXV_PAIRS 26

static __always_inline void read_auxv(struct event_exec *e, struct task_struct *p)
{
	struct mm_struct *mm = BPF_CORE_READ(p, mm);
	__u64 pair[2];
	int i;

	for (i = 0; i < AUXV_PAIRS; i++) {
		if (bpf_probe_read_kernel(pair, sizeof(pair), (void *)mm->saved_auxv + i * sizeof(pair)))
			return;
		switch (pair[0]) { /* uapi/linux/auxvec.h */
		case 0:
			return;
		case 3:
			e->program_hdrs = pair[1];
			break;
		case 7:
			e->base = pair[1];
			break;
		case 9:
			e->entry = pair[1];
			break;
		case 33:
			e->vdso = pair[1];
			break;
		}
	}
}

SEC("tp_btf/sched_process_exec")
int BPF_PROG(sched_process_exec, struct task_struct *p, int old_tid, struct linux_binprm *bprm)
{
	struct exec_record *r;
	struct thread *t;
	long size;

	t = watched_thread();
	if (!t)
		return 0;
	count(COUNTER_SCHED_HITS);
	t->go_m = t->goid = 0;
	r = scratch(exec);
	if (!r)
		return 0;
	fill_header(&r->e.h, EVENT_EXEC, 0);
	r->e.old_tid = old_tid;
	r->e.pad = 0;
	r->e.entry = r->e.base = r->e.program_hdrs = r->e.vdso = 0;
	read_auxv(&r->e, p);
	t->stack_top = BPF_CORE_READ(p, mm, start_stack);
	t->framed = 0;
	t->stack = 0;
	if (framed_program && r->e.entry - r->e.program_hdrs == framed_program)
		t->framed = r->e.entry + framed_begin;
	size = bpf_probe_read_kernel_str(r->text, MAX_TEXT, BPF_CORE_READ(bprm, filename));
	if (size <= 0)
		size = 1;
	r->e.h.text_size = size - 1;
	size = (size + 7) & ~7;
	barrier_var(size);
	if (size < 0 || size > MAX_TEXT)
		return 0;
	r->e.h.size = sizeof(r->e) + size;
	emit(r, sizeof(r->e) + size);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int BPF_PROG(sched_process_exit, struct task_struct *p)
{
	struct event_exit e = {};
	struct thread *t;

	t = watched_thread();
	if (!t)
		return 0;
	count(COUNTER_SCHED_HITS);
	if (t->syscall_nr >= 0) /* exit and exit_group never return */
		emit_syscall(t, 0, 0, 0);
	fill_header(&e.h, EVENT_EXIT, sizeof(e));
	e.code = p->exit_code;
	e.group_dead = BPF_CORE_READ(p, signal, live.counter) == 0;
	emit(&e, sizeof(e));
	forget_calls(e.h.tid);
	return 0;
}
