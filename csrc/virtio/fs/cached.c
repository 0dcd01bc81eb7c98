/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * cached.c: whether what the client has of a file's content in its cache is still right, so that it need not drop it
 * with each open(2). What it had when a file was opened it dropped, or was right; what it read since then is newer. So
 * if the file is now what it was at an open that the client has ended, all of the cache is right. That is known by the
 * file's times and size, as network file systems know it: a change by the host is seen by the next open. What a
 * program of the host writes through a shared mapping has no time of its own (mmap(2)): it is seen once the kernel has
 * given the file one.
 */
#define _GNU_SOURCE
#include <sys/stat.h>
#include <time.h>

#include "virtio/fs/server.h"

#define GRANULARITY 2 /* seconds: the coarsest times of a file system, those of FAT */

/* A file that has changed a moment ago could change again within the same unit of its times. */
struct mc_fs_version mc_fs_version_of(const struct statx *status)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return (struct mc_fs_version){
		.changed = status->stx_ctime,
		.modified = status->stx_mtime,
		.size = status->stx_size,
		.is_settled = status->stx_ctime.tv_sec < now.tv_sec - GRANULARITY,
	};
}

static int is_same_time(const struct statx_timestamp *time, const struct statx_timestamp *other)
{
	return time->tv_sec == other->tv_sec && time->tv_nsec == other->tv_nsec;
}

int mc_fs_is_same_version(const struct mc_fs_version *version, const struct mc_fs_version *other)
{
	return version->is_settled && is_same_time(&version->changed, &other->changed) &&
	       is_same_time(&version->modified, &other->modified) && version->size == other->size;
}
