/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * data.c: FUSE_READ and FUSE_WRITE, straight between the file and the client's memory.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/uio.h>

#include "virtio/fs/server.h"

#define PARTS (MC_FS_MAX_PAGES + 2) /* what one request of a sound client has: pages, of which none need begin one */

typedef ssize_t transfer_call(int fd, const struct iovec *parts, int n, off_t offset, int flags);

/* Moves `size` bytes between the file and the cursor, fewer at the end of the file; how many, or -errno if none. */
static ssize_t move(transfer_call *call, int fd, struct mc_fs_cursor *cursor, size_t size, uint64_t offset, int flags)
{
	struct iovec parts[PARTS];
	size_t done = 0;

	if (offset > INT64_MAX || size > INT64_MAX - offset)
		return -EFBIG;
	while (done < size) {
		int nparts = mc_fs_parts(cursor, size - done, parts, PARTS);
		ssize_t n = call(fd, parts, nparts, (off_t)(offset + done), flags);

		if (n < 0 && done == 0)
			return -errno;
		if (n <= 0)
			break;
		mc_fs_skip(cursor, (size_t)n);
		done += (size_t)n;
	}
	return (ssize_t)done;
}

int mc_fs_op_read(struct mc_fs_call *call)
{
	const struct fuse_read_in *in = &call->arguments.read;
	size_t size = in->size < call->out.left ? in->size : call->out.left;
	ssize_t n = move(preadv2, call->file->fd, &call->out, size, in->offset, 0);

	return n < 0 ? (int)n : 0;
}

/* As the client's descriptor is now: fcntl(2) can change O_APPEND. What is written for a mapping (FUSE_WRITE_CACHE) has
 * a place, whatever the flags of the descriptor are that the client has found for it. */
static int write_flags(const struct fuse_write_in *in)
{
	int flags = 0;

	if (in->flags & O_APPEND && !(in->write_flags & FUSE_WRITE_CACHE))
		flags |= RWF_APPEND;
	if ((in->flags & O_SYNC) == O_SYNC)
		flags |= RWF_SYNC;
	else if (in->flags & O_DSYNC)
		flags |= RWF_DSYNC;
	return flags;
}

int mc_fs_op_write(struct mc_fs_call *call)
{
	const struct fuse_write_in *in = &call->arguments.write;
	struct mc_fs_identity before = { 0 };
	ssize_t n;
	int r;

	if (in->size > call->in.left)
		return -EINVAL;
	if (call->file->is_append_only && in->write_flags & FUSE_WRITE_CACHE)
		return -EPERM;
	r = in->write_flags & FUSE_WRITE_KILL_SUIDGID ? mc_fs_drop_fsetid(&before) : 0;
	if (r < 0)
		return r;
	n = move(pwritev2, call->file->fd, &call->in, in->size, in->offset, write_flags(in));
	mc_fs_restore_fsetid(&before);
	call->result.write.size = (uint32_t)n;
	return n < 0 ? (int)n : 0;
}
