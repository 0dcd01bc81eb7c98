/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * told.h: how a program of ours reads what it is told: a shared memfd (MC_TOLD) that begins with a magic number and its size.
 */
#ifndef MC_TOLD_H
#define MC_TOLD_H

#include <stddef.h>
#include <sys/mman.h>

#include "monitor/shared.h"
#include "plan/syscalls.h"

static inline void *mc_map_told(size_t size)
{
	long at = mc_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, MC_TOLD, 0);

	return at < 0 && at > -4096 ? NULL : (void *)at;
}

/* All of it; NULL where it is not what was expected. The descriptor is closed. */
static inline void *mc_hear(uint32_t magic)
{
	uint32_t *told = mc_map_told(2 * sizeof(uint32_t));

	if (!told || told[0] != magic || !(told = mc_map_told(told[1])))
		return NULL;
	mc_sys1(SYS_close, MC_TOLD);
	return told;
}

/* Where the parts of a run lie. */
static inline void mc_point(struct mc_run *run, void *told, const struct mc_parts *parts)
{
	char *base = told;

	run->plan = (const struct mc_plan *)(base + parts->plan);
	run->records = (struct mc_record *)(base + parts->records);
	run->slots = (int32_t *)(base + parts->slots);
	run->strings = (const char **)(base + parts->strings);
}

/* As before the first walk. */
static inline void mc_begin_anew(struct mc_run *run, void *told, const struct mc_parts *parts)
{
	const int32_t *first = (const int32_t *)((char *)told + parts->first);

	for (uint32_t i = 0; i < run->plan->nsteps; i++)
		run->records[i] = (struct mc_record){ 0 };
	for (uint32_t i = 0; i < run->plan->nslots; i++)
		run->slots[i] = first[i];
}

#endif
