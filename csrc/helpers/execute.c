/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * execute.c: limits, filter and exec of the program, and the report of a failure; see execute.h.
 *
 * Theory of operation. A user's profile may forbid the system calls of a helper, so the filter is loaded last, before
 * the exec. The error report then needs no system call: it is a page that the pipe shares with this process
 * (vmsplice(2)).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/resource.h>
#include <sys/uio.h>

#include "helpers/execute.h"
#include "plan/syscalls.h"
#include "plan/walk.h"

#define PAGE 4096

static struct report {
	int32_t error;
	struct mc_program program;
} report __attribute__((aligned(PAGE)));

static struct sock_filter filter[BPF_MAXINSNS];
static unsigned short length; /* of the filter */

/* A filter can forbid even exit_group: a trap ends the process too. */
void mc_end(int status)
{
	mc_sys1(SYS_exit_group, status);
	__builtin_trap();
}

long mc_number(const char *text)
{
	long n = 0;

	for (; *text >= '0' && *text <= '9' && n < 1 << 20; text++)
		n = 10 * n + *text - '0';
	return *text ? -1 : n;
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

void mc_drop_inheritable(int now)
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
		mc_end(MC_INTERNAL_ERROR);
}

void mc_read_filter(long instructions)
{
	if (!instructions)
		return;
	if (mc_sys4(SYS_pread64, MC_FILTER, MC_PTR(filter), sizeof(filter), 0) != instructions * (long)sizeof(*filter))
		mc_end(MC_INTERNAL_ERROR);
	mc_sys1(SYS_close, MC_FILTER);
	length = (unsigned short)instructions;
}

int mc_has_filter(void)
{
	return length > 0;
}

long mc_load_filter(void)
{
	struct sock_fprog program = { length, filter };

	return length ? mc_sys3(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, MC_PTR(&program)) : 0;
}

/* Reports the error and exits. With `shared`, the report's page is in the pipe already. */
__attribute__((noreturn)) static void fail(long error, int shared)
{
	report.error = (int32_t)-error;
	if (!shared)
		mc_sys3(SYS_write, MC_REPORT, MC_PTR(&report), sizeof(report));
	mc_end(127);
}

void mc_fail(int path, long error)
{
	report.program.path = path;
	fail(error, 0);
}

void mc_execute(const char *limits, long other, const char *path, uint32_t npaths, const char **argv, const char **envp)
{
	const struct iovec page = { &report, sizeof(report) };
	int shared;
	long r;

	mc_sys3(SYS_fcntl, MC_REPORT, F_SETFD, FD_CLOEXEC);
	report.program.path = -1;
	mc_drop_inheritable(0);
	r = limit(limits, other);
	if (r < 0)
		fail(r, 0);
	if (!length)
		fail(mc_exec(path, npaths, argv, envp, &report.program, 1), 0);
	/* This writes to `report`: from now on its page belongs to this process alone, and can be given to the pipe. */
	r = mc_program_inspect(path, npaths, &report.program);
	if (r < 0)
		fail(r, 0);
	shared = mc_sys4(SYS_vmsplice, MC_REPORT, MC_PTR(&page), 1, 0) == sizeof(report);
	r = mc_load_filter();
	if (r < 0) {
		report.program.path = MC_NO_FILTER;
		fail(r, shared);
	}
	fail(mc_exec(path, npaths, argv, envp, &report.program, 0), shared);
}
