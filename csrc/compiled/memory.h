/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/memory.h: memory of this run, which is never freed: zeroed, and aligned for every type.
 */
#ifndef MC_COMPILED_MEMORY_H
#define MC_COMPILED_MEMORY_H

#include <stddef.h>

void *take_memory(size_t size); /* NULL: there is none */

#endif
