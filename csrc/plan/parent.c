/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * parent.c: runs the parent-side plan of a start, in a thread.
 *
 * Theory of operation. Some operations need a process outside the child's user namespace: writing its id maps,
 * ID-mapped mounts of its ids, the veth. They form a second plan. The caller walks its first part before clone3, and
 * the child inherits the descriptors that this part opens. The caller then sleeps in clone3 until the child's exec.
 * Therefore a thread, created before with all signals blocked, waits for the child's MC_READY and walks the second
 * part, in which steps send MC_GO to the child. Without CLONE_VFORK no thread would be needed; but then the OOM
 * killer, invoked for the child's memory limit, would kill the caller too (oom_badness: in_vfork). The child never
 * waits for ever: it reads MC_GO, another byte after a failure, or end of file when this process dies (see do_wait()).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/sched.h>

#include "plan/clone.h"
#include "plan/parent.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

static long transfer(long nr, int fd, char *byte)
{
	long r;

	do
		r = mc_sys3(nr, MC_FD(fd), MC_PTR(byte), 1);
	while (r == -EINTR);
	return r;
}

enum { READY_READ, READY_WRITE, ANSWER_READ, ANSWER_WRITE };

static int parent_main(void *arg)
{
	struct mc_spawn *spawn = arg;
	struct mc_parent *parent = spawn->parent;
	char byte = 0;

	if (transfer(SYS_read, parent->pipes[READY_READ], &byte) != 1 || byte != MC_READY)
		return 0; /* the child has ended, or was not created */
	parent->run.slots[0] = spawn->pid;
	parent->run.slots[1] = parent->pipes[ANSWER_WRITE];
	byte = 0;
	if (mc_plan_walk_from(&parent->run, (uint32_t)parent->run.at + 1) < 0)
		transfer(SYS_write, parent->pipes[ANSWER_WRITE], &byte);
	return 0;
}

/* ---- a thread without libc: it makes raw system calls only, and has no thread-local storage of its own */

static int thread_start(struct mc_thread *thread, void *arg)
{
	struct clone_args args = {
		.flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM |
			 CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID,
		.parent_tid = MC_PTR(&thread->id),
		.child_tid = MC_PTR(&thread->id),
		.stack = MC_PTR(thread->stack),
		.stack_size = sizeof(thread->stack),
	};
	long r = mc_clone3_call(&args, sizeof(args), parent_main, arg);

	return r < 0 ? (int)r : 0;
}

/* The kernel sets the id to 0 when the thread ends, and wakes the futex (set_tid_address(2)). */
static void thread_join(struct mc_thread *thread)
{
	int32_t id;

	while ((id = __atomic_load_n(&thread->id, __ATOMIC_ACQUIRE)) != 0)
		mc_sys4(SYS_futex, MC_PTR(&thread->id), FUTEX_WAIT, (uint32_t)id, 0);
}

static void close_fd(int32_t *fd)
{
	if (*fd >= 0)
		mc_sys1(SYS_close, MC_FD(*fd));
	*fd = -1;
}

/* Closes the pipes and the descriptors that the plan has opened: the child has its own copies. */
static void close_all(struct mc_parent *parent)
{
	for (int i = 0; i < 4; i++)
		close_fd(&parent->pipes[i]);
	for (uint32_t i = parent->ninputs; i < parent->run.plan->nslots; i++)
		close_fd(&parent->run.slots[i]);
}

static int prepare(struct mc_spawn *spawn)
{
	struct mc_parent *parent = spawn->parent;
	int32_t *slots = spawn->run.slots;
	long r = mc_sys2(SYS_pipe2, MC_PTR(parent->pipes), O_CLOEXEC);

	if (r == 0)
		r = mc_sys2(SYS_pipe2, MC_PTR(parent->pipes + 2), O_CLOEXEC);
	if (r == 0)
		r = mc_plan_walk(&parent->run);
	if (r < 0)
		return (int)r;
	for (uint32_t i = 0; i < parent->nshared; i++)
		slots[parent->shared[2 * i + 1]] = parent->run.slots[parent->shared[2 * i]];
	slots[parent->ready] = parent->pipes[READY_WRITE];
	slots[parent->go] = parent->pipes[ANSWER_READ];
	slots[parent->answer] = parent->pipes[ANSWER_WRITE];
	return 0;
}

int mc_parent_begin(struct mc_spawn *spawn, struct mc_thread *thread)
{
	struct mc_parent *parent = spawn->parent;
	int r;

	parent->run.failed = -1;
	for (int i = 0; i < 4; i++)
		parent->pipes[i] = -1;
	r = prepare(spawn);
	if (r == 0)
		r = thread_start(thread, spawn);
	if (r < 0)
		close_all(parent);
	return r;
}

void mc_parent_end(struct mc_parent *parent, struct mc_thread *thread)
{
	char none = 0; /* ends the thread's read(2). Closing the pipe does not: a process forked meanwhile has it too */

	transfer(SYS_write, parent->pipes[READY_WRITE], &none);
	thread_join(thread);
	close_all(parent);
}
