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
 * FILTER is the number of instructions of a seccomp filter in descriptor 5, 0 for none; execute.c loads it. Process 1
 * loads it too, otherwise the program could make forbidden calls in process 1 (ptrace(2)). It loads it before the
 * program starts, and makes only four different system calls afterwards (container/seccomp, CALLS_OF_INIT).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "helpers/execute.h"
#include "helpers/start.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define PAGE 4096

MC_START(init_main);

/* SIGTTOU is blocked, otherwise TIOCSPGRP would stop this process. Without a terminal TIOCSPGRP fails. */
static void take_foreground(void)
{
	int32_t self = (int32_t)mc_sys0(SYS_getpid);

	mc_sys2(SYS_setpgid, 0, 0);
	mc_sys3(SYS_ioctl, 0, TIOCSPGRP, MC_PTR(&self));
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
			result = MC_INTERNAL_ERROR; /* the filter forbids rt_sigtimedwait */
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

/* Loads the filter in process 1, while the program's process waits. With no_new_privs this needs no capability. */
static void confine_process_1(int *confined)
{
	long r = 0;

	if (mc_has_filter()) {
		mc_sys5(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
		mc_drop_inheritable(1);
		r = mc_load_filter();
	}
	__atomic_store_n(confined, r < 0 ? (int)r : 1, __ATOMIC_RELEASE);
}

/* The filter may forbid every system call that could signal its end, so this process polls shared memory. */
static void wait_for_process_1(const int *confined, long parent)
{
	int r;

	while ((r = __atomic_load_n(confined, __ATOMIC_ACQUIRE)) == 0) {
		if (mc_sys0(SYS_getppid) != parent)
			mc_end(MC_INTERNAL_ERROR);
		mc_sys0(SYS_sched_yield);
	}
	if (r < 0)
		mc_fail(MC_NO_FILTER, r);
}

__attribute__((noreturn)) static void run_as_process_1(const char *limits, char **paths, uint32_t npaths, char **envp)
{
	const uint64_t all = ~0ull;
	int *confined = (int *)mc_sys(SYS_mmap, 0, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
				      MC_FD(-1), 0);
	uint64_t before = 0;
	long program, parent;

	if ((unsigned long)confined > -(unsigned long)PAGE)
		mc_end(MC_INTERNAL_ERROR);
	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("init")); /* the kernel has set the memfd's name */
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), MC_PTR(&before), 8);
	program = mc_sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0); /* fork(2) */
	if (program < 0)
		mc_end(MC_INTERNAL_ERROR);
	if (program == 0) {
		parent = mc_sys0(SYS_getppid);
		take_foreground();
		mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
		wait_for_process_1(confined, parent);
		mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&before), 0, 8);
		mc_execute(limits, parent, paths[0], npaths, (const char **)paths + npaths, (const char **)envp);
	}
	mc_sys1(SYS_close, MC_REPORT);
	confine_process_1(confined);
	mc_end(serve(program, &all));
}

__attribute__((noreturn, used)) static void init_main(long *stack)
{
	char **argv = (char **)(stack + 1), **envp = argv + stack[0] + 1;
	long npaths = stack[0] > 4 ? mc_number(argv[3]) : 0, instructions = stack[0] > 4 ? mc_number(argv[2]) : -1;

	if (npaths < 1 || stack[0] < 5 + npaths || instructions < 0 || instructions > BPF_MAXINSNS)
		mc_end(MC_INTERNAL_ERROR);
	mc_read_filter(instructions);
	if (is_exec(argv[0]))
		mc_execute(argv[1], 0, argv[4], (uint32_t)npaths, (const char **)argv + 4 + npaths,
			   (const char **)envp);
	run_as_process_1(argv[1], argv + 4, (uint32_t)npaths, envp);
}
