/*
 * The C half of main.go: links without frame pointers, as in ../chain.c, which
 * end in a deed or in a call of Go.
 */
#define _GNU_SOURCE
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "_cgo_export.h"

#define NOINLINE __attribute__((noinline, noclone))

static volatile long sink;

NOINLINE long do_sleep(long n)
{
	struct timespec t = {0, 200000};
	for (int i = 0; i < 50; i++)
		n += nanosleep(&t, 0);
	return n;
}

NOINLINE long do_fault(long n)
{
	enum { PAGES = 256 };
	volatile char *at = mmap(0, PAGES * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	madvise((void *)at, PAGES * 4096, MADV_NOHUGEPAGE);
	for (int i = 0; i < PAGES; i++)
		at[i * 4096] = n;
	return at[4096] + n;
}

NOINLINE long do_spin(long n)
{
	struct timespec begin, now;
	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &begin);
	do {
		for (int i = 0; i < 100000; i++)
			sink += i ^ n;
		clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
	} while ((now.tv_sec - begin.tv_sec) * 1000000000L + now.tv_nsec - begin.tv_nsec < 100000000L);
	return sink;
}

NOINLINE long do_write(long n)
{
	for (int i = 0; i < 200; i++)
		n += write(2, "", 0);
	return n;
}

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
