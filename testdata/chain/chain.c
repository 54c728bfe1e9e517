/*
 * Calls link40 → link39 → … → link1 and there sleeps, faults, spins and writes,
 * each at the end of a chain of its own: whose stack holds which functions is
 * known. Frames differ in size, and values live in callee-saved registers over
 * the calls, so that no call is a tail call and no frame looks like the next.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>

#include "deeds.h"

typedef long (*deed)(long);

NOINLINE long link0(deed d, long a, long b) { return d(a) + b; }

#define LINK(n, below)                                                                                       \
	NOINLINE long link##n(deed d, long a, long b)                                                        \
	{                                                                                                    \
		volatile char room[1 + (n * 37) % 211];                                                      \
		long x = a * 3 + n, y = b ^ a;                                                               \
		room[n % sizeof room] = (char)a;                                                             \
		long r = link##below(d, x, y);                                                               \
		return r * x + y + room[n % sizeof room];                                                    \
	}
LINK(1, 0) LINK(2, 1) LINK(3, 2) LINK(4, 3) LINK(5, 4) LINK(6, 5) LINK(7, 6) LINK(8, 7) LINK(9, 8) LINK(10, 9)
LINK(11, 10) LINK(12, 11) LINK(13, 12) LINK(14, 13) LINK(15, 14) LINK(16, 15) LINK(17, 16) LINK(18, 17) LINK(19, 18) LINK(20, 19)
LINK(21, 20) LINK(22, 21) LINK(23, 22) LINK(24, 23) LINK(25, 24) LINK(26, 25) LINK(27, 26) LINK(28, 27) LINK(29, 28) LINK(30, 29)
LINK(31, 30) LINK(32, 31) LINK(33, 32) LINK(34, 33) LINK(35, 34) LINK(36, 35) LINK(37, 36) LINK(38, 37) LINK(39, 38) LINK(40, 39)

int main(int argc, char **argv)
{
	(void)argv;
	sink += link40(do_sleep, argc, 1);
	sink += link40(do_fault, argc, 2);
	sink += link40(do_spin, argc, 3);
	sink += link40(do_write, argc, 4);
	return 0;
}
