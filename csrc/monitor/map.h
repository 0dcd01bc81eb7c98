/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/map.h: the monitor and the helper `enter` map the shared memfd that they inherit (MC_SHARED_FD). The memfd
 * begins with a magic number and its size.
 */
#ifndef MC_MONITOR_MAP_H
#define MC_MONITOR_MAP_H

#include <stddef.h>
#include <sys/mman.h>

#include "monitor/shared.h"
#include "plan/syscalls.h"

static inline void *mc_mmap_shared(size_t size)
{
	long at = mc_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, MC_SHARED_FD, 0);

	return at < 0 && at > -4096 ? NULL : (void *)at;
}

/* Maps the whole memfd and closes its descriptor. NULL: mmap(2) failed, or the magic number is another one. */
static inline void *mc_shared_map(uint32_t magic)
{
	uint32_t *shared = mc_mmap_shared(2 * sizeof(uint32_t));

	if (!shared || shared[0] != magic || !(shared = mc_mmap_shared(shared[1])))
		return NULL;
	mc_sys1(SYS_close, MC_SHARED_FD);
	return shared;
}

/* Sets the pointers of a run from its offsets. */
static inline void mc_run_init(struct mc_run *run, void *shared, const struct mc_run_offsets *offsets)
{
	char *base = shared;

	run->plan = (const struct mc_plan *)(base + offsets->plan);
	run->records = (struct mc_record *)(base + offsets->records);
	run->slots = (int32_t *)(base + offsets->slots);
	run->strings = (const char **)(base + offsets->strings);
}

/* Clears the records and fills the slots, as before the first walk. */
static inline void mc_run_reset(struct mc_run *run, void *shared, const struct mc_run_offsets *offsets)
{
	const int32_t *initial = (const int32_t *)((char *)shared + offsets->initial_slots);

	for (uint32_t i = 0; i < run->plan->nsteps; i++)
		run->records[i] = (struct mc_record){ 0 };
	for (uint32_t i = 0; i < run->plan->nslots; i++)
		run->slots[i] = initial[i];
}

#endif
