/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Ticks of each CPU's sampling clock that hit a thread of the subject. */

SCRATCH(sample, event_sample);

SEC("perf_event")
int sample(struct bpf_perf_event_data *ctx)
{
	struct sample_record *r;
	struct pt_regs regs;
	struct thread *t;

	t = watched_thread();
	if (!t)
		return 0;
	count(COUNTER_SAMPLE_HITS);
	see_goroutine(t);
	r = scratch(sample);
	if (!r)
		return 0;
	fill_header(&r->e.h, EVENT_SAMPLE, 0);
	__builtin_memcpy(&regs, &ctx->regs, sizeof(regs));
	r->e.in_kernel = !REGS_IN_USER(&regs);
	r->e.pad = 0;
	if (!r->e.in_kernel || !user_regs(&regs))
		walk_user(&r->e.h, r->frames, &r->chunk, &regs);
	if (r->e.in_kernel)
		walk_kernel(ctx, &r->e.h, r->frames);
	emit_with_frames(r, sizeof(r->e));
	return 0;
}
