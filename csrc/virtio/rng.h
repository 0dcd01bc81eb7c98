/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * rng.h: an entropy device (virtio 1.3, 5.4): its queue has buffers that are filled with random bytes of the host.
 */
#ifndef MC_VIRTIO_RNG_H
#define MC_VIRTIO_RNG_H

#include "virtio/memory.h"
#include "virtio/mmio.h"

#define MC_RNG_MOST 4096 /* bytes that one buffer gets, however long it is: Linux asks for 64 (virtio-rng.c) */

struct mc_rng;

/* NULL: errno says why. */
struct mc_rng *mc_rng_new(const struct mc_memory *memory);

/* Its registers. The caller sets `irq` and `alarm` before mc_rng_start. */
struct mc_virtio *mc_rng_virtio(struct mc_rng *device);

/* Starts its thread. Returns 0, or -errno: none runs. */
int mc_rng_start(struct mc_rng *device);

/* Ends its thread. No virtual CPU may access it any more. */
void mc_rng_free(struct mc_rng *device);

#endif
