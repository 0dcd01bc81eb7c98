/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * balloon.h: a memory balloon device (virtio 1.3, 5.5) that never asks for a page, with free page reporting (5.5.6.6):
 * memory that the guest has freed is the host's again until the guest touches it.
 */
#ifndef MC_VIRTIO_BALLOON_H
#define MC_VIRTIO_BALLOON_H

#include "virtio/memory.h"
#include "virtio/mmio.h"

struct mc_balloon;

/* `memory` has to be private and anonymous: what is given back reads as zeros. NULL: errno says why. */
struct mc_balloon *mc_balloon_new(const struct mc_memory *memory);

/* Its registers. The caller sets `irq` and `alarm` before mc_balloon_start. */
struct mc_virtio *mc_balloon_virtio(struct mc_balloon *balloon);

/* Starts its thread. Returns 0, or -errno. */
int mc_balloon_start(struct mc_balloon *balloon);

/* Ends its thread. Registers may be accessed meanwhile and after it. */
void mc_balloon_stop(struct mc_balloon *balloon);

/* Stops it. No virtual CPU may access it any more. */
void mc_balloon_free(struct mc_balloon *balloon);

#endif
