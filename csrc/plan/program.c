/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * program.c: runs a program (newuidmap(1), slirp4netns(1)) as a step of a plan, in a child that shares the caller's
 * memory until its exec.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <signal.h>

#include "plan/clone.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define STACK (12 * 1024)

struct program {
	const char *path, **argv;
	int stderr_fd;
};

static int program_main(void *arg)
{
	const struct program *p = arg;
	const uint64_t none = 0;
	const char *environment[] = { NULL };

	mc_sys3(SYS_dup3, MC_FD(p->stderr_fd), 2, 0);
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&none), 0, 8);
	mc_sys3(SYS_execve, MC_PTR(p->path), MC_PTR(p->argv), MC_PTR(environment));
	return 127;
}

/* The child's end sends no signal to the caller, which may wait for children of its own (clone(2), __WALL). */
long mc_run_program(const char *path, const char **argv, int stderr_fd)
{
	_Alignas(16) char stack[STACK];
	struct program p = { path, argv, stderr_fd };
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_VFORK | CLONE_CLEAR_SIGHAND,
		.stack = MC_PTR(stack),
		.stack_size = sizeof(stack),
	};
	siginfo_t info = { 0 };
	long r, pid = mc_clone3_call(&args, sizeof(args), program_main, &p);

	if (pid < 0)
		return pid;
	do
		r = mc_sys5(SYS_waitid, P_PID, (uint64_t)pid, MC_PTR(&info), WEXITED | __WALL, 0);
	while (r == -EINTR);
	if (r < 0)
		return r;
	return info.si_code == CLD_EXITED && info.si_status == 0 ? 0 : -ECHILD;
}
