/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Goroutines. In full mode a uprobe in runtime.casgstatus, through which nearly
 * all changes of a goroutine's status pass, writes each of them, with the
 * parked goroutine's own stack. In cheap mode there is no uprobe: at the events
 * that are recorded anyway the thread's goroutine is looked up, and written
 * where it is another than before.
 */

#define G_BYTES 320 /* of runtime.g, which holds all that is read: at most 312 */

/* Statuses of runtime/runtime2.go; their values have not changed since Go 1.0. */
enum go_status {
	GO_IDLE = 0,
	GO_RUNNABLE = 1,
	GO_RUNNING = 2,
	GO_SYSCALL = 3,
	GO_WAITING = 4,
	GO_DEAD = 6,
	GO_COPYSTACK = 8,
	GO_PREEMPTED = 9,
};

struct parking {
	struct event_goroutine e;
	__u64 frames[MAX_FRAMES];
	struct chunk chunk;
	__u64 g[G_BYTES / sizeof(__u64)];
};

/* tid → the record it is making. Not one a CPU: programs of uprobes can be
 * preempted, and the next thread can run into the same one. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 16384);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct parking);
} parkings SEC(".maps");

const struct parking fresh_parking = {};

static __always_inline __u64 read_user_word(__u64 address)
{
	__u64 word = 0;

	bpf_probe_read_user(&word, sizeof(word), (void *)address);
	return word;
}

static __always_inline void fill_goroutine(struct event_goroutine *e, __u64 g, __u8 from, __u8 to)
{
	fill_header(&e->h, EVENT_GOROUTINE, sizeof(*e));
	e->g = g;
	e->goid = e->parent = e->gopc = e->startpc = 0;
	e->from = from;
	e->to = to;
	e->reason = e->seen = 0;
	e->pad = 0;
}

static __always_inline void read_birth(struct event_goroutine *e)
{
	e->parent = read_user_word(e->g + layout.parent);
	e->gopc = read_user_word(e->g + layout.gopc);
	e->startpc = read_user_word(e->g + layout.startpc);
}

/* The word at an offset of the g that was read. */
static __always_inline __u64 g_word(const struct parking *r, __u32 offset)
{
	offset /= sizeof(__u64);
	barrier_var(offset); /* the verifier must see the bound of the index, not of the offset */
	if (offset >= G_BYTES / sizeof(__u64))
		return 0;
	return r->g[offset];
}

/* A goroutine parks: what for, and where. */
static __always_inline int park(__u64 g, __u8 from)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid();
	struct parking *r = bpf_map_lookup_elem(&parkings, &tid);
	struct pt_regs parked = {};
	__u32 reason = layout.waitreason;

	if (!r) {
		if (bpf_map_update_elem(&parkings, &tid, &fresh_parking, BPF_ANY)) {
			count(COUNTER_LOST_GOROUTINES);
			return 0;
		}
		r = bpf_map_lookup_elem(&parkings, &tid);
		if (!r)
			return 0;
	}
	if (bpf_probe_read_user(r->g, sizeof(r->g), (void *)g)) {
		count(COUNTER_LOST_GOROUTINES);
		return 0;
	}
	fill_goroutine(&r->e, g, from, GO_WAITING);
	r->e.goid = g_word(r, layout.goid);
	r->e.reason = g_word(r, reason) >> (reason & 7) * 8;
	if (with_stacks) {
		REGS_IP(&parked) = g_word(r, layout.sched_pc);
		REGS_SP(&parked) = g_word(r, layout.sched_sp);
		REGS_FP(&parked) = g_word(r, layout.sched_bp);
		walk_user(&r->e.h, r->frames, &r->chunk, &parked);
		r->e.h.caller = 0; /* the stack's top is no return address there */
	}
	emit_with_frames(r, sizeof(r->e));
	return 0;
}

static __always_inline int change_status(struct pt_regs *regs)
{
	__u64 g = REGS_GO_ARG0(regs);
	__u32 from = REGS_GO_ARG1(regs), to = REGS_GO_ARG2(regs);
	struct event_goroutine e;

	if (!watched_thread())
		return 0;
	count(COUNTER_GOROUTINE_HITS);
	/* A stack that is copied is part of running; what is idle was never born. */
	if (from == GO_COPYSTACK || to == GO_COPYSTACK || from == GO_IDLE)
		return 0;
	if (to == GO_WAITING)
		return park(g, from);
	fill_goroutine(&e, g, from, to);
	if (bpf_probe_read_user(&e.goid, sizeof(e.goid), (void *)g + layout.goid)) {
		count(COUNTER_LOST_GOROUTINES);
		return 0;
	}
	if (from == GO_DEAD)
		read_birth(&e);
	emit(&e, sizeof(e));
	return 0;
}

SEC("uprobe")
int goroutine_single(struct pt_regs *ctx)
{
	return change_status(ctx);
}

SEC("uprobe.multi")
int goroutine_multi(struct pt_regs *ctx)
{
	return change_status(ctx);
}

/* The g of the current thread: the goroutine's or that of the thread's scheduler. */
static __always_inline __u64 current_g(void)
{
#if defined(__TARGET_ARCH_x86)
	struct task_struct *task = (void *)bpf_get_current_task();

	return read_user_word(BPF_CORE_READ(task, thread.fsbase) + layout.tls);
#else
	struct pt_regs regs;

	if (user_regs(&regs))
		return 0;
	return regs.regs[28];
#endif
}

/* The current thread's ID in its own PID namespace, which is what Go knows. */
static __always_inline __u32 own_tid(void)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	void *numbers = (void *)pid + bpf_core_field_offset(pid->numbers);
	__u32 nr = 0;

	numbers += BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid);
	bpf_probe_read_kernel(&nr, sizeof(nr), numbers + bpf_core_field_offset(struct upid, nr));
	return nr;
}

/* Writes which goroutine the current thread is running, if that has changed. */
static __always_inline void see_goroutine(struct thread *t)
{
	struct event_goroutine e;
	__u64 g, m, goid = 0;

	if (!layout.cheap)
		return;
	if (!t->go_m) {
		g = current_g();
		m = g ? read_user_word(g + layout.m) : 0;
		/* Whatever the word is, it is an m if it knows this thread. */
		if (!m || read_user_word(m + layout.m_procid) != own_tid())
			return;
		t->go_m = m;
	}
	g = read_user_word(t->go_m + layout.m_curg);
	if (g)
		goid = read_user_word(g + layout.goid);
	if (goid == t->goid)
		return;
	t->goid = goid;
	count(COUNTER_GOROUTINE_HITS);
	fill_goroutine(&e, g, GO_RUNNING, GO_RUNNING);
	e.goid = goid;
	e.seen = 1;
	if (g)
		read_birth(&e);
	emit(&e, sizeof(e));
}
