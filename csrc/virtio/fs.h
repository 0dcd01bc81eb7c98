/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fs.h: a file system device (virtio 1.3, 5.11): queues of FUSE requests, which a FUSE server answers (fs/fs.h).
 */
#ifndef MC_VIRTIO_FS_H
#define MC_VIRTIO_FS_H

#include "virtio/fs/fs.h"
#include "virtio/memory.h"
#include "virtio/mmio.h"

struct mc_virtio_fs;

/* `tag`: the name by which the guest mounts it, 1 to 36 bytes. `fs` stays the caller's, and outlives the device. NULL:
 * errno says why. */
struct mc_virtio_fs *mc_virtio_fs_new(const struct mc_memory *memory, struct mc_fs *fs, const char *tag);

/* Its registers. The caller sets `irq` and `alarm` before mc_virtio_fs_start. */
struct mc_virtio *mc_virtio_fs_virtio(struct mc_virtio_fs *device);

/* Starts its threads. Returns 0, or -errno: none runs. */
int mc_virtio_fs_start(struct mc_virtio_fs *device);

/* Ends its threads, when they have answered the requests that they have begun. Registers may be accessed meanwhile and
 * after it. */
void mc_virtio_fs_stop(struct mc_virtio_fs *device);

/* Stops it. No virtual CPU may access it any more. */
void mc_virtio_fs_free(struct mc_virtio_fs *device);

#endif
