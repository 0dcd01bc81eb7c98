/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * check.c: checks a plan once, before it is walked: all memory that the walk itself reads and writes lies inside the
 * plan. The plan's system calls are not restricted.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/filter.h>
#include <linux/netlink.h>
#include <sys/resource.h>

#include "plan/walk.h"

static int list_is_sound(const struct mc_plan *plan, uint64_t offset, uint64_t count)
{
	for (; count > 0 && offset < plan->size; offset++)
		if (((const char *)plan)[offset] == 0)
			count--;
	return count == 0;
}

static int args_are_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	for (int i = 0; i < MC_ARGS; i++) {
		if (kind_of(s, i) == MC_BYTES && s->arg[i] >= plan->size)
			return 0;
		if (kind_of(s, i) == MC_SLOT && s->arg[i] >= plan->nslots)
			return 0;
		if (kind_of(s, i) > MC_SLOT)
			return 0;
	}
	return 1;
}

static int exec_is_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	uint64_t room = plan->nstrings;
	int target = s->op == MC_EXEC_FD || (kind_of(s, 0) == MC_BYTES && list_is_sound(plan, s->arg[0], s->nr));

	return target && kind_of(s, 1) == MC_BYTES && kind_of(s, 3) == MC_BYTES && s->arg[2] < room &&
	       s->arg[4] < room && s->arg[2] + s->arg[4] + 2 <= room && list_is_sound(plan, s->arg[1], s->arg[2]) &&
	       list_is_sound(plan, s->arg[3], s->arg[4]);
}

static int run_is_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	return kind_of(s, 0) == MC_BYTES && kind_of(s, 1) == MC_BYTES && s->arg[2] >= 2 && s->arg[2] < plan->nstrings &&
	       list_is_sound(plan, s->arg[1], s->arg[2]);
}

static int filter_is_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	return kind_of(s, 2) == MC_BYTES && s->arg[1] <= BPF_MAXINSNS &&
	       s->arg[2] + s->arg[1] * sizeof(struct sock_filter) <= plan->size;
}

static int limits_are_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	return kind_of(s, 0) == MC_BYTES && s->arg[1] <= RLIM_NLIMITS &&
	       s->arg[0] + s->arg[1] * sizeof(struct rlimit64) <= plan->size;
}

static int message_is_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	if (kind_of(s, 1) != MC_BYTES || s->arg[2] < sizeof(struct nlmsghdr) || s->arg[2] > plan->size - s->arg[1])
		return 0;
	for (int i = 0; i < 4; i++) {
		uint16_t offset = (uint16_t)(s->arg[5] >> (16 * i));

		if (offset && (s->arg[2] > MC_MESSAGE || offset + sizeof(int32_t) > s->arg[2]))
			return 0;
	}
	return 1;
}

static int step_is_sound(const struct mc_plan *plan, const struct mc_step *s)
{
	if (s->op >= MC_OPS || s->out < -1 || s->out >= (int64_t)plan->nslots || !args_are_sound(plan, s))
		return 0;
	switch (s->op) {
	case MC_EXEC:
	case MC_EXEC_FD:
		return exec_is_sound(plan, s);
	case MC_RUN:
		return run_is_sound(plan, s);
	case MC_CHDIR:
	case MC_IF_INDEX:
	case MC_MOUNT_POINT:
	case MC_PACKET:
		return kind_of(s, 0) == MC_BYTES;
	case MC_NETLINK:
	case MC_END_FLOWS: /* without offsets for numbers: arg[5] is 0 */
		return message_is_sound(plan, s);
	case MC_RLIMITS:
		return limits_are_sound(plan, s);
	case MC_SECCOMP:
		return filter_is_sound(plan, s);
	default:
		return 1;
	}
}

int mc_plan_check(const void *data, size_t size)
{
	const struct mc_plan *plan = data;

	if (size < sizeof(*plan) || plan->magic != MC_PLAN_MAGIC || plan->size != size)
		return -EINVAL;
	if (plan->nsteps > (size - sizeof(*plan)) / sizeof(struct mc_step))
		return -EINVAL;
	if (plan->nslots > INT16_MAX || plan->nstrings / 2 > size)
		return -EINVAL; /* more than the steps can use; the caller allocates memory by these counts */
	if (size > sizeof(*plan) && ((const char *)data)[size - 1] != 0)
		return -EINVAL; /* a final NUL: every string ends inside the plan */
	for (uint32_t i = 0; i < plan->nsteps; i++)
		if (!step_is_sound(plan, step_at(plan, i)))
			return -EINVAL;
	return 0;
}
