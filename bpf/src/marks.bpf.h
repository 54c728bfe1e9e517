/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Instructions that end a phase: entry points, main, symbols that a rule names,
 * and the marker function through which extension/checkpoint passes. Each
 * program exists twice, since one that is declared for uprobe-multi (6.6)
 * cannot be attached through a perf event, nor the reverse.
 */

#define MARK_TEXT 64

struct mark_record {
	struct event_mark e;
	char text[MARK_TEXT];
};

static __always_inline int mark_address(struct pt_regs *regs, __u64 id, __u64 value)
{
	struct event_mark e = {};

	if (!watched_thread())
		return 0;
	count(COUNTER_MARK_HITS);
	fill_header(&e.h, EVENT_MARK, sizeof(e));
	e.ip = REGS_IP(regs);
	e.id = id;
	e.value = value;
	e.kind = MARK_ADDRESS;
	emit(&e, sizeof(e));
	return 0;
}

/* Go's own functions: the goroutine in its register, and of runtime.doInit1,
 * which is given a package's initTask, the first init function behind its head. */
static __always_inline int mark_go(struct pt_regs *regs)
{
	__u64 value = 0;

	if (!active)
		return 0;
	bpf_probe_read_user(&value, sizeof(value), (void *)REGS_GO_ARG0(regs) + 8);
	return mark_address(regs, REGS_GO_G(regs), value);
}

/* Arguments of checkpoint.mark, in Go's stack-based calling convention (ABI0):
 * they follow the return address (amd64) or the saved link register (arm64). */
struct mark_arguments {
	__u64 name;
	__u64 length;
	__u64 kind;
	__u64 id;
};

static __always_inline int mark_checkpoint(struct pt_regs *regs)
{
	struct mark_arguments a;
	struct mark_record r = {};
	__u64 length;

	if (!watched_thread())
		return 0;
	count(COUNTER_MARK_HITS);
	fill_header(&r.e.h, EVENT_MARK, sizeof(r));
	r.e.ip = REGS_IP(regs);
	if (bpf_probe_read_user(&a, sizeof(a), (void *)REGS_SP(regs) + 8))
		return 0;
	r.e.kind = a.kind;
	r.e.id = a.id;
	length = a.length;
	if (length > MARK_TEXT)
		length = MARK_TEXT;
	if (length && bpf_probe_read_user(r.text, length, (void *)a.name))
		length = 0;
	r.e.h.text_size = length;
	emit(&r, sizeof(r));
	return 0;
}

SEC("uprobe")
int address_single(struct pt_regs *ctx)
{
	return mark_address(ctx, 0, 0);
}

SEC("uprobe.multi")
int address_multi(struct pt_regs *ctx)
{
	return mark_address(ctx, 0, 0);
}

SEC("uprobe")
int go_single(struct pt_regs *ctx)
{
	return mark_go(ctx);
}

SEC("uprobe.multi")
int go_multi(struct pt_regs *ctx)
{
	return mark_go(ctx);
}

SEC("uprobe")
int checkpoint_single(struct pt_regs *ctx)
{
	return mark_checkpoint(ctx);
}

SEC("uprobe.multi")
int checkpoint_multi(struct pt_regs *ctx)
{
	return mark_checkpoint(ctx);
}
