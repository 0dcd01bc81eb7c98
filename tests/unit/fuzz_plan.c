/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fuzz_plan.c: checks and walks plans from standard input with every system call replaced, under the sanitizers: with
 * what mc_plan_check accepts, the walk must not read or write out of bounds. Input: uint32 length, that many bytes,
 * again and again. Output: how many were accepted.
 *
 * walk.c and the files that it calls are included here behind this mc_sys, instead of that in syscalls.h. The calls to
 * which they hand memory of the plan get numbers that no plan has, so that this memory can be read as the kernel would.
 */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#undef SYS_execve
#undef SYS_execveat
#undef SYS_getcwd
#undef SYS_recvfrom
#undef SYS_seccomp
#undef SYS_sendto
#define SYS_execve 0x100000001L
#define SYS_execveat 0x100000002L
#define SYS_getcwd 0x100000003L
#define SYS_seccomp 0x100000004L
#define SYS_sendto 0x100000005L
#define SYS_recvfrom 0x100000006L

#define MC_SYSCALLS_H
#define MC_PTR(p) ((uint64_t)(uintptr_t)(p))
#define MC_FD(fd) ((uint64_t)(int64_t)(fd))
#define mc_sys1(nr, a) mc_sys(nr, a, 0, 0, 0, 0, 0)
#define mc_sys2(nr, a, b) mc_sys(nr, a, b, 0, 0, 0, 0)
#define mc_sys3(nr, a, b, c) mc_sys(nr, a, b, c, 0, 0, 0)
#define mc_sys4(nr, a, b, c, d) mc_sys(nr, a, b, c, d, 0, 0)
#define mc_sys5(nr, a, b, c, d, e) mc_sys(nr, a, b, c, d, e, 0)

static long mc_sys(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f);

#pragma GCC diagnostic ignored "-Wmaybe-uninitialized" /* this mc_sys fills in no struct statx */
#include "plan/check.c"
#include "plan/exec.c"
#include "plan/mountpoint.c"
#include "plan/netlink.c"
#include "plan/now.c"
#include "plan/packet.c"
#include "plan/walk.c"

static volatile uint64_t sum; /* so that no read is left out */
static uint64_t seed;

static long some_result(void)
{
	static const long results[] = { 0, 1, 3, 40, -ENOENT, -EINVAL, -EACCES, -EPERM };

	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return results[seed >> 61];
}

static void read_strings(uint64_t table)
{
	for (const char *const *t = (const char *const *)(uintptr_t)table; *t; t++)
		sum += strlen(*t);
}

static void read_filter(const struct sock_fprog *program)
{
	const unsigned char *bytes = (const unsigned char *)program->filter;

	for (size_t i = 0; i < program->len * sizeof(struct sock_filter); i++)
		sum += bytes[i];
}

static long mc_sys(long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f)
{
	(void)(e + f);
	if (nr == SYS_execve) {
		sum += strlen((const char *)(uintptr_t)a);
		read_strings(b);
		read_strings(c);
	} else if (nr == SYS_execveat) {
		read_strings(c);
		read_strings(d);
	} else if (nr == SYS_seccomp) {
		read_filter((const struct sock_fprog *)(uintptr_t)c);
	} else if (nr == SYS_sendto) {
		for (uint64_t i = 0; i < c; i++)
			sum += ((const unsigned char *)(uintptr_t)b)[i];
	} else if (nr == SYS_recvfrom || nr == SYS_getdents64) {
		return -EINVAL; /* nobody answers, and no directory has anything */
	} else if (nr == SYS_getcwd) {
		memset((char *)(uintptr_t)a, '/', b);
	}
	return some_result();
}

long mc_run_program(const char *path, const char **argv, int stderr_fd)
{
	size_t length = strlen(path);

	for (; *argv; argv++)
		length += strlen(*argv);
	(void)stderr_fd;
	return length % 2 ? -ECHILD : 0;
}

static void walk(const struct mc_plan *plan)
{
	struct mc_run run = { .plan = plan };

	run.records = calloc(plan->nsteps, sizeof(*run.records));
	run.slots = malloc(plan->nslots * sizeof(*run.slots));
	run.strings = malloc(plan->nstrings * sizeof(*run.strings));
	memset(run.slots, 0xff, plan->nslots * sizeof(*run.slots));
	for (uint32_t first = 0; first < plan->nsteps; first++) /* whatever an earlier step would have stopped */
		mc_plan_walk_from(&run, first);
	free(run.records);
	free(run.slots);
	free(run.strings);
}

int main(void)
{
	uint32_t size;
	unsigned long accepted = 0;

	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		void *data = malloc(size);

		if (size && fread(data, size, 1, stdin) != 1)
			return 2;
		if (mc_plan_check(data, size) == 0) {
			accepted++;
			walk(data);
		}
		free(data);
	}
	printf("%lu\n", accepted);
	return 0;
}
