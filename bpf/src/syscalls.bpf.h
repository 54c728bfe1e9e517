/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/* Every system call of the subject, the files it names and the requests it sends. */

SCRATCH(syscall, event_syscall);

#define REQUEST_TEXT 128

struct text_record {
	struct event_text e;
	char text[MAX_TEXT];
};

/* 0 → a record being made */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct text_record);
} text_scratch SEC(".maps");

#define HOLDER_MAGIC 0x696e697470726f66ULL /* "initprof" */

/* The holder tells who it is by arguments that getppid ignores. */
static __always_inline void meet_holder(const struct pt_regs *regs)
{
	__u64 id = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)id;
	struct thread fresh = {.tgid = id >> 32, .syscall_nr = -1};
	struct task_struct *task = (void *)bpf_get_current_task();

	if (REGS_ARG0(regs) != HOLDER_MAGIC || !nonce || REGS_ARG1(regs) != nonce)
		return;
	nonce = 0;
	fresh.stack_top = BPF_CORE_READ(task, mm, start_stack);
	if (bpf_map_update_elem(&threads, &tid, &fresh, BPF_ANY)) {
		count(COUNTER_LOST_THREADS);
		return;
	}
	subject_tgid = id >> 32;
}

static __always_inline void emit_path(__u32 nr, const void *user_path)
{
	struct text_record *r = scratch(text);
	long size;

	if (!r)
		return;
	fill_header(&r->e.h, EVENT_PATH, 0);
	r->e.nr = nr;
	r->e.pad = 0;
	size = bpf_probe_read_user_str(r->text, MAX_TEXT, user_path);
	if (size <= 0)
		return;
	r->e.h.text_size = size - 1;
	size = (size + 7) & ~7;
	barrier_var(size);
	if (size < 0 || size > MAX_TEXT)
		return;
	r->e.h.size = sizeof(r->e) + size;
	emit(r, sizeof(r->e) + size);
}

/* The socket behind descriptor fd of the current task; 0: it is none. */
static __always_inline struct sock *socket_of(__u32 fd)
{
	struct task_struct *task = (void *)bpf_get_current_task();
	struct fdtable *fdt = BPF_CORE_READ(task, files, fdt);
	struct file **slots = BPF_CORE_READ(fdt, fd);
	struct file *file = 0;
	struct socket *socket;

	if (fd >= BPF_CORE_READ(fdt, max_fds))
		return 0;
	bpf_probe_read_kernel(&file, sizeof(file), &slots[fd]);
	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & 0170000) != 0140000)
		return 0;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

/* Tells the ends of a connection in arguments that the calls which make one leave unused. */
static __always_inline void note_ends(struct thread *t, __s64 ret)
{
	__be32 local = 0, remote = 0; /* the last four bytes, which a mapped IPv4 address has too */
	struct sock *sk;
	__u32 fd = ret;

	if (t->syscall_nr == NR_CONNECT)
		fd = t->args[0];
	else if (t->syscall_nr != NR_ACCEPT && t->syscall_nr != NR_ACCEPT4)
		return;
	t->args[4] = t->args[5] = 0;
	sk = socket_of(fd);
	if (!sk)
		return;
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case 2: /* AF_INET */
		local = BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr);
		remote = BPF_CORE_READ(sk, __sk_common.skc_daddr);
		break;
	case 10: /* AF_INET6 */
		local = BPF_CORE_READ(sk, __sk_common.skc_v6_rcv_saddr.in6_u.u6_addr32[3]);
		remote = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[3]);
		break;
	default:
		return;
	}
	t->args[4] = (__u64)local << 16 | BPF_CORE_READ(sk, __sk_common.skc_num);
	t->args[5] = (__u64)remote << 16 | __builtin_bswap16(BPF_CORE_READ(sk, __sk_common.skc_dport));
}

/* Whether descriptor fd of the current task is a socket to the runtime API. */
static __always_inline int to_sandbox(__u32 fd)
{
	struct sock *sk = socket_of(fd);

	if (!sk || BPF_CORE_READ(sk, __sk_common.skc_dport) != sandbox_port)
		return 0;
	switch (BPF_CORE_READ(sk, __sk_common.skc_family)) {
	case 2: /* AF_INET: 127.0.0.0/8 */
		return (BPF_CORE_READ(sk, __sk_common.skc_daddr) & 0xff) == 127;
	case 10: { /* AF_INET6: ::1 or ::ffff:127.0.0.0/104 */
		__be32 last = BPF_CORE_READ(sk, __sk_common.skc_v6_daddr.in6_u.u6_addr32[3]);

		return (last & 0xff) == 127 || last == 0x01000000;
	}
	}
	return 0;
}

/* Sends method and path of the request that begins at data; nothing behind them. */
static __always_inline void emit_request(__u32 nr, __u32 fd, const void *data)
{
	struct text_record *r;
	__u64 start = 0;
	__u32 spaces = 0, length = 0;
	int i;

	if (bpf_probe_read_user(&start, sizeof(start), data))
		return;
	/* "GET /20", "PUT /20", "POST /20": all paths of the API begin with a year. */
	if ((start & 0xffffffffffffffULL) != 0x30322f20544547ULL &&
	    (start & 0xffffffffffffffULL) != 0x30322f20545550ULL && start != 0x30322f2054534f50ULL)
		return;
	if (!to_sandbox(fd))
		return;
	r = scratch(text);
	if (!r)
		return;
	fill_header(&r->e.h, EVENT_REQUEST, sizeof(r->e) + REQUEST_TEXT);
	r->e.nr = nr;
	r->e.pad = 0;
	if (bpf_probe_read_user_str(r->text, REQUEST_TEXT, data) <= 0)
		return;
	/* The size of the record is fixed, since a size that depended on the text
	 * would make the verifier follow each of its 2^128 ways. */
	for (i = 0; i < REQUEST_TEXT; i++) {
		char c = r->text[i];

		if (c == ' ')
			spaces++;
		if (spaces >= 2 || c == '?' || c < ' ')
			spaces = 2;
		if (spaces >= 2)
			r->text[i] = 0;
		else
			length++;
	}
	r->e.h.text_size = length;
	emit(r, sizeof(r->e) + REQUEST_TEXT);
}

static __always_inline const void *first_buffer(const void *iovec)
{
	struct user_iovec v = {};

	bpf_probe_read_user(&v, sizeof(v), iovec);
	return (void *)v.base;
}

SEC("tp_btf/sys_enter")
int BPF_PROG(sys_enter, struct pt_regs *regs, long nr)
{
	struct thread *t;
	const void *path = 0, *data = 0;

	if (!active)
		return 0;
	t = current_thread();
	if (!t) {
		if (nr == NR_GETPPID)
			meet_holder(regs);
		return 0;
	}
#ifdef NR_URETPROBE
	if (nr == NR_URETPROBE || nr == NR_UPROBE) /* the tracer's, not the subject's */
		return 0;
#endif
	count(COUNTER_SYSCALL_HITS);
	see_goroutine(t); /* before the call's own time */
	t->args[0] = REGS_ARG0(regs);
	t->args[1] = REGS_ARG1(regs);
	t->args[2] = REGS_ARG2(regs);
	t->args[3] = REGS_ARG3(regs);
	t->args[4] = REGS_ARG4(regs);
	t->args[5] = REGS_ARG5(regs);
	t->syscall_nr = nr;
	t->syscall_ns = bpf_ktime_get_ns();
	t->stack = 0;

	switch (nr) {
#ifdef NR_OPEN
	case NR_OPEN:
	case NR_CREAT:
	case NR_READLINK:
#endif
	case NR_EXECVE:
		path = (void *)t->args[0];
		break;
	case NR_OPENAT:
	case NR_OPENAT2:
	case NR_READLINKAT:
	case NR_EXECVEAT:
		path = (void *)t->args[1];
		break;
	case NR_WRITE:
	case NR_SENDTO:
		data = (void *)t->args[1];
		break;
	case NR_WRITEV:
		if (sandbox_port)
			data = first_buffer((void *)t->args[1]);
		break;
	case NR_SENDMSG:
	case NR_SENDMMSG:
		if (sandbox_port) {
			struct user_msghdr m = {};

			bpf_probe_read_user(&m, sizeof(m), (void *)t->args[1]);
			data = first_buffer((void *)m.iov);
		}
		break;
	}
	if (path)
		emit_path(nr, path);
	else if (data && sandbox_port)
		emit_request(nr, t->args[0], data);
	return 0;
}

static __always_inline void emit_syscall(struct thread *t, struct pt_regs *regs, __u64 end, __s64 ret)
{
	struct syscall_record *r = scratch(syscall);

	if (!r)
		return;
	fill_header_at(&r->e.h, EVENT_SYSCALL, 0, bpf_get_current_pid_tgid(), t->syscall_ns);
	r->e.end_ns = end;
	r->e.ret = ret;
	r->e.nr = t->syscall_nr;
	r->e.pad = 0;
	__builtin_memcpy(r->e.args, t->args, sizeof(r->e.args));
	if (regs && with_stacks)
		walk_user(&r->e.h, r->frames, &r->chunk, regs);
	t->syscall_nr = -1;
	t->stack = 0;
	emit_with_frames(r, sizeof(r->e));
}

SEC("tp_btf/sys_exit")
int BPF_PROG(sys_exit, struct pt_regs *regs, long ret)
{
	struct thread *t;
	__u64 now;

	if (!active)
		return 0;
	t = current_thread();
	/* A new thread returns from clone without having entered it. */
	if (!t || t->syscall_nr < 0)
		return 0;
	now = bpf_ktime_get_ns();
	note_ends(t, ret);
	emit_syscall(t, regs, now, ret);
	return 0;
}
