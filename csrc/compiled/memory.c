/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/memory.c: see memory.h. What a usual run needs comes from one block, larger requests from mmap(2).
 */
#include <stdint.h>
#include <sys/mman.h>

#include "compiled/memory.h"
#include "plan/syscalls.h"

#define BLOCK (96 * 1024)

void *take_memory(size_t size)
{
	static _Alignas(16) char block[BLOCK]; /* pages that are not used cost nothing */
	static size_t used;
	long map;

	size = (size + 15) & ~(size_t)15;
	if (size <= BLOCK - used) {
		used += size;
		return block + used - size;
	}
	map = mc_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, MC_FD(-1), 0);
	return map < 0 && map > -4096 ? NULL : (void *)map;
}
