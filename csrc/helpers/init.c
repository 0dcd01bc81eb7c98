/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * init.c: process 1 of a container started with --init; and what comes before a program that is not to begin as a
 * part of its maker.
 *
 *     minicontainer-init LIMITS FILTER NPATHS PATH... ARGV...
 *     minicontainer-exec LIMITS FILTER NPATHS PATH... ARGV...
 *
 * Theory of operation. As minicontainer-exec it becomes the program, no more: /proc/self/exe is then this memfd when the
 * program's path is walked, and not the executable of who makes the container. Else it starts the program as its only child, in a process group of its own that holds the
 * terminal, passes every signal on to it, reaps whatever else ends up here, and ends as the program did (128+n for
 * signal n). LIMITS are the program's resource limits (prlimit(2)), a letter and two hexadecimal numbers each: they are set
 * last, so that none of them stops what comes before, and for process 1 as well, which the program could trace.
 * Descriptor 3 is the report: closed by a successful exec, else it carries what went wrong
 * (struct report), so that the parent can tell the two apart at its end.
 * It runs from a sealed memfd: no process of the container can open the host's copy through /proc/1/exe. The memfd is
 * filled at each start, so the program is freestanding: no libc, a few kilobytes.
 *
 * FILTER is how many instructions descriptor 5 has of a filter of system calls, 0 for none. A user's profile knows nothing of
 * us, so all is done before it is loaded but the exec itself. Process 1 lives under it too, else the program could have
 * what it forbids done by process 1 (ptrace(2)): before the program begins it is under it, and from then on it makes four
 * calls (container/seccomp, CALLS_OF_INIT). What went wrong has to be told with none: the report is a page that the pipe
 * shares with us (vmsplice(2)).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "helpers/start.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define REPORT 3
#define FILTER 5
#define OUR_ERROR 125
#define PAGE 4096

MC_START(init_main);

static struct report {
	int32_t error;
	struct mc_program program;
} report __attribute__((aligned(PAGE)));

static struct sock_filter filter[BPF_MAXINSNS];
static unsigned short length; /* of it */

/* A filter can forbid even this: what traps ends too. */
__attribute__((noreturn)) static void end(int status)
{
	mc_sys1(SYS_exit_group, status);
	__builtin_trap();
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

/* What is inheritable we were given to load the filter by, where new privileges are not barred (compiler.py); no program
 * gets it. `at_once`: nor have we it any more. */
static void give_up_rights(int at_once)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = { 0 };
	int given = 0;

	mc_sys2(SYS_capget, MC_PTR(&header), MC_PTR(caps));
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		given |= caps[i].inheritable != 0;
		if (at_once) {
			caps[i].effective &= ~caps[i].inheritable;
			caps[i].permitted &= ~caps[i].inheritable;
		}
		caps[i].inheritable = 0;
	}
	if (given && mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(caps)) < 0)
		end(OUR_ERROR);
}

static void read_filter(long instructions)
{
	if (!instructions)
		return;
	if (mc_sys4(SYS_pread64, FILTER, MC_PTR(filter), sizeof(filter), 0) != instructions * (long)sizeof(*filter))
		end(OUR_ERROR);
	mc_sys1(SYS_close, FILTER);
	length = (unsigned short)instructions;
}

static long load_filter(void)
{
	struct sock_fprog program = { length, filter };

	return length ? mc_sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, MC_PTR(&program)) : 0;
}

/* Tells why the program is not executed: the page is in the pipe already, or is written to it. */
__attribute__((noreturn)) static void give_up(long error, int shared)
{
	report.error = (int32_t)-error;
	if (!shared)
		mc_sys3(SYS_write, REPORT, MC_PTR(&report), sizeof(report));
	end(127);
}

/* `paths` are `npaths` strings, one behind the other, as the kernel lays arguments and mc_exec wants them. */
__attribute__((noreturn)) static void become(const char *limits, long init, char **paths, uint32_t npaths, char **envp)
{
	const char **argv = (const char **)paths + npaths;
	const struct iovec page = { &report, sizeof(report) };
	int shared;
	long r;

	mc_sys3(SYS_fcntl, REPORT, F_SETFD, FD_CLOEXEC);
	report.program.path = -1;
	give_up_rights(0);
	r = limit(limits, init);
	if (r < 0)
		give_up(r, 0);
	if (!length)
		give_up(mc_exec(paths[0], npaths, argv, (const char **)envp, &report.program, 1), 0);
	r = mc_program_inspect(paths[0], npaths, &report.program); /* which also makes the page ours: it is written to */
	if (r < 0)
		give_up(r, 0);
	shared = mc_sys4(SYS_vmsplice, REPORT, MC_PTR(&page), 1, 0) == sizeof(report);
	r = load_filter();
	if (r < 0) {
		report.program.path = MC_NO_FILTER;
		give_up(r, shared);
	}
	give_up(mc_exec(paths[0], npaths, argv, (const char **)envp, &report.program, 0), shared);
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
		else if (sig != -EINTR)
			result = OUR_ERROR; /* the filter forbids it */
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

/* The program waits for it. Nobody here can be given rights any more, so to load it takes none. */
static void confine_process_1(int *confined)
{
	long r = 0;

	if (length) {
		mc_sys5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		give_up_rights(1);
		r = load_filter();
	}
	__atomic_store_n(confined, r < 0 ? (int)r : 1, __ATOMIC_RELEASE);
}

/* No call of process 1's is left to tell it by: it is seen in memory, within the time that it takes to load a filter. */
static void wait_for_process_1(const int *confined, long parent)
{
	int r;

	while ((r = __atomic_load_n(confined, __ATOMIC_ACQUIRE)) == 0) {
		if (mc_sys0(SYS_getppid) != parent)
			end(OUR_ERROR);
		mc_sys0(SYS_sched_yield);
	}
	if (r < 0) {
		report.program.path = MC_NO_FILTER;
		give_up(r, 0);
	}
}

__attribute__((noreturn)) static void be_process_1(const char *limits, char **paths, uint32_t npaths, char **envp)
{
	const uint64_t all = ~0ull;
	int *confined = (int *)mc_sys(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, MC_FD(-1), 0);
	uint64_t before = 0;
	long program, parent;

	if ((unsigned long)confined > -(unsigned long)PAGE)
		end(OUR_ERROR);
	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("init")); /* the kernel gave it the memfd's */
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), MC_PTR(&before), 8);
	program = mc_sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* fork(2) */
	if (program < 0)
		end(OUR_ERROR);
	if (program == 0) {
		parent = mc_sys0(SYS_getppid);
		lead_the_terminal();
		mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
		wait_for_process_1(confined, parent);
		mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&before), 0, 8);
		become(limits, parent, paths, npaths, envp);
	}
	mc_sys1(SYS_close, REPORT);
	confine_process_1(confined);
	end(serve(program, &all));
}

__attribute__((noreturn, used)) static void init_main(long *stack)
{
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
	long npaths = stack[0] > 4 ? number(argv[3]) : 0, instructions = stack[0] > 4 ? number(argv[2]) : -1;

	if (npaths < 1 || stack[0] < 5 + npaths || instructions < 0 || instructions > BPF_MAXINSNS)
		end(OUR_ERROR);
	read_filter(instructions);
	if (is_exec(argv[0]))
		become(argv[1], 0, argv + 4, (uint32_t)npaths, envp);
	be_process_1(argv[1], argv + 4, (uint32_t)npaths, envp);
}
