/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * memory.c: finds guest physical addresses in this process's mapping of the guest's memory.
 */
#include <stddef.h>

#include "virtio/memory.h"

void *mc_memory_at(const struct mc_memory *memory, uint64_t address, uint64_t size)
{
	for (uint32_t i = 0; i < memory->count; i++) {
		const struct mc_region *r = &memory->regions[i];
		uint64_t offset = address - r->address; /* huge if the address is below: then no size fits */

		if (address >= r->address && offset < r->size && size <= r->size - offset)
			return r->host + offset;
	}
	return NULL;
}
