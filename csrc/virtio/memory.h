/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * memory.h: the guest's physical memory, as it is mapped in this process. A device reaches it by mc_memory_at alone.
 *
 * All of it may change at any time, since virtual CPUs run meanwhile: what has to stay as it was checked is copied
 * first.
 */
#ifndef MC_VIRTIO_MEMORY_H
#define MC_VIRTIO_MEMORY_H

#include <stdint.h>

#define MC_REGIONS 4

/* `address` and `host` are multiples of the page size. The mapping outlives every device. */
struct mc_region {
	uint64_t address;       /* guest physical */
	uint64_t size;
	unsigned char *host;
};

struct mc_memory {
	uint32_t count;
	struct mc_region regions[MC_REGIONS];
};

/* Where `size` bytes at a guest physical address are mapped. NULL unless they lie in one region. */
void *mc_memory_at(const struct mc_memory *memory, uint64_t address, uint64_t size);

#endif
