/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The Extensions API by plain sockets: one connection, one write a request, one
 * buffer for the answers. Nothing here allocates, so that what a subject costs
 * is what its source says.
 */
#ifndef SUBJECTS_LAMBDA_H
#define SUBJECTS_LAMBDA_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char lambda_host[64];
static char lambda_name[256];
static char lambda_id[128];
static char lambda_answer[16384];

static void lambda_fail(const char *what)
{
	perror(what);
	exit(70);
}

/* Opens a connection to AWS_LAMBDA_RUNTIME_API, which is ADDRESS:PORT. */
static int lambda_connect(void)
{
	const char *api = getenv("AWS_LAMBDA_RUNTIME_API");
	const char *colon = api ? strrchr(api, ':') : NULL;
	struct sockaddr_in to = { .sin_family = AF_INET };
	int fd;

	if (!colon || colon - api >= (int)sizeof(lambda_host)) {
		fprintf(stderr, "AWS_LAMBDA_RUNTIME_API is not ADDRESS:PORT\n");
		exit(64);
	}
	memcpy(lambda_host, api, colon - api);
	to.sin_port = htons(atoi(colon + 1));
	if (inet_pton(AF_INET, lambda_host, &to.sin_addr) != 1) {
		fprintf(stderr, "AWS_LAMBDA_RUNTIME_API is not an IPv4 address: %s\n", api);
		exit(64);
	}
	fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		lambda_fail("socket");
	if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0)
		lambda_fail("connect");
	return fd;
}

static const char *lambda_header(const char *name)
{
	const char *line = lambda_answer;
	size_t n = strlen(name);

	while ((line = strstr(line, "\r\n"))) {
		line += 2;
		if (!strncasecmp(line, name, n) && line[n] == ':') {
			line += n + 1;
			while (*line == ' ')
				line++;
			return line;
		}
		if (!strncmp(line, "\r\n", 2))
			break;
	}
	return NULL;
}

/* Sends a request in one write, and reads its answer whole; gives the status. */
static int lambda_request(int fd, const char *method, const char *path, const char *headers, const char *body)
{
	static char request[4096];
	size_t got = 0;
	int n;

	n = snprintf(request, sizeof(request), "%s %s HTTP/1.1\r\nHost: %s\r\n%sContent-Length: %zu\r\n\r\n%s", method, path,
		     lambda_host, headers, strlen(body), body);
	if (n >= (int)sizeof(request) || write(fd, request, n) != n)
		lambda_fail("write");
	for (;;) {
		const char *end, *length;
		ssize_t part = read(fd, lambda_answer + got, sizeof(lambda_answer) - 1 - got);

		if (part <= 0)
			lambda_fail("read");
		got += part;
		lambda_answer[got] = 0;
		end = strstr(lambda_answer, "\r\n\r\n");
		length = end ? lambda_header("Content-Length") : NULL;
		if (end && (size_t)(end + 4 - lambda_answer) + (length ? strtoul(length, NULL, 10) : 0) <= got)
			break;
		if (got == sizeof(lambda_answer) - 1)
			break;
	}
	return atoi(lambda_answer + strlen("HTTP/1.1 "));
}

static void lambda_register(int fd, const char *program)
{
	char headers[512];
	const char *slash = strrchr(program, '/');
	const char *id;

	snprintf(lambda_name, sizeof(lambda_name), "%s", slash ? slash + 1 : program);
	snprintf(headers, sizeof(headers), "Lambda-Extension-Name: %s\r\n", lambda_name);
	if (lambda_request(fd, "POST", "/2020-01-01/extension/register", headers, "{\"events\":[\"INVOKE\",\"SHUTDOWN\"]}") != 200) {
		fprintf(stderr, "register was refused: %s\n", lambda_answer);
		exit(70);
	}
	id = lambda_header("Lambda-Extension-Identifier");
	if (!id) {
		fprintf(stderr, "register gave no identifier\n");
		exit(70);
	}
	snprintf(lambda_id, sizeof(lambda_id), "%.*s", (int)strcspn(id, "\r\n"), id);
}

/* Asks for events until SHUTDOWN. */
static int lambda_next_loop(int fd)
{
	char headers[256];

	snprintf(headers, sizeof(headers), "Lambda-Extension-Identifier: %s\r\n", lambda_id);
	for (;;) {
		if (lambda_request(fd, "GET", "/2020-01-01/extension/event/next", headers, "") != 200)
			return 70;
		if (strstr(lambda_answer, "SHUTDOWN"))
			return 0;
	}
}

#endif
