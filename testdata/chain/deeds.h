/* What the chains of calls end in. */
#pragma once

#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

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
