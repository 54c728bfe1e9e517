// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * All programs of initprof in one object, so that they share their maps; each
 * family has a header of its own and can fail to load or attach alone.
 */
#include "kernel.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>

#include "events.h"
#include "core_fixes.bpf.h"
#include "maps.bpf.h"
#include "cgo.bpf.h"
#include "stack.bpf.h"
#include "goroutines.bpf.h"
#include "syscalls.bpf.h"
#include "calls.bpf.h"
#include "sched.bpf.h"
#include "faults.bpf.h"
#include "samples.bpf.h"
#include "marks.bpf.h"

/* Keeps the types that Go needs in BTF, which forgets those of local variables. */
const struct {
	struct event_header header;
	struct event_waking waking;
	struct event_fork fork;
	struct event_exit exit;
	struct event_mark mark;
	struct event_mapping mapping;
	struct event_goroutine goroutine;
	struct event_stack stack;
	struct event_go_stack go_stack;
	enum event_kind kind;
	enum counter counter;
	enum truncation truncation;
	enum switch_state switch_state;
	enum wake_context wake_context;
	enum mark_kind mark_kind;
	enum go_status go_status;
	enum stack_limits stack_limits;
} * go_types __attribute__((unused));

char LICENSE[] SEC("license") = "Dual BSD/GPL";
