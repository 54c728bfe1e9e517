/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Calls of functions that the tracer chose, from entry to return: those of the
 * dynamic loader, and whatever sets up certificates and allocators. Never in
 * Go, whose stacks move: a return probe would crash it.
 *
 * A call is left by its return, or by a longjmp over it (a dlopen that fails):
 * open calls are therefore told apart by the stack pointer, not paired as last
 * in, first out.
 */

RECORD(call, event_call);

#define MAX_OPEN_CALLS 8 /* per thread: dlopen → relocation → constructor → dlopen … */

struct open_call {
	__u64 ktime_ns;
	__u64 ip;
	__u64 sp; /* at the entry */
	__u64 return_address;
	__u64 args[CALL_ARGUMENTS];
	__u64 object_base;
	__u64 object_dynamic;
	__u32 minor_faults; /* of the thread at the entry */
	__u32 major_faults;
	__u32 reads; /* enum call_reads: what is still to be read */
	__u32 pad;
};

struct open_calls {
	__u32 tgid;
	__u32 depth;
	/* The object that the thread bound a symbol for last; mostly it is the next one's too. */
	__u64 link_map;
	__u64 link_map_base;
	__u64 link_map_dynamic;
	__u64 link_maps; /* state of the count below when it was read */
	struct open_call calls[MAX_OPEN_CALLS];
	/* Records are made here and not in a buffer of the CPU: programs on
	 * uprobes can be preempted by each other. */
	struct call_record record;
	struct text_record text;
};

/* Calls of the loader other than those that bind a symbol: an object may have gone. */
__u64 changes_of_objects;

enum call_reads {
	CALL_PLAIN,
	CALL_BINDING, /* the same, of a function that may be called thousands of times */
	CALL_OBJECT,  /* the first argument is a struct link_map */
	CALL_TEXT0,   /* the first argument is a string */
	CALL_TEXT1,   /* the second one is */
};

/* tid → the calls that it is inside of, outermost first */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 512);
	__type(key, __u32);
	__type(value, struct open_calls);
} calls SEC(".maps");

/* 0 → an empty one: too large for the programs' stack */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct open_calls);
} no_calls SEC(".maps");

/* The open calls of the current thread, if it is watched. Only watched threads
 * are in the map: one look-up suffices for all calls but the first. */
static __always_inline struct open_calls *open_calls_of(__u64 id)
{
	__u32 tid = (__u32)id, zero = 0;
	struct open_calls *c;

	if (!active)
		return 0;
	c = bpf_map_lookup_elem(&calls, &tid);
	if (c)
		return c;
	if (!current_thread())
		return 0;
	c = bpf_map_lookup_elem(&no_calls, &zero);
	if (!c || bpf_map_update_elem(&calls, &tid, c, BPF_ANY)) {
		count(COUNTER_LOST_CALLS);
		return 0;
	}
	c = bpf_map_lookup_elem(&calls, &tid);
	if (c)
		c->tgid = id >> 32;
	return c;
}

static __always_inline void forget_calls(__u32 tid)
{
	bpf_map_delete_elem(&calls, &tid);
}

static __always_inline void read_faults(__u32 *minor, __u32 *major)
{
	struct task_struct *task = (void *)bpf_get_current_task_btf();

	*minor = task->min_flt;
	*major = task->maj_flt;
}

/* Notes the object that a call is given. */
static __always_inline void read_object(struct open_calls *c, struct open_call *open)
{
	__u64 link_map[3] = {}; /* l_addr, l_name, l_ld: the part of it that is ABI (link.h) */

	bpf_probe_read_user(link_map, sizeof(link_map), (void *)open->args[0]);
	c->link_map = open->args[0];
	c->link_map_base = link_map[0];
	c->link_map_dynamic = link_map[2];
	c->link_maps = changes_of_objects;
}

/* Fills a record from an open call; end 0 says that it did not return. */
static __always_inline void fill_call(struct call_record *r, const struct open_call *open, __u64 id,
				      __u64 end)
{
	int i;

	fill_header_at(&r->e.h, EVENT_CALL, 0, id, open->ktime_ns);
	r->e.end_ns = end;
	r->e.ip = open->ip;
	for (i = 0; i < CALL_ARGUMENTS; i++)
		r->e.args[i] = open->args[i];
	r->e.ret = 0;
	r->e.return_slot = open->sp;
	r->e.return_address = open->return_address;
	r->e.object_base = open->object_base;
	r->e.object_dynamic = open->object_dynamic;
	read_faults(&r->e.minor_faults, &r->e.major_faults);
	r->e.minor_faults -= open->minor_faults;
	r->e.major_faults -= open->major_faults;
}

/* Sends the string that a call was given. Its page may not be in memory yet at
 * the entry; the function itself will have read it by the end. */
static __always_inline void send_text(struct text_record *r, struct open_call *open, __u64 id)
{
	const void *user_text;
	long size;

	if (open->reads == CALL_TEXT0)
		user_text = (void *)open->args[0];
	else if (open->reads == CALL_TEXT1)
		user_text = (void *)open->args[1];
	else
		return;
	fill_header_at(&r->e.h, EVENT_CALL_TEXT, 0, id, open->ktime_ns);
	r->e.nr = 0;
	r->e.pad = 0;
	size = bpf_probe_read_user_str(r->text, MAX_TEXT, user_text);
	if (size <= 0)
		return;
	open->reads = CALL_PLAIN;
	r->e.h.text_size = size - 1;
	size = (size + 7) & ~7;
	barrier_var(size);
	if (size < 0 || size > MAX_TEXT)
		return;
	r->e.h.size = sizeof(r->e) + size;
	emit(r, sizeof(r->e) + size);
}

/* Takes the innermost call off, which was left by a longjmp. */
static __always_inline void abandon(struct open_calls *c, __u64 id)
{
	__u32 top = c->depth - 1;

	if (top >= MAX_OPEN_CALLS) /* for the verifier: it never is */
		return;
	c->depth = top;
	send_text(&c->text, &c->calls[top], id);
	fill_call(&c->record, &c->calls[top], id, 0);
	emit_with_frames(&c->record, sizeof(c->record.e));
}

/* Whether the function returns to the page of a return probe: it was reached by
 * a tail call of a function that is probed as well. */
static __always_inline bool returns_to_probe(const struct pt_regs *regs)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	__u64 address = REGS_LR(regs);

	if (RETURN_ON_STACK)
		bpf_probe_read_user(&address, sizeof(address), (void *)REGS_SP(regs));
	return address == BPF_CORE_READ(task, mm, uprobes_state.xol_area, vaddr);
}

static __always_inline int call_enter(struct pt_regs *regs, enum call_reads reads)
{
	__u64 id = bpf_get_current_pid_tgid();
	struct open_calls *c;
	struct open_call *open;
	__u32 top;
	int i;

	c = open_calls_of(id);
	if (!c)
		return 0;
	count(COUNTER_CALL_HITS);
	/* Frames below this one's are gone, a longjmp left them; so is one at the
	 * same place, unless it ended in a tail call. */
	for (i = 0; i < MAX_OPEN_CALLS; i++) {
		top = c->depth - 1;
		if (top >= MAX_OPEN_CALLS || c->calls[top].sp > REGS_SP(regs) ||
		    (c->calls[top].sp == REGS_SP(regs) && returns_to_probe(regs)))
			break;
		abandon(c, id);
	}
	top = c->depth;
	if (top >= MAX_OPEN_CALLS) {
		count(COUNTER_LOST_CALLS);
		return 0;
	}
	open = &c->calls[top];
	open->ktime_ns = bpf_ktime_get_ns();
	open->ip = REGS_IP(regs);
	open->sp = REGS_SP(regs);
	open->return_address = 0;
	if (RETURN_ON_STACK && reads != CALL_BINDING)
		bpf_probe_read_user(&open->return_address, sizeof(open->return_address),
				    (void *)REGS_SP(regs));
	open->args[0] = REGS_ARG0(regs);
	open->args[1] = REGS_ARG1(regs);
	open->args[2] = REGS_ARG2(regs);
	open->object_base = open->object_dynamic = 0;
	if (reads != CALL_BINDING)
		__sync_fetch_and_add(&changes_of_objects, 1);
	if (reads == CALL_OBJECT || reads == CALL_BINDING) {
		if (reads == CALL_OBJECT || c->link_map != open->args[0] ||
		    c->link_maps != changes_of_objects)
			read_object(c, open);
		open->object_base = c->link_map_base;
		open->object_dynamic = c->link_map_dynamic;
	}
	read_faults(&open->minor_faults, &open->major_faults);
	c->depth = top + 1;
	open->reads = reads;
	send_text(&c->text, open, id);
	return 0;
}

static __always_inline int call_return(struct pt_regs *regs)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 entered = REGS_SP(regs) - RETURN_POPS;
	__u64 id = bpf_get_current_pid_tgid();
	struct call_record *r;
	struct open_calls *c;
	__u32 top;
	int i;

	c = open_calls_of(id);
	if (!c)
		return 0;
	count(COUNTER_CALL_HITS);
	for (i = 0; i < MAX_OPEN_CALLS; i++) {
		top = c->depth - 1;
		if (top >= MAX_OPEN_CALLS || c->calls[top].sp > entered)
			break;
		if (c->calls[top].sp != entered) {
			abandon(c, id);
			continue;
		}
		c->depth = top;
		r = &c->record;
		send_text(&c->text, &c->calls[top], id);
		fill_call(r, &c->calls[top], id, now);
		r->e.ret = REGS_RETURN(regs);
		if (RETURN_ON_STACK && !r->e.return_address)
			r->e.return_address = REGS_IP(regs);
		if (with_stacks)
			walk_user(&r->e.h, r->frames, &r->chunk, regs);
		emit_with_frames(r, sizeof(r->e));
		return 0;
	}
	count(COUNTER_LOST_CALLS);
	return 0;
}

#define CALL_PROGRAMS(name, body)                                                                            \
	SEC("uprobe")                                                                                        \
	int name##_single(struct pt_regs *ctx)                                                               \
	{                                                                                                    \
		return body;                                                                                 \
	}                                                                                                    \
	SEC("uprobe.multi")                                                                                  \
	int name##_multi(struct pt_regs *ctx)                                                                \
	{                                                                                                    \
		return body;                                                                                 \
	}

CALL_PROGRAMS(call_plain, call_enter(ctx, CALL_PLAIN))
CALL_PROGRAMS(call_binding, call_enter(ctx, CALL_BINDING))
CALL_PROGRAMS(call_object, call_enter(ctx, CALL_OBJECT))
CALL_PROGRAMS(call_text0, call_enter(ctx, CALL_TEXT0))
CALL_PROGRAMS(call_text1, call_enter(ctx, CALL_TEXT1))

SEC("uretprobe")
int call_return_single(struct pt_regs *ctx)
{
	return call_return(ctx);
}

SEC("uretprobe.multi")
int call_return_multi(struct pt_regs *ctx)
{
	return call_return(ctx);
}
