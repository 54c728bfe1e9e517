/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* What changed between kernels 5.10 and today, each with the change it bridges. */
#ifndef INITPROF_CORE_FIXES_H
#define INITPROF_CORE_FIXES_H

/* 5.14 renamed task_struct.state to __state (2f064a59a11f). */
struct task_struct___before_5_14 {
	long state;
} core;

/* Of a task that a tracepoint gave. */
static __always_inline __u32 task_state(struct task_struct *task)
{
	if (bpf_core_field_exists(task->__state))
		return task->__state;
	return BPF_CORE_READ((struct task_struct___before_5_14 *)task, state);
}

/* 5.15 added bpf_task_pt_regs (dd6e10fbd9fb). */
enum bpf_func_id___pt_regs { BPF_FUNC_task_pt_regs___pt_regs = 175 };

#define KERNEL_STACK_SIZE 16384 /* both architectures, 4 KiB pages, no KASAN */

/* CO-RE looks up the size of the kernel's own struct pt_regs by this flavour. */
struct pt_regs___kernel {
	unsigned long kernel_only;
} core;

static __always_inline int user_regs_by_stack(struct task_struct *task, struct pt_regs *to)
{
	void *stack = BPF_CORE_READ(task, stack);
	__u64 size = bpf_core_type_size(struct pt_regs___kernel);

	return bpf_probe_read_kernel(to, sizeof(*to), stack + KERNEL_STACK_SIZE - size);
}

/* The registers with which a task that a tracepoint gave entered the kernel. */
static __always_inline int user_regs_of(struct task_struct *task, struct pt_regs *to)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id___pt_regs, BPF_FUNC_task_pt_regs___pt_regs))
		return bpf_probe_read_kernel(to, sizeof(*to), (void *)bpf_task_pt_regs(task));
	return user_regs_by_stack(task, to);
}

/* Those of the current task. */
static __always_inline int user_regs(struct pt_regs *to)
{
	if (bpf_core_enum_value_exists(enum bpf_func_id___pt_regs, BPF_FUNC_task_pt_regs___pt_regs))
		return user_regs_of((void *)bpf_get_current_task_btf(), to);
	return user_regs_by_stack((void *)bpf_get_current_task(), to);
}

#endif
