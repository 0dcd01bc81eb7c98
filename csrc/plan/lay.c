/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * lay.c: lays out the memory of one run of a plan: the structure, its records, slots and strings, in one piece.
 */
#include "plan/native.h"

static size_t aligned(size_t size)
{
	return (size + 7) & ~(size_t)7;
}

size_t mc_run_room(const struct mc_plan *plan)
{
	return plan->nsteps * sizeof(struct mc_record) + plan->nstrings * sizeof(char *) +
	       aligned(plan->nslots * sizeof(int32_t));
}

/* `memory` is zeroed, aligned to 8 bytes, and has mc_run_room() bytes. */
static void lay(struct mc_run *run, const struct mc_plan *plan, char *memory)
{
	run->plan = plan;
	run->failed = -1;
	run->records = (struct mc_record *)memory;
	run->strings = (const char **)(run->records + plan->nsteps);
	run->slots = (int32_t *)(run->strings + plan->nstrings);
	for (uint32_t i = 0; i < plan->nslots; i++)
		run->slots[i] = -1;
}

struct mc_spawn *mc_spawn_lay(void *memory, const struct mc_plan *plan)
{
	struct mc_spawn *spawn = memory;

	spawn->pid = spawn->pidfd = spawn->cgroup = -1;
	lay(&spawn->run, plan, (char *)memory + aligned(sizeof(*spawn)));
	return spawn;
}

struct mc_parent *mc_parent_lay(void *memory, const struct mc_parent *like)
{
	struct mc_parent *parent = memory;

	*parent = *like;
	lay(&parent->run, like->run.plan, (char *)memory + aligned(sizeof(*parent)));
	return parent;
}
