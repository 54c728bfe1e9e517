/*
 * The C half of main.go: links without frame pointers, as in ../chain.c, which
 * end in a deed or in a call of Go.
 */
#define _GNU_SOURCE
#include "../deeds.h"
#include "_cgo_export.h"

NOINLINE long link0(int deed, int other, long b)
{
	switch (deed) {
	case SLEEP:
		return do_sleep(b) + 1;
	case FAULT:
		return do_fault(b) + 1;
	case SPIN:
		return do_spin(b) + 1;
	case WRITE:
		return do_write(b) + 1;
	}
	return back(deed, other) + b;
}

/* Each has a frame of another size, and something of its own to remember. */
#define LINK(n, next)                                                                                        \
	NOINLINE long link##n(int deed, int other, long b)                                                   \
	{                                                                                                    \
		volatile char room[n * 24];                                                                  \
		room[n] = b;                                                                                 \
		return link##next(deed, other, b + n) * 3 + room[n] + b + deed;                              \
	}
LINK(1, 0)
LINK(2, 1)
LINK(3, 2)
LINK(4, 3)
LINK(5, 4)
LINK(6, 5)
LINK(7, 6)
LINK(8, 7)
LINK(9, 8)
LINK(10, 9)

long down(int deed, int other)
{
	return link10(deed, other, sink) + 1;
}
