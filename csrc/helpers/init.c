/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * init.c: process 1 of a container with --init; or a program that is executed before the container's program, so that
 * the latter never runs in a process whose executable is the caller's.
 *
 *     minicontainer-init LIMITS FILTER NPATHS PATH... ARGV...
 *     minicontainer-exec LIMITS FILTER NPATHS PATH... ARGV...
 *
 * Theory of operation. As minicontainer-exec it only executes the program: while the kernel resolves the program's
 * path, /proc/self/exe is this memfd and not the caller's executable (CVE-2019-5736). Otherwise it starts the program
 * as its only child, in the terminal's foreground process group, forwards every signal to it, reaps orphans, and
 * exits with the program's status (128+n for signal n). LIMITS are the program's resource limits (prlimit(2)), a
 * letter and two hexadecimal numbers each. They are set last, so that they do not restrict earlier steps, and for
 * process 1 too, which the program could trace. Descriptor 3 is the report: a successful exec closes it, otherwise it
 * carries the error (struct report). Init runs from a sealed memfd, so no process of the container can open the host's
 * file through /proc/1/exe. The memfd is filled at each start, so init is small: it has no libc.
 *
 * FILTER is the number of instructions of a seccomp filter in descriptor 5, 0 for none. A user's profile may forbid
 * the system calls of init, so the filter is loaded last, before the exec. Process 1 loads the filter too, otherwise
 * the program could make forbidden calls in process 1 (ptrace(2)). Process 1 loads it before the program starts, and
 * makes only four different system calls afterwards (container/seccomp, CALLS_OF_INIT). The error report needs no
 * system call: it is a page that the pipe shares with this process (vmsplice(2)).
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
#define INTERNAL_ERROR 125
#define PAGE 4096

MC_START(init_main);

static struct report {
	int32_t error;
	struct mc_program program;
} report __attribute__((aligned(PAGE)));

static struct sock_filter filter[BPF_MAXINSNS];
static unsigned short length; /* of the filter */

/* A filter can forbid even exit_group: a trap ends the process too. */
__attribute__((noreturn)) static void end(int status)
{
	mc_sys1(SYS_exit_group, status);
	__builtin_trap();
}

/* SIGTTOU is blocked, otherwise TIOCSPGRP would stop this process. Without a terminal TIOCSPGRP fails. */
static void take_foreground(void)
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

/* Sets the limits of this process, and of `other` if that is not 0. */
static long limit(const char *limits, long other)
{
	long r = 0;

	for (; *limits && r == 0; limits += 33) {
		struct rlimit64 rlimit = { hexadecimal(limits + 1), hexadecimal(limits + 17) };

		r = mc_sys4(SYS_prlimit64, 0, *limits - 'a', MC_PTR(&rlimit), 0);
		if (r == 0 && other)
			r = mc_sys4(SYS_prlimit64, other, *limits - 'a', MC_PTR(&rlimit), 0);
	}
	return r;
}

/* Without no_new_privs, loading the filter needs a capability, which init gets as inheritable (compiler.py). The
 * program must not inherit it. `now`: this process drops it too. */
static void drop_inheritable(int now)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3] = { 0 };
	int any = 0;

	mc_sys2(SYS_capget, MC_PTR(&header), MC_PTR(caps));
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++) {
		any |= caps[i].inheritable != 0;
		if (now) {
			caps[i].effective &= ~caps[i].inheritable;
			caps[i].permitted &= ~caps[i].inheritable;
		}
		caps[i].inheritable = 0;
	}
	if (any && mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(caps)) < 0)
		end(INTERNAL_ERROR);
}

static void read_filter(long instructions)
{
	if (!instructions)
		return;
	if (mc_sys4(SYS_pread64, FILTER, MC_PTR(filter), sizeof(filter), 0) != instructions * (long)sizeof(*filter))
		end(INTERNAL_ERROR);
	mc_sys1(SYS_close, FILTER);
	length = (unsigned short)instructions;
}

static long load_filter(void)
{
	struct sock_fprog program = { length, filter };

	return length ? mc_sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, MC_PTR(&program)) : 0;
}

/* Reports the error and exits. With `shared`, the report's page is in the pipe already. */
__attribute__((noreturn)) static void fail(long error, int shared)
{
	report.error = (int32_t)-error;
	if (!shared)
		mc_sys3(SYS_write, REPORT, MC_PTR(&report), sizeof(report));
	end(127);
}

/* Executes the program. `paths` are `npaths` consecutive strings, as mc_exec needs them. */
__attribute__((noreturn)) static void execute(const char *limits, long init, char **paths, uint32_t npaths, char **envp)
{
	const char **argv = (const char **)paths + npaths;
	const struct iovec page = { &report, sizeof(report) };
	int shared;
	long r;

	mc_sys3(SYS_fcntl, REPORT, F_SETFD, FD_CLOEXEC);
	report.program.path = -1;
	drop_inheritable(0);
	r = limit(limits, init);
	if (r < 0)
		fail(r, 0);
	if (!length)
		fail(mc_exec(paths[0], npaths, argv, (const char **)envp, &report.program, 1), 0);
	/* This writes to `report`: from now on its page belongs to this process alone, and can be given to the pipe. */
	r = mc_program_inspect(paths[0], npaths, &report.program);
	if (r < 0)
		fail(r, 0);
	shared = mc_sys4(SYS_vmsplice, REPORT, MC_PTR(&page), 1, 0) == sizeof(report);
	r = load_filter();
	if (r < 0) {
		report.program.path = MC_NO_FILTER;
		fail(r, shared);
	}
	fail(mc_exec(paths[0], npaths, argv, (const char **)envp, &report.program, 0), shared);
}

/* Reaps all children that have ended. Returns -1 while the program lives, else its exit status. */
static int reap(long program)
{
	int status = 0, result = -1;
	long pid;

	while ((pid = mc_sys4(SYS_wait4, -1, MC_PTR(&status), WNOHANG, 0)) > 0)
		if (pid == program)
			result = WIFSIGNALED(status) ? 128 + WTERMSIG(status) : WEXITSTATUS(status);
	return result;
}

/* Forwards signals until the program ends. All signals are blocked, and received here: no handlers, no race. */
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
			result = INTERNAL_ERROR; /* the filter forbids rt_sigtimedwait */
	}
	return result;
}

/* Whether argv[0] is minicontainer-exec: by its last letter. */
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

/* Loads the filter in process 1, while the program's process waits. With no_new_privs this needs no capability. */
static void confine_process_1(int *confined)
{
	long r = 0;

	if (length) {
		mc_sys5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		drop_inheritable(1);
		r = load_filter();
	}
	__atomic_store_n(confined, r < 0 ? (int)r : 1, __ATOMIC_RELEASE);
}

/* The filter may forbid every system call that could signal its end, so this process polls shared memory. */
static void wait_for_process_1(const int *confined, long parent)
{
	int r;

	while ((r = __atomic_load_n(confined, __ATOMIC_ACQUIRE)) == 0) {
		if (mc_sys0(SYS_getppid) != parent)
			end(INTERNAL_ERROR);
		mc_sys0(SYS_sched_yield);
	}
	if (r < 0) {
		report.program.path = MC_NO_FILTER;
		fail(r, 0);
	}
}

__attribute__((noreturn)) static void run_as_process_1(const char *limits, char **paths, uint32_t npaths, char **envp)
{
	const uint64_t all = ~0ull;
	int *confined = (int *)mc_sys(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				      MC_FD(-1), 0);
	uint64_t before = 0;
	long program, parent;

	if ((unsigned long)confined > -(unsigned long)PAGE)
		end(INTERNAL_ERROR);
	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("init")); /* the kernel has set the memfd's name */
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), MC_PTR(&before), 8);
	program = mc_sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* fork(2) */
	if (program < 0)
		end(INTERNAL_ERROR);
	if (program == 0) {
		parent = mc_sys0(SYS_getppid);
		take_foreground();
		mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
		wait_for_process_1(confined, parent);
		mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&before), 0, 8);
		execute(limits, parent, paths, npaths, envp);
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
		end(INTERNAL_ERROR);
	read_filter(instructions);
	if (is_exec(argv[0]))
		execute(argv[1], 0, argv + 4, (uint32_t)npaths, envp);
	run_as_process_1(argv[1], argv + 4, (uint32_t)npaths, envp);
}
