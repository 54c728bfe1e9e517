// Package unwind turns a copied stack — registers, the bytes at the stack
// pointer — into return addresses, by the call frame information (CFI) of the
// objects that the stack's code lies in.
//
// It stands between probe and capture: a Tracer copies stacks of code without
// frame pointers while it records, and unwinds them when the cold start is
// over. Only addresses leave this package; a copied stack holds the subject's
// data and is let go.
//
// A Table reads the CFI of one ELF object (.eh_frame through its header's
// search table, else .eh_frame or .debug_frame whole), an Unwinder walks. Code
// without CFI is walked by frame pointer where it is Go's or where that leads
// to code again. Where Go and C call each other it goes on on the other's stack.
//
// Sources: DWARF 5 section 6.4; Linux Standard Base 5.0, chapter 10 (exception
// frames); AADWARF64; for signal frames arch/*/include/uapi/asm/sigcontext.h
// of Linux.
//
// Everything read here was written by others: tables are bounded in time and
// memory, and a malformed one costs its stacks and nothing else.
package unwind
