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

static __always_inline int mark_address(struct pt_regs *regs)
{
	struct event_mark e = {};

	if (!watched_thread())
		return 0;
	count(COUNTER_MARK_HITS);
	fill_header(&e.h, EVENT_MARK, sizeof(e));
	e.ip = REGS_IP(regs);
	e.kind = MARK_ADDRESS;
	emit(&e, sizeof(e));
	return 0;
}

/* Go's own functions: the goroutine in its register, and of runtime.doInit1,
 * which is given a package's initTask, the first init function behind its head. */
static __always_inline int mark_go(struct pt_regs *regs)
{
	struct event_mark e = {};
	__u64 now;

	if (!active)
		return 0;
	now = bpf_ktime_get_ns();
	if (!watched_thread())
		return 0;
	count(COUNTER_MARK_HITS);
	fill_header_at(&e.h, EVENT_MARK, sizeof(e), bpf_get_current_pid_tgid(), now);
	e.ip = REGS_IP(regs);
	e.id = REGS_GO_G(regs);
	bpf_probe_read_user(&e.value, sizeof(e.value), (void *)REGS_GO_ARG0(regs) + 8);
	e.kind = MARK_ADDRESS;
	e.spent = bpf_ktime_get_ns() - now;
	emit(&e, sizeof(e));
	return 0;
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

/*
 * A static probe (USDT) initprof:checkpoint, of which the compiler chose where
 * the name's address and length are. The cookie holds two operands of 32 bits,
 * the address first: bits 0..4 the word of pt_regs, 5..6 enum operand_kind, 7 to
 * 8 the logarithm of its size in bytes, 9 whether it is signed, 16..31 a signed
 * offset or the constant itself (profiler/probe).
 */
enum operand_kind { OPERAND_REGISTER = 0, OPERAND_MEMORY = 1, OPERAND_CONSTANT = 2 };

static __always_inline __u64 read_operand(const struct pt_regs *regs, __u32 operand)
{
	__s64 offset = (__s32)operand >> 16;
	__u32 shift = 64 - (8 << (operand >> 7 & 3));
	__u64 value = 0;

	if ((operand >> 5 & 3) == OPERAND_CONSTANT)
		return offset;
	bpf_probe_read_kernel(&value, sizeof(value), (void *)regs + (operand & 31) * sizeof(value));
	if ((operand >> 5 & 3) == OPERAND_MEMORY &&
	    bpf_probe_read_user(&value, sizeof(value), (void *)(value + offset)))
		return 0;
	if (operand >> 9 & 1)
		return (__s64)(value << shift) >> shift;
	return value << shift >> shift;
}

static __always_inline int mark_usdt(struct pt_regs *regs)
{
	struct mark_record r = {};
	__u64 cookie, name, length;

	if (!watched_thread())
		return 0;
	count(COUNTER_MARK_HITS);
	cookie = bpf_get_attach_cookie(regs);
	name = read_operand(regs, (__u32)cookie);
	length = read_operand(regs, cookie >> 32);
	fill_header(&r.e.h, EVENT_MARK, sizeof(r));
	r.e.ip = REGS_IP(regs);
	r.e.kind = MARK_CHECKPOINT;
	if (length > MARK_TEXT)
		length = MARK_TEXT;
	if (length && bpf_probe_read_user(r.text, length, (void *)name))
		length = 0;
	r.e.h.text_size = length;
	emit(&r, sizeof(r));
	return 0;
}

SEC("uprobe")
int usdt_single(struct pt_regs *ctx)
{
	return mark_usdt(ctx);
}

SEC("uprobe.multi")
int usdt_multi(struct pt_regs *ctx)
{
	return mark_usdt(ctx);
}

SEC("uprobe")
int address_single(struct pt_regs *ctx)
{
	return mark_address(ctx);
}

SEC("uprobe.multi")
int address_multi(struct pt_regs *ctx)
{
	return mark_address(ctx);
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
