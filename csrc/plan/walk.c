/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * walk.c: walks a plan (see native.h).
 *
 * Theory of operation. mc_plan_walk() runs in a child that shares its creator's memory (CLONE_VM), so from the first
 * step to exec only async-signal-safe code runs: no malloc, no stdio, no errno, no libc wrapper, raw system calls only.
 * The plan is read-only; a walk writes only to its mc_run: records, slots, the pointer table for exec. This file has no
 * notion of a container: the plan defines it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <linux/bpf_common.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "plan/native.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

/* openat2(2): with RESOLVE_BENEATH or RESOLVE_IN_ROOT any concurrent rename(2) on the system can cause EAGAIN. */
#define TRIES 1000

long mc_syscall(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	long r = -EAGAIN;

	for (int tries = 0; r == -EAGAIN && tries <= (nr == SYS_openat2 ? TRIES : 0); tries++)
		r = mc_sys(nr, a, b, c, d, e, f);
	return r;
}

/* ---- arguments */

static const void *bytes(const struct mc_run *run, const struct mc_step *s, int i)
{
	return (const char *)run->plan + s->arg[i];
}

/* ---- the steps that are more than one call */

/* The kernel's own structure for rt_sigaction; libc's differs. Eight-byte sets on both architectures. */
struct kernel_sigaction {
	uint64_t handler, flags, restorer, mask;
};

static long do_signals(struct mc_run *run, const struct mc_step *s)
{
	const struct kernel_sigaction dfl = { 0 }; /* SIG_DFL is 0 */

	for (int sig = 1; sig < _NSIG; sig++)
		if (sig != SIGKILL && sig != SIGSTOP)
			mc_sys4(SYS_rt_sigaction, sig, MC_PTR(&dfl), 0, 8);
	run->blocked = 0;
	return mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&s->arg[0]), 0, 8);
}

/* EINVAL: the number is above the kernel's last capability (cap_last_cap). */
static long do_capbset(const struct mc_step *s)
{
	for (int cap = 0; cap < 64; cap++) {
		long r;

		if (s->arg[0] >> cap & 1)
			continue;
		r = mc_sys5(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0);
		if (r == -EINVAL)
			break;
		if (r < 0)
			return r;
	}
	return 0;
}

static long do_seccomp(struct mc_run *run, const struct mc_step *s, uint32_t i)
{
	const struct mc_step *next = i + 1 < run->plan->nsteps ? step_at(run->plan, i + 1) : NULL;
	long r = 0;
	struct sock_fprog program = { .len = (unsigned short)s->arg[1],
				      .filter = (struct sock_filter *)bytes(run, s, 2) };

	if (s->arg[3] && next && next->op == MC_EXEC)
		r = mc_program_inspect(bytes(run, next, 0), next->nr, &run->program);
	if (r < 0)
		return r;
	r = mc_sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, s->arg[0], MC_PTR(&program));
	run->strict = r == 0 && s->arg[3];
	return r;
}

static long do_idmap(const struct mc_run *run, const struct mc_step *s)
{
	struct mount_attr attr = { .attr_set = MOUNT_ATTR_IDMAP,
				   .userns_fd = value(run, s, 1) };

	return mc_sys5(SYS_mount_setattr, value(run, s, 0), MC_PTR(""), AT_EMPTY_PATH | s->arg[2], MC_PTR(&attr),
		       sizeof(attr));
}

/* Writes a decimal number before `end`; returns a pointer to its first digit. */
static char *decimal(char *end, uint32_t number)
{
	do
		*--end = (char)('0' + number % 10);
	while (number /= 10);
	return end;
}

static long do_proc(const struct mc_run *run, const struct mc_step *s)
{
	char path[32] = "/proc/", number[16] = "";
	const char *digits = decimal(number + sizeof(number) - 1, (uint32_t)value(run, s, 0));

	memcpy(path + 6, digits, (size_t)(number + sizeof(number) - digits));
	return mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR(path), O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
}

/* user_namespaces(7): one line "INSIDE OUTSIDE COUNT", in a single write. */
static long do_id_map(const struct mc_run *run, const struct mc_step *s)
{
	char line[48], *end = line + sizeof(line), *text = decimal(end, (uint32_t)value(run, s, 2));

	*--text = ' ';
	text = decimal(text, (uint32_t)value(run, s, 1));
	*--text = ' ';
	*--text = '0';
	return mc_sys3(SYS_write, value(run, s, 0), MC_PTR(text), (uint64_t)(end - text));
}

/* A soft limit above the hard limit means: leave this resource as it is. The table may be unaligned. */
static long do_rlimits(const struct mc_run *run, const struct mc_step *s)
{
	for (uint64_t i = 0; i < s->arg[1]; i++) {
		struct rlimit64 limit, current;
		long r = mc_sys4(SYS_prlimit64, 0, i, 0, MC_PTR(&current));

		memcpy(&limit, (const char *)bytes(run, s, 0) + i * sizeof(limit), sizeof(limit));
		if (r == 0 && limit.rlim_cur <= limit.rlim_max) {
			limit.rlim_max = limit.rlim_max < current.rlim_max ? limit.rlim_max : current.rlim_max;
			limit.rlim_cur = limit.rlim_cur < limit.rlim_max ? limit.rlim_cur : limit.rlim_max;
			r = mc_sys4(SYS_prlimit64, 0, i, MC_PTR(&limit), 0);
		}
		if (r < 0)
			return r;
	}
	return 0;
}

/* Raising a hard limit needs CAP_SYS_RESOURCE, which the child drops later. Lowering it to the program's limit needs no
 * capability. */
static long do_raise(const struct mc_run *run, const struct mc_step *s)
{
	struct rlimit64 limit = { 0 };
	long r = mc_sys4(SYS_prlimit64, value(run, s, 0), s->arg[1], 0, MC_PTR(&limit));

	if (r < 0 || limit.rlim_max >= s->arg[2])
		return r;
	limit.rlim_max = s->arg[2];
	return mc_sys4(SYS_prlimit64, value(run, s, 0), s->arg[1], MC_PTR(&limit), 0);
}

static long retry(long nr, uint64_t a, uint64_t b, uint64_t c)
{
	long r;

	do
		r = mc_sys3(nr, a, b, c);
	while (r == -EINTR);
	return r;
}

/* Closes every descriptor that is in no slot, streams excepted. */
static void close_others(const struct mc_run *run)
{
	for (int64_t first = 3, next; first <= INT32_MAX; first = next + 1) {
		next = (int64_t)INT32_MAX + 1;
		for (uint32_t i = 0; i < run->plan->nslots; i++)
			if (run->slots[i] >= first && run->slots[i] < next)
				next = run->slots[i];
		if (next > first)
			mc_sys3(SYS_close_range, (uint64_t)first, (uint64_t)next - 1, 0);
	}
}

/* End of file: the process that should send MC_GO has ended. Other children that it started at the same time, in other
 * threads, have copies of its end of the pipe: none of them keeps it while it waits itself, or two would wait for each
 * other. */
static long do_wait(const struct mc_run *run, const struct mc_step *s)
{
	char go = 0;
	long r;

	close_others(run);
	r = retry(SYS_read, value(run, s, 0), MC_PTR(&go), 1);

	if (r < 0)
		return r;
	return r == 1 && go == MC_GO ? 0 : -ECANCELED;
}

static long do_send_fd(const struct mc_run *run, const struct mc_step *s)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
	int fd = (int)value(run, s, 1);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	return mc_sys3(SYS_sendmsg, value(run, s, 0), MC_PTR(&msg), MSG_NOSIGNAL);
}

static long do_netlink(const struct mc_run *run, const struct mc_step *s)
{
	const int32_t numbers[] = { (int32_t)value(run, s, 3), (int32_t)value(run, s, 4) };

	return mc_netlink((int)value(run, s, 0), bytes(run, s, 1), s->arg[2], numbers, s->arg[5]);
}

static long do_exec(struct mc_run *run, const struct mc_step *s)
{
	const char **argv = run->strings, **envp = argv + s->arg[2] + 1;

	if (run->blocked) /* a plan without MC_SIGNALS: the program gets the caller's mask, as with posix_spawn(3) */
		mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&run->sigmask), 0, 8);
	mc_string_table(argv, bytes(run, s, 1), s->arg[2]);
	mc_string_table(envp, bytes(run, s, 3), s->arg[4]);
	if (s->op == MC_EXEC_FD)
		return mc_sys5(SYS_execveat, value(run, s, 0), MC_PTR(""), MC_PTR(argv), MC_PTR(envp), AT_EMPTY_PATH);
	return mc_exec(bytes(run, s, 0), s->nr, argv, envp, &run->program, !run->strict);
}

static long do_run(struct mc_run *run, const struct mc_step *s)
{
	char number[16] = "";
	const char **argv = run->strings;

	mc_string_table(argv, bytes(run, s, 1), s->arg[2]);
	argv[1] = decimal(number + sizeof(number) - 1, (uint32_t)value(run, s, 3));
	return mc_run_program(bytes(run, s, 0), argv, (int)value(run, s, 4));
}

/* ---- the walk */

static long perform(struct mc_run *run, const struct mc_step *s, uint32_t i)
{
	switch ((enum mc_op)s->op) {
	case MC_SYSCALL:
		return mc_syscall(s->nr, value(run, s, 0), value(run, s, 1), value(run, s, 2), value(run, s, 3),
				  value(run, s, 4), value(run, s, 5));
	case MC_CHDIR:
		return mc_enter_directory(bytes(run, s, 0));
	case MC_SIGNALS:
		return do_signals(run, s);
	case MC_CAPBSET:
		return do_capbset(s);
	case MC_SECCOMP:
		return do_seccomp(run, s, i);
	case MC_RLIMITS:
		return do_rlimits(run, s);
	case MC_RAISE:
		return do_raise(run, s);
	case MC_IDMAP:
		return do_idmap(run, s);
	case MC_MOUNT_POINT:
		return mc_mount_point(bytes(run, s, 0), (int)s->arg[1]);
	case MC_PROC:
		return do_proc(run, s);
	case MC_ID_MAP:
		return do_id_map(run, s);
	case MC_RUN:
		return do_run(run, s);
	case MC_CHILD:
		return 0;
	case MC_WAIT:
		return do_wait(run, s);
	case MC_NETLINK:
		return do_netlink(run, s);
	case MC_IF_INDEX:
		return mc_if_index(bytes(run, s, 0));
	case MC_PACKET:
		return mc_packet_socket(bytes(run, s, 0));
	case MC_END_FLOWS:
		return mc_end_flows((int)value(run, s, 0), bytes(run, s, 1), s->arg[2]);
	case MC_COMMENT_OUT:
		return mc_comment_out((int)value(run, s, 0), s->arg[1]);
	case MC_SEND_FD:
		return do_send_fd(run, s);
	case MC_EXEC:
	case MC_EXEC_FD:
		return do_exec(run, s);
	case MC_FAIL:
		return -(long)s->nr;
	case MC_FORK: /* the walk stops before it; spawn.c performs it */
	case MC_OPS:
		break;
	}
	return -EINVAL;
}

static int tolerated(const struct mc_step *s, long result)
{
	return result < 0 && (-result == s->tolerate[0] || -result == s->tolerate[1]);
}

/* Without the vDSO, clock_gettime(2) is a system call, which a strict seccomp filter may forbid. */
static uint64_t now(const struct mc_run *run, uint64_t last)
{
	return run->strict ? last : mc_now();
}

int mc_plan_walk_from(struct mc_run *run, uint32_t first)
{
	uint64_t time = 0;

	for (uint32_t i = first; i < run->plan->nsteps; i++) {
		const struct mc_step *s = step_at(run->plan, i);
		struct mc_record *record = &run->records[i];
		long result;

		run->at = i;
		record->start_ns = time = now(run, time);
		if (s->op == MC_FORK)
			return MC_FORKS;
		result = perform(run, s, i);
		record->result = result;
		record->end_ns = time = now(run, time);
		if (tolerated(s, result)) {
			i += s->skip;
			continue;
		}
		if (result < 0) {
			run->failed = i;
			return (int)result;
		}
		if (s->op == MC_CHILD)
			return 0; /* a second thread walks the rest (parent.c) */
		if (s->op == MC_SYSCALL && s->nr == SYS_close && kind_of(s, 0) == MC_SLOT)
			run->slots[s->arg[0]] = -1;
		if (s->out >= 0)
			run->slots[s->out] = (int32_t)result;
	}
	run->at = run->plan->nsteps;
	return 0;
}

int mc_plan_walk(struct mc_run *run)
{
	run->failed = -1;
	run->at = run->strict = 0;
	return mc_plan_walk_from(run, 0);
}
