/* SPDX-License-Identifier: Apache-2.0 */
/*
 * extension [DEED [NUMBER]]: registers, does the deed, and asks for events
 * until SHUTDOWN. The deeds are what tests know the truth of:
 *
 *   none           nothing
 *   getppid N      N system calls getppid (1000)
 *   pages N        writes to N fresh pages (256): N minor faults more than with 0
 *   sleep N        sleeps N ms in one clock_nanosleep (25)
 *   crash          SIGSEGV
 *   exit N         ends with status N (0)
 *   hang           never asks for an event
 *   init-error     reports init/error and ends with status 1
 *   fork N         N children (3) which end at once and are waited for
 *   orphan         a child that outlives the registration and sleeps for an hour
 *   print N        N MB on the standard output (100)
 *   kill-group     SIGKILL to its own process group
 */
#define _GNU_SOURCE
#include "lambda.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

static void touch(long pages)
{
	long size = sysconf(_SC_PAGESIZE), i;
	volatile char *at;

	at = mmap(NULL, (pages + 1) * size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (at == MAP_FAILED)
		lambda_fail("mmap");
	/* A huge page would be one fault for many. */
	madvise((void *)at, (pages + 1) * size, MADV_NOHUGEPAGE);
	for (i = 0; i < pages; i++)
		at[i * size] = 1;
}

static void print(long megabytes)
{
	static char line[1 << 16];
	long i;
	size_t n;

	memset(line, '.', sizeof(line));
	for (n = 127; n < sizeof(line); n += 128)
		line[n] = '\n';
	for (i = 0; i < megabytes * 16; i++) {
		size_t sent = 0;

		while (sent < sizeof(line)) {
			ssize_t part = write(STDOUT_FILENO, line + sent, sizeof(line) - sent);

			if (part <= 0)
				lambda_fail("write");
			sent += part;
		}
	}
}

static void nap(long ms)
{
	struct timespec t = { .tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000 };

	nanosleep(&t, NULL);
}

int main(int argc, char **argv)
{
	const char *deed = argc > 1 ? argv[1] : "none";
	long n = argc > 2 ? atol(argv[2]) : -1;
	int fd = lambda_connect();
	long i;

	lambda_register(fd, argv[0]);
	if (!strcmp(deed, "none")) {
	} else if (!strcmp(deed, "getppid")) {
		for (i = 0; i < (n < 0 ? 1000 : n); i++)
			syscall(SYS_getppid);
	} else if (!strcmp(deed, "pages")) {
		touch(n < 0 ? 256 : n);
	} else if (!strcmp(deed, "sleep")) {
		nap(n < 0 ? 25 : n);
	} else if (!strcmp(deed, "crash")) {
		fprintf(stderr, "about to crash\n");
		*(volatile int *)8 = 1;
	} else if (!strcmp(deed, "exit")) {
		return n < 0 ? 0 : n;
	} else if (!strcmp(deed, "hang")) {
		for (;;)
			pause();
	} else if (!strcmp(deed, "init-error")) {
		char headers[512];

		snprintf(headers, sizeof(headers),
			 "Lambda-Extension-Identifier: %s\r\nLambda-Extension-Function-Error-Type: Extension.ConfigInvalid\r\n",
			 lambda_id);
		lambda_request(fd, "POST", "/2020-01-01/extension/init/error", headers,
			       "{\"errorMessage\":\"no such setting\",\"errorType\":\"Extension.ConfigInvalid\",\"stackTrace\":[]}");
		return 1;
	} else if (!strcmp(deed, "fork")) {
		for (i = 0; i < (n < 0 ? 3 : n); i++) {
			pid_t child = fork();

			if (child == 0)
				_exit(0);
			if (child < 0 || waitpid(child, NULL, 0) != child)
				lambda_fail("fork");
		}
	} else if (!strcmp(deed, "orphan")) {
		if (fork() == 0) {
			setsid();
			nap(3600 * 1000L);
			_exit(0);
		}
	} else if (!strcmp(deed, "print")) {
		print(n < 0 ? 100 : n);
	} else if (!strcmp(deed, "kill-group")) {
		kill(0, SIGKILL);
	} else {
		fprintf(stderr, "no such deed: %s\n", deed);
		return 64;
	}
	return lambda_next_loop(fd);
}
