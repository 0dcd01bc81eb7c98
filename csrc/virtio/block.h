/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * block.h: a block device (virtio 1.3, 5.2), whose content is that of a file or of a block device of the host.
 */
#ifndef MC_VIRTIO_BLOCK_H
#define MC_VIRTIO_BLOCK_H

#include "virtio/memory.h"
#include "virtio/mmio.h"

struct mc_block;

/* `fd` stays the caller's, and outlives the device. The device is read-only if it is; its blocks are those of the
 * descriptor's O_DIRECT. `serial`: what GET_ID tells, of which 20 bytes count. The size is that of now; bytes behind
 * the last whole sector are not there. NULL: errno says why. */
struct mc_block *mc_block_new(const struct mc_memory *memory, int fd, const char *serial);

/* Its registers. The caller sets `irq` and `alarm` before mc_block_start. */
struct mc_virtio *mc_block_virtio(struct mc_block *device);

/* Starts its threads. Returns 0, or -errno: none runs. */
int mc_block_start(struct mc_block *device);

/* Ends its threads. No virtual CPU may access it any more. */
void mc_block_free(struct mc_block *device);

#endif
