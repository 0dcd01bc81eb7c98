/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * usernet.c: runs slirp4netns(1) or pasta(1) for the container of an ordinary user: starts it, forwards ports, and
 * ends it with the container.
 *
 *     usernet PID SLIRP4NETNS INTERFACE [--configure] [REQUEST...]
 *     usernet PID PASTA -- OPTION...
 *
 * Theory of operation. The parent-side plan of a start runs this program and waits for its end. Exit status 0: the
 * container has its interface, and slirp4netns's API has granted each REQUEST (JSON); otherwise standard error has the
 * reason. A supervisor remains, an orphan. It waits for the end of the container (a pidfd) and then kills slirp4netns
 * or pasta, which also ends with the supervisor (PR_SET_PDEATHSIG). slirp4netns's --exit-fd would need a process that
 * holds the descriptor, and pasta of 2023 does not notice the end of a process. pasta writes its --pid file, here a
 * pipe, when it is ready.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define TIMEOUT 10000 /* milliseconds until slirp4netns is ready, or has answered */
#define READY_FD 3
#define MAX_ARGUMENTS 64

struct job {
	const char *pid, *program, *interface;
	char **requests, **options; /* slirp4netns's; pasta's */
	char directory[64], path[80]; /* of the API's socket */
	int configures;                 /* slirp4netns brings the interface up, with addresses and routes */
	int output;                     /* a memfd: the program's standard output and error */
};

__attribute__((noreturn)) static void fail(const char *subject, const char *reason)
{
	fprintf(stderr, "%s: %s\n", subject, reason);
	exit(1);
}

/* ---- the program */

static void slirp_arguments(const struct job *job, const char **argv)
{
	static char api[96], number[16];
	int n = 0;

	snprintf(api, sizeof(api), "--api-socket=%s", job->path);
	snprintf(number, sizeof(number), "--ready-fd=%d", READY_FD);
	argv[n++] = "slirp4netns";
	if (job->configures)
		argv[n++] = "--configure";
	argv[n++] = "--mtu=65520";
	argv[n++] = "--disable-host-loopback";
	argv[n++] = number;
	if (job->requests && *job->requests)
		argv[n++] = api;
	argv[n++] = job->pid;
	argv[n++] = job->interface;
	argv[n] = NULL;
}

static void pasta_arguments(const struct job *job, const char **argv)
{
	static char ready[32];
	int n = 0;

	snprintf(ready, sizeof(ready), "/proc/self/fd/%d", READY_FD);
	argv[n++] = "pasta";
	for (char **option = job->options; *option; option++)
		argv[n++] = *option;
	argv[n++] = "--foreground";
	argv[n++] = "--pid";
	argv[n++] = ready;
	argv[n++] = job->pid;
	argv[n] = NULL;
}

__attribute__((noreturn)) static void execute(const struct job *job, int ready)
{
	const char *argv[2 * MAX_ARGUMENTS];
	int null = open("/dev/null", O_RDWR);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	(job->options ? pasta_arguments : slirp_arguments)(job, argv);
	dup2(null, 0);
	dup2(job->output, 1);
	dup2(job->output, 2);
	dup2(ready, READY_FD);
	syscall(SYS_close_range, READY_FD + 1, ~0u, 0);
	execv(job->program, (char **)argv);
	dprintf(2, "%s: %s\n", job->program, strerror(errno));
	_exit(127);
}

/* The last line of the program's output: the reason of a failure. */
static const char *last_line(const struct job *job)
{
	static char text[4096];
	long n = pread(job->output, text, sizeof(text) - 1, 0);
	char *line;

	while (n > 0 && text[n - 1] == '\n')
		n--;
	text[n > 0 ? n : 0] = 0;
	line = strrchr(text, '\n');
	return *text ? (line ? line + 1 : text) : "ended without a message";
}

static void remove_api_directory(const struct job *job)
{
	if (*job->directory) {
		unlink(job->path);
		rmdir(job->directory);
	}
}

/* Reports an error as fail(), and leaves nothing behind. */
__attribute__((noreturn)) static void give_up(const struct job *job, const char *what, const char *reason)
{
	remove_api_directory(job);
	fail(what, reason);
}

static pid_t start(const struct job *job)
{
	int ready[2];
	char byte;
	pid_t pid;
	struct pollfd polled;

	if (pipe2(ready, O_CLOEXEC) < 0)
		give_up(job, "pipe2", strerror(errno));
	pid = fork();
	if (pid < 0)
		give_up(job, "fork", strerror(errno));
	if (pid == 0)
		execute(job, ready[1]);
	close(ready[1]);
	polled = (struct pollfd){ ready[0], POLLIN, 0 };
	if (poll(&polled, 1, TIMEOUT) <= 0 || read(ready[0], &byte, 1) != 1) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		give_up(job, job->program, last_line(job));
	}
	close(ready[0]);
	return pid;
}

/* ---- ports */

static void create_api_directory(struct job *job)
{
	snprintf(job->directory, sizeof(job->directory), "/tmp/minicontainer-usernet-XXXXXX");
	if (!mkdtemp(job->directory))
		fail(job->directory, strerror(errno));
	snprintf(job->path, sizeof(job->path), "%s/api", job->directory);
}

/* Sends one request to slirp4netns's API: NULL, or the reason of a failure. */
static const char *request_port(const struct job *job, const char *request)
{
	static char answer[1024];
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	struct timeval limit = { TIMEOUT / 1000, 0 };
	size_t length = strlen(request), have = 0;
	long n;
	int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, job->path);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
	if (connect(s, (struct sockaddr *)&address, sizeof(address)) < 0 || write(s, request, length) != (long)length)
		return strerror(errno);
	shutdown(s, SHUT_WR);
	while (have < sizeof(answer) - 1 && (n = read(s, answer + have, sizeof(answer) - 1 - have)) > 0)
		have += (size_t)n;
	answer[have] = 0;
	close(s);
	return strstr(answer, "\"return\"") ? NULL : *answer ? answer : "no answer";
}

static void forward(const struct job *job, pid_t program)
{
	for (char **request = job->requests; request && *request; request++) {
		const char *reason = request_port(job, *request);

		if (reason) {
			kill(program, SIGKILL);
			give_up(job, *request, reason);
		}
	}
}

/* ---- the supervisor */

static void wait_and_kill(int container, pid_t program)
{
	int fd = (int)syscall(SYS_pidfd_open, program, 0);
	struct pollfd polled[] = { { container, POLLIN, 0 }, { fd, POLLIN, 0 } };

	while (poll(polled, 2, -1) < 0 && errno == EINTR)
		;
	kill(program, SIGKILL);
	waitpid(program, NULL, 0);
	_exit(0);
}

static void supervise(struct job *job, int container, int done)
{
	pid_t program;
	int null;

	setsid();
	if (job->requests && *job->requests)
		create_api_directory(job);
	program = start(job);
	forward(job, program);
	remove_api_directory(job);
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	for (int i = 0; i < 3; i++)
		dup2(null, i);
	if (write(done, "", 1) != 1)
		_exit(1);
	close(done);
	close(job->output);
	wait_and_kill(container, program);
}

int main(int argc, char **argv)
{
	struct job job = { 0 };
	int done[2], container;
	char byte;

	syscall(SYS_close_range, 3, ~0u, 0); /* do not keep the caller's descriptors open */
	signal(SIGPIPE, SIG_DFL); /* Python ignores it, and pasta of 2023 does not run if it is ignored */
	if (argc < 4 || argc > MAX_ARGUMENTS)
		fail("usernet", "PID SLIRP4NETNS INTERFACE [--configure] [REQUEST...], or PID PASTA -- OPTION...");
	job.pid = argv[1];
	job.program = argv[2];
	job.interface = argv[3];
	job.configures = argc > 4 && !strcmp(argv[4], "--configure");
	if (strcmp(argv[3], "--"))
		job.requests = argv + 4 + job.configures;
	else
		job.options = argv + 4;
	job.output = memfd_create("usernet-output", MFD_CLOEXEC);
	container = (int)syscall(SYS_pidfd_open, atoi(argv[1]), 0);
	if (container < 0 || pipe2(done, O_CLOEXEC) < 0)
		fail("usernet", strerror(errno));
	switch (fork()) {
	case -1:
		fail("fork", strerror(errno));
	case 0:
		close(done[0]);
		supervise(&job, container, done[1]);
	}
	close(done[1]);
	return read(done[0], &byte, 1) == 1 ? 0 : 1;
}
