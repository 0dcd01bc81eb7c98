/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * spawn.c: the parent side: creates the child that walks a plan, and waits for it; small reads and writes of files.
 *
 * Theory of operation. The child is made by clone3(CLONE_VM | CLONE_VFORK) on a stack of its own, which lies in
 * this frame: the calling thread sleeps until the child has exec'd or ended, so the frame outlives the child.
 * No memory is copied, whatever the caller's size, and the OOM killer spares the caller (in_vfork). Signals are
 * blocked around the clone, and CLONE_CLEAR_SIGHAND resets the handlers: no handler of the caller can run in the
 * child, on the caller's memory (as in musl's posix_spawn). CLONE_PARENT_SETTID stores the pid before the child
 * runs, for the thread that walks the parent-side plan.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/wait.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "plan/clone.h"
#include "plan/dumpable.h"
#include "plan/parent.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define CHILD_STACK (48 * 1024)   /* the sibling's stack lies in it */
#define SIBLING_STACK (24 * 1024)

/* ---- the child */

static int fork_sibling(struct mc_run *run);

/* Walks the steps from `first` on. Returns the child's exit status, if none of them is an exec. */
static int walk_rest(struct mc_run *run, uint32_t first)
{
	int r = mc_plan_walk_from(run, first);

	return (r == MC_FORKS ? fork_sibling(run) : r) < 0 ? 127 : 0;
}

static int sibling_main(void *arg)
{
	struct mc_run *run = arg;

	return walk_rest(run, (uint32_t)run->at + 1);
}

/* Performs MC_FORK, the step run->at: a second child (with CLONE_PARENT, of the same parent) walks the rest. */
static int fork_sibling(struct mc_run *run)
{
	_Alignas(16) char stack[SIBLING_STACK];
	const uint32_t at = (uint32_t)run->at; /* a copy: the sibling, which shares this memory, changes run->at */
	const struct mc_step *s = step_at(run->plan, at);
	const int cgroup = (int)value(run, s, 1);
	struct clone_args args = {
		.flags = s->arg[0] | CLONE_VM | CLONE_VFORK | CLONE_PARENT_SETTID | CLONE_CLEAR_SIGHAND,
		.parent_tid = MC_PTR(&run->sibling),
		.stack = MC_PTR(stack),
		.stack_size = sizeof(stack),
	};
	long r;

	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)cgroup;
	}
	r = mc_clone3_call(&args, sizeof(args), sibling_main, run);
	run->records[at].result = r < 0 ? r : 0;
	run->records[at].end_ns = mc_now();
	if (r < 0)
		run->failed = at;
	return r < 0 ? (int)r : 0;
}

int mc_plan_walk_and_fork(struct mc_run *run)
{
	int r = mc_plan_walk(run);

	return r == MC_FORKS ? fork_sibling(run) : r;
}

static int child_main(void *arg)
{
	return mc_plan_walk_and_fork(arg) < 0 ? 127 : 0;
}

/* Reaps the first child, which only created the second. This process is the parent of the second too (CLONE_PARENT):
 * spawn->pid and spawn->pidfd become those of the second child. */
static int adopt_sibling(struct mc_spawn *spawn)
{
	long fd;

	mc_sys5(SYS_waitid, P_PIDFD, MC_FD(spawn->pidfd), 0, WEXITED, 0);
	mc_sys1(SYS_close, MC_FD(spawn->pidfd));
	spawn->pid = spawn->run.sibling;
	fd = mc_sys2(SYS_pidfd_open, spawn->pid, 0); /* close-on-exec by itself */
	spawn->pidfd = (int32_t)fd;
	return fd < 0 ? (int)fd : 0;
}

static int clone_child(struct mc_spawn *spawn)
{
	_Alignas(16) char stack[CHILD_STACK];
	struct clone_args args = {
		.flags = spawn->flags | CLONE_VM | CLONE_VFORK | CLONE_PIDFD | CLONE_PARENT_SETTID |
			 CLONE_CLEAR_SIGHAND,
		.pidfd = MC_PTR(&spawn->pidfd),
		.parent_tid = MC_PTR(&spawn->pid),
		.exit_signal = SIGCHLD,
		.stack = MC_PTR(stack),
		.stack_size = sizeof(stack),
	};
	struct rusage usage = { 0 };
	long r;

	if (spawn->cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = (uint64_t)spawn->cgroup;
	}
	spawn->start_ns = mc_now();
	r = mc_clone3_call(&args, sizeof(args), child_main, &spawn->run);
	spawn->end_ns = mc_now();
	if (r < 0) /* at a limit of processes, the kernel has stored a pidfd, and closed it (copy_process()) */
		spawn->pidfd = spawn->pid = -1;
	mc_sys2(SYS_getrusage, RUSAGE_SELF, MC_PTR(&usage));
	spawn->caller_kib = (uint64_t)usage.ru_maxrss;
	return r < 0 ? (int)r : 0;
}

/* clone_child, while a second thread walks the parent-side plan. */
static int clone_with_parent_plan(struct mc_spawn *spawn)
{
	struct mc_thread thread;
	int r = mc_parent_begin(spawn, &thread);

	if (r < 0)
		return r;
	r = clone_child(spawn);
	mc_parent_end(spawn->parent, &thread);
	return r;
}

/* Whether the walk of the child has reached its exec, or the plan's end. */
static int has_started(const struct mc_spawn *spawn)
{
	const struct mc_run *run = &spawn->run;
	const struct mc_step *last = step_at(run->plan, (uint32_t)run->at);

	if (run->failed >= 0 || (spawn->parent && spawn->parent->run.failed >= 0))
		return 0;
	return run->at >= run->plan->nsteps || last->op == MC_EXEC || last->op == MC_EXEC_FD;
}

/* ---- the caller's own streams */

/* A copy above 2, which no dup3 of the plan overwrites. For a stream that is closed or close-on-exec, /dev/null: if the
 * caller closed it, its number may be that of another file, which is not for the child. */
static long copy_stream(int fd)
{
	long flags = mc_sys2(SYS_fcntl, MC_FD(fd), F_GETFD), opened = -1, r;

	if (flags < 0 || flags & FD_CLOEXEC) {
		opened = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/dev/null"), O_RDWR | O_CLOEXEC, 0);
		if (opened < 0 || opened > 2)
			return opened;
		fd = (int)opened;
	}
	r = mc_sys3(SYS_fcntl, MC_FD(fd), F_DUPFD_CLOEXEC, 3);
	if (opened >= 0)
		mc_sys1(SYS_close, MC_FD(opened));
	return r;
}

static int copy_streams(struct mc_spawn *spawn, int32_t copies[3])
{
	int32_t *slots = spawn->run.slots + spawn->streams - 1;

	for (int i = 0; spawn->streams && i < 3; i++) {
		long r = slots[i] < 3 ? copy_stream(slots[i]) : 0;

		if (r < 0)
			return (int)r;
		if (r > 0)
			slots[i] = copies[i] = (int32_t)r;
	}
	return 0;
}

static int spawn_with_streams(struct mc_spawn *spawn)
{
	int32_t copies[3] = { -1, -1, -1 };
	int r = copy_streams(spawn, copies);

	if (r == 0)
		r = spawn->parent ? clone_with_parent_plan(spawn) : clone_child(spawn);
	for (int i = 0; i < 3; i++)
		if (copies[i] >= 0)
			mc_sys1(SYS_close, MC_FD(copies[i]));
	return r;
}

int mc_spawn(struct mc_spawn *spawn)
{
	const uint64_t all = ~0ull;
	uint64_t before;
	int r;

	spawn->pidfd = spawn->pid = -1;
	spawn->run.failed = spawn->run.program.path = -1;
	spawn->run.sibling = spawn->run.at = 0;
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), MC_PTR(&before), 8);
	spawn->run.sigmask = before;
	spawn->run.blocked = 1;
	mc_dumpable_save();
	r = spawn_with_streams(spawn);
	mc_dumpable_restore();
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&before), 0, 8);
	if (r == 0 && spawn->run.sibling > 0)
		r = adopt_sibling(spawn);
	spawn->started = r == 0 && has_started(spawn);
	return r;
}

/* ---- the end of the child */

/* 1: the process has ended; 0: timeout; -EINTR: the caller handles signals, then calls again. timeout_ms -1: none. */
int mc_pidfd_wait(int pidfd, int timeout_ms)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	struct timespec t = { timeout_ms / 1000, timeout_ms % 1000 * 1000000l };

	if (pidfd < 0)
		return -EBADF; /* ppoll(2) ignores negative descriptors */
	return (int)mc_sys5(SYS_ppoll, MC_PTR(&p), 1, timeout_ms < 0 ? 0 : MC_PTR(&t), 0, 0);
}

static uint64_t microseconds(struct timeval t)
{
	return (uint64_t)t.tv_sec * 1000000u + (uint64_t)t.tv_usec;
}

/* status: the exit code, or minus the signal. rusage_us: user, system (microseconds), peak resident (KiB). */
int mc_pidfd_reap(int pidfd, int *status, uint64_t rusage_us[3])
{
	siginfo_t info = { 0 };
	struct rusage usage = { 0 };
	long r = mc_sys5(SYS_waitid, P_PIDFD, MC_FD(pidfd), MC_PTR(&info), WEXITED, MC_PTR(&usage));

	if (r < 0)
		return (int)r;
	*status = info.si_code == CLD_EXITED ? info.si_status : -info.si_status;
	rusage_us[0] = microseconds(usage.ru_utime);
	rusage_us[1] = microseconds(usage.ru_stime);
	rusage_us[2] = (uint64_t)usage.ru_maxrss;
	return 0;
}

/* A second call has the same result: an exception in the caller may have discarded the first one. */
int mc_spawn_reap(struct mc_spawn *spawn)
{
	int r = spawn->reaped ? 0 : mc_pidfd_reap(spawn->pidfd, &spawn->status, spawn->rusage);

	spawn->reaped = r == 0;
	return r;
}

/* ---- small files in a directory, such as a cgroup's */

long mc_read_at(int dirfd, const char *name, char *buffer, size_t size)
{
	long n, fd = mc_sys4(SYS_openat, MC_FD(dirfd), MC_PTR(name), O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	n = mc_sys3(SYS_read, fd, MC_PTR(buffer), size);
	mc_sys1(SYS_close, fd);
	return n;
}

long mc_write_at(int dirfd, const char *name, const char *data, size_t size)
{
	long n, fd = mc_sys4(SYS_openat, MC_FD(dirfd), MC_PTR(name), O_WRONLY | O_CLOEXEC, 0);

	if (fd < 0)
		return fd;
	n = mc_sys3(SYS_write, fd, MC_PTR(data), size);
	mc_sys1(SYS_close, fd);
	return n;
}
