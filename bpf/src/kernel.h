/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The few kernel types that the programs read, declared with only the fields
 * they use: CO-RE finds the true offsets on the kernel at hand. One header for
 * all architectures instead of a vmlinux.h for each.
 */
#ifndef INITPROF_KERNEL_H
#define INITPROF_KERNEL_H

typedef unsigned char __u8;
typedef unsigned short __u16;
typedef unsigned int __u32;
typedef unsigned long long __u64;
typedef signed char __s8;
typedef short __s16;
typedef int __s32;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;
typedef _Bool bool;

/* linux/bpf.h, as far as it is used. */
enum bpf_map_type {
	BPF_MAP_TYPE_HASH = 1,
	BPF_MAP_TYPE_ARRAY = 2,
	BPF_MAP_TYPE_PERCPU_ARRAY = 6,
	BPF_MAP_TYPE_RINGBUF = 27,
};
enum { BPF_ANY = 0 };
enum { BPF_F_NO_PREALLOC = 1 };
enum { BPF_RB_NO_WAKEUP = 1, BPF_RB_FORCE_WAKEUP = 2 };
enum { BPF_RB_AVAIL_DATA = 0 };

#define core __attribute__((preserve_access_index))

#if defined(__TARGET_ARCH_x86)

/* What the kernel saves on entry; its layout is ABI (ptrace). */
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx;
	unsigned long r11, r10, r9, r8, ax, cx, dx, si, di;
	unsigned long orig_ax, ip, cs, flags, sp, ss;
};
#define REGS_IP(r) ((r)->ip)
#define REGS_SP(r) ((r)->sp)
#define REGS_FP(r) ((r)->bp)
#define REGS_LR(r) 0
#define REGS_IN_USER(r) (((r)->cs & 3) != 0)
#define REGS_GO_ARG0(r) ((r)->ax) /* Go's ABIInternal */
#define REGS_GO_ARG1(r) ((r)->bx)
#define REGS_GO_ARG2(r) ((r)->cx)
#define REGS_ARG0(r) ((r)->di)
#define REGS_ARG1(r) ((r)->si)
#define REGS_ARG2(r) ((r)->dx)
#define REGS_ARG3(r) ((r)->r10)
#define REGS_ARG4(r) ((r)->r8)
#define REGS_ARG5(r) ((r)->r9)
#define REGS_RETURN(r) ((r)->ax)
#define REGS_GO_G(r) ((r)->r14) /* Go's ABIInternal */
#define THREAD_POINTER(task) BPF_CORE_READ(task, thread.fsbase)
#define RETURN_ON_STACK 1
#define RETURN_POPS 8 /* bytes that a return takes off the stack */

#define NR_WRITE 1
#define NR_OPEN 2
#define NR_WRITEV 20
#define NR_CONNECT 42
#define NR_ACCEPT 43
#define NR_SENDTO 44
#define NR_SENDMSG 46
#define NR_EXECVE 59
#define NR_CREAT 85
#define NR_READLINK 89
#define NR_GETPPID 110
#define NR_OPENAT 257
#define NR_READLINKAT 267
#define NR_ACCEPT4 288
#define NR_SENDMMSG 307
#define NR_URETPROBE 335 /* how return probes come back since 6.11 … */
#define NR_UPROBE 336	 /* … and optimised entry probes since 6.18 */
#define NR_EXECVEAT 322
#define NR_OPENAT2 437

#elif defined(__TARGET_ARCH_arm64)

struct pt_regs { /* begins with struct user_pt_regs, which is ABI */
	unsigned long regs[31];
	unsigned long sp, pc, pstate;
};
#define REGS_IP(r) ((r)->pc)
#define REGS_SP(r) ((r)->sp)
#define REGS_FP(r) ((r)->regs[29])
#define REGS_LR(r) ((r)->regs[30])
#define REGS_IN_USER(r) (((r)->pstate & 0xf) == 0) /* EL0t */
#define REGS_GO_ARG0(r) ((r)->regs[0])
#define REGS_GO_ARG1(r) ((r)->regs[1])
#define REGS_GO_ARG2(r) ((r)->regs[2])
#define REGS_ARG0(r) ((r)->regs[0]) /* at entry; orig_x0 differs on restart only */
#define REGS_ARG1(r) ((r)->regs[1])
#define REGS_ARG2(r) ((r)->regs[2])
#define REGS_ARG3(r) ((r)->regs[3])
#define REGS_ARG4(r) ((r)->regs[4])
#define REGS_ARG5(r) ((r)->regs[5])
#define REGS_RETURN(r) ((r)->regs[0])
#define REGS_GO_G(r) ((r)->regs[28]) /* Go's ABIInternal */
#define THREAD_POINTER(task) BPF_CORE_READ(task, thread.uw.tp_value)
#define RETURN_ON_STACK 0
#define RETURN_POPS 0

#define NR_OPENAT 56
#define NR_WRITE 64
#define NR_WRITEV 66
#define NR_READLINKAT 78
#define NR_GETPPID 173
#define NR_ACCEPT 202
#define NR_CONNECT 203
#define NR_SENDTO 206
#define NR_SENDMSG 211
#define NR_EXECVE 221
#define NR_ACCEPT4 242
#define NR_SENDMMSG 269
#define NR_EXECVEAT 281
#define NR_OPENAT2 437

#else
#error "unknown architecture"
#endif

struct bpf_perf_event_data { /* uapi/linux/bpf_perf_event.h */
	struct pt_regs regs;
	__u64 sample_period;
	__u64 addr;
};

typedef struct {
	int counter;
} atomic_t;

struct signal_struct {
	atomic_t live;
} core;

struct xol_area {
	unsigned long vaddr;
} core;

struct uprobes_state {
	struct xol_area *xol_area;
} core;

struct mm_struct {
	unsigned long start_stack;
	unsigned long saved_auxv[2];
	struct uprobes_state uprobes_state;
} core;

struct inode {
	unsigned short i_mode;
} core;

struct file {
	struct inode *f_inode;
	void *private_data;
} core;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} core;

struct files_struct {
	struct fdtable *fdt;
} core;

struct in6_addr {
	union {
		__be32 u6_addr32[4];
	} in6_u;
} core;

struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
} core;

struct sock {
	struct sock_common __sk_common;
} core;

struct socket {
	struct sock *sk;
} core;

struct upid {
	int nr;
} core;

struct pid {
	unsigned int level;
	struct upid numbers[1];
} core;

struct thread_struct {
	unsigned long fsbase; /* x86 */
	struct {
		unsigned long tp_value;
	} uw; /* arm64 */
} core;

struct task_struct {
	int pid;
	int tgid;
	char comm[16];
	int exit_code;
	void *stack;
	struct signal_struct *signal;
	struct mm_struct *mm;
	struct files_struct *files;
	unsigned int __state;
	unsigned long min_flt;
	unsigned long maj_flt;
	struct pid *thread_pid;
	struct thread_struct thread;
	int pagefault_disabled;
} core;

struct linux_binprm {
	const char *filename;
} core;

struct hrtimer;
struct irqaction;

/* uapi/linux/uio.h and socket.h, as a 64-bit process lays them out. */
struct user_iovec {
	__u64 base;
	__u64 len;
};
struct user_msghdr {
	__u64 name;
	__u64 namelen;
	__u64 iov;
	__u64 iovlen;
};

#endif
