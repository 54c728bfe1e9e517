// Package bpf holds the programs that watch a cold start inside the kernel:
// their C sources (src), and the objects and bindings generated from them,
// which are committed so that building needs no clang.
//
// It stands at the left end of the data flow: profiler/capture loads it and
// turns its records into events.
package bpf

//go:generate go run github.com/cilium/ebpf/cmd/bpf2go -target amd64,arm64 -cflags "-O2 -g -mcpu=v3 -Wall -Werror" -type event_header -type event_syscall -type event_text -type event_switch -type event_waking -type event_fork -type event_exec -type event_exit -type event_fault -type event_sample -type event_mark -type event_call -type open_calls -type open_call -type event_mapping -type event_stack -type event_go_stack -type event_goroutine -type go_status -type thread -type counter -type event_kind -type truncation -type switch_state -type wake_context -type mark_kind -type stack_limits Initprof src/initprof.bpf.c
