/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * init.c: process 1 of a container started with --init; and what comes before a program that is not to begin as a
 * part of its maker.
 *
 *     minicontainer-init LIMITS NPATHS PATH... ARGV...
 *     minicontainer-exec LIMITS NPATHS PATH... ARGV...
 *
 * Theory of operation. As minicontainer-exec it becomes the program, no more: /proc/self/exe is then this memfd when the
 * program's path is walked, and not the executable of who makes the container. Else it starts the program as its only child, in a process group of its own that holds the
 * terminal, passes every signal on to it, reaps whatever else ends up here, and ends as the program did (128+n for
 * signal n). LIMITS are the program's resource limits (prlimit(2)), a letter and two hexadecimal numbers each: they are set
 * last, so that none of them stops what comes before, and for process 1 as well, which the program could trace.
 * Descriptor 3 is the report: closed by a successful exec, else it carries what went wrong
 * (struct report), so that the parent can tell the two apart by end of file.
 * It runs from a sealed memfd: no process of the container can open the host's copy through /proc/1/exe. The memfd is
 * filled at each start, so the program is freestanding: no libc, a few kilobytes.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "start.h"
#include "syscalls.h"
#include "walk.h"

#define REPORT 3
#define OUR_ERROR 125

MC_START(init_main);

static struct report {
	int32_t error;
	struct mc_program program;
} report;

__attribute__((noreturn)) static void end(int status)
{
	for (;;)
		mc_sys1(SYS_exit_group, status);
}

/* SIGTTOU is blocked, else taking the terminal would stop us; it fails where there is none. */
static void lead_the_terminal(void)
{
	int32_t self = (int32_t)mc_sys0(SYS_getpid);

	mc_sys2(SYS_setpgid, 0, 0);
	mc_sys3(SYS_ioctl, 0, TIOCSPGRP, MC_PTR(&self));
}

static uint64_t hexadecimal(const char *text)
{
	uint64_t n = 0;

	for (int i = 0; i < 16; i++)
		n = n << 4 | (uint64_t)(text[i] <= '9' ? text[i] - '0' : text[i] - 'a' + 10);
	return n;
}

/* Of this process, and of `other`, where it is not 0. */
static long limit(const char *limits, long other)
{
	long r = 0;

	for (; *limits && r == 0; limits += 33) {
		struct rlimit64 wish = { hexadecimal(limits + 1), hexadecimal(limits + 17) };

		r = mc_sys4(SYS_prlimit64, 0, *limits - 'a', MC_PTR(&wish), 0);
		if (r == 0 && other)
			r = mc_sys4(SYS_prlimit64, other, *limits - 'a', MC_PTR(&wish), 0);
	}
	return r;
}

/* `paths` are `npaths` strings, one behind the other, as the kernel lays arguments and mc_exec wants them. */
__attribute__((noreturn)) static void become(const char *limits, long init, char **paths, uint32_t npaths, char **envp)
{
	const char **argv = (const char **)paths + npaths;
	long r;

	mc_sys3(SYS_fcntl, REPORT, F_SETFD, FD_CLOEXEC);
	report.program.path = -1;
	r = limit(limits, init);
	if (r == 0)
		r = mc_exec(paths[0], npaths, argv, (const char **)envp, &report.program);
	report.error = (int32_t)-r;
	mc_sys3(SYS_write, REPORT, MC_PTR(&report), sizeof(report));
	end(127);
}

/* Reaps all that is to be reaped; -1 while the program lives, else what to end with. */
static int reap(long program)
{
	int status = 0, result = -1;
	long pid;

	while ((pid = mc_sys4(SYS_wait4, -1, MC_PTR(&status), WNOHANG, 0)) > 0)
		if (pid == program)
			result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return result;
}

/* Every signal is blocked, and fetched here: no handler, no race. */
static int serve(long program, const uint64_t *all)
{
	int result = -1;

	while (result < 0) {
		long sig = mc_sys4(SYS_rt_sigtimedwait, MC_PTR(all), 0, 0, 8);

		if (sig == SIGCHLD)
			result = reap(program);
		else if (sig > 0)
			mc_sys2(SYS_kill, program, sig);
	}
	return result;
}

/* Which of the two we are: the last letter tells. */
static int is_exec(const char *name)
{
	char last = 0;

	while (*name)
		last = *name++;
	return last == 'c';
}

static long number(const char *text)
{
	long n = 0;

	for (; *text >= '0' && *text <= '9' && n < 1 << 20; text++)
		n = 10 * n + *text - '0';
	return *text ? -1 : n;
}

__attribute__((noreturn, used)) static void init_main(long *stack)
{
	const uint64_t all = ~0ull;
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
	long npaths = stack[0] > 3 ? number(argv[2]) : 0, program, self;
	uint64_t before = 0;

	if (npaths < 1 || stack[0] < 4 + npaths)
		end(OUR_ERROR);
	if (is_exec(argv[0]))
		become(argv[1], 0, argv + 3, (uint32_t)npaths, envp);
	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("init")); /* the kernel gave it the memfd's */
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), MC_PTR(&before), 8);
	self = mc_sys0(SYS_getpid);
	program = mc_sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* fork(2) */
	if (program < 0)
		end(OUR_ERROR);
	if (program == 0) {
		lead_the_terminal();
		mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
		mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&before), 0, 8);
		become(argv[1], self, argv + 3, (uint32_t)npaths, envp);
	}
	mc_sys1(SYS_close, REPORT);
	end(serve(program, &all));
}
