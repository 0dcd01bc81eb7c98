/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * init.c: process 1 of a container started with --init.
 *
 *     init NPATHS PATH... ARGV...
 *
 * Theory of operation. It starts the program as its only child, in a process group of its own that holds the
 * terminal, passes every signal on to it, reaps whatever else ends up here, and ends as the program did (128+n for
 * signal n). Descriptor 3 is the report: closed by a successful exec, else it carries what went wrong
 * (struct report), so that the parent can tell the two apart by end of file.
 * It runs from a sealed memfd: no process of the container can open the host's copy through /proc/1/exe.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include "walk.h"

#define REPORT 3

struct report {
	int32_t error;
	struct mc_program program;
};

static void start_program(char **argv, int npaths, const sigset_t *before)
{
	struct report report = { 0 };
	long r;

	setpgid(0, 0);
	tcsetpgrp(STDIN_FILENO, getpid()); /* fails where there is no terminal; SIGTTOU is blocked */
	prctl(PR_SET_NAME, "minicontainer");
	fcntl(REPORT, F_SETFD, FD_CLOEXEC);
	sigprocmask(SIG_SETMASK, before, NULL);
	/* the kernel lays the arguments one behind the other, as mc_exec wants its paths */
	r = mc_exec(argv[0], (uint32_t)npaths, (const char **)argv + npaths, (const char **)environ, &report.program);
	report.error = (int32_t)-r;
	if (write(REPORT, &report, sizeof(report)) < 0)
		_exit(125);
	_exit(127);
}

static int ended(int status)
{
	return WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
}

/* Reaps all that is to be reaped; -1 while the program lives, else what to end with. */
static int reap(pid_t program)
{
	int status, result = -1;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (pid == program)
			result = ended(status);
	return result;
}

int main(int argc, char **argv)
{
	sigset_t all, before;
	int npaths = argc > 2 ? atoi(argv[1]) : 0, result = -1, sig;
	pid_t program;

	if (npaths < 1 || argc < 3 + npaths)
		return 125;
	sigfillset(&all);
	sigprocmask(SIG_SETMASK, &all, &before);
	program = fork();
	if (program < 0)
		return 125;
	if (program == 0)
		start_program(argv + 2, npaths, &before);
	close(REPORT);
	while (result < 0) {
		if (sigwait(&all, &sig) != 0)
			continue;
		if (sig == SIGCHLD)
			result = reap(program);
		else
			kill(program, sig);
	}
	return result;
}
