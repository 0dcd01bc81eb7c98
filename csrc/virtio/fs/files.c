/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * files.c: open files, except for their data: FUSE_OPEN, FUSE_RELEASE, FUSE_FLUSH, FUSE_FSYNC, FUSE_LSEEK,
 * FUSE_FALLOCATE, FUSE_COPY_FILE_RANGE. RELEASE and FSYNC are also those of directories.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define MOST_COPIED (1u << 30) /* by one FUSE_COPY_FILE_RANGE, whose result has 32 bits */
#define ALLOCATION_MODES (FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)

/* ---- FUSE_OPEN */

/* Of the client's flags those which the file itself must be opened with. O_APPEND and O_SYNC come again with each
 * write, as they are by then; O_DIRECT would demand an alignment that the client's memory does not have. */
static int host_flags(uint32_t flags)
{
	return (int)flags & (O_ACCMODE | O_TRUNC | O_NOATIME);
}

/* An append-only file is opened with O_APPEND, or not at all: chattr(1), +a. */
static int open_node(const struct mc_fs_call *call, int flags, int *is_append_only)
{
	int fd = mc_fs_reopen_node(call->fs, call->node, host_flags((uint32_t)flags));

	*is_append_only = fd == -EPERM && flags & O_APPEND;
	return *is_append_only ? mc_fs_reopen_node(call->fs, call->node, host_flags((uint32_t)flags) | O_APPEND) : fd;
}

/* Answers with the open file. */
static int enter_opened(struct mc_fs_call *call, const struct mc_fs_file *opened)
{
	struct fuse_open_out *out = &call->result.open;

	if (mc_fs_node_has_cached(call->fs, call->node, &opened->version))
		out->open_flags |= FOPEN_KEEP_CACHE;
#ifdef FOPEN_NOFLUSH
	if ((call->arguments.open.flags & O_ACCMODE) == O_RDONLY)
		out->open_flags |= FOPEN_NOFLUSH; /* close(2) has nothing to write */
#endif
	return mc_fs_file_enter(call->fs, opened, &out->fh);
}

int mc_fs_op_open(struct mc_fs_call *call)
{
	const struct fuse_open_in *in = &call->arguments.open;
	struct mc_fs_file opened = { .node = call->header.nodeid };
	struct mc_fs_identity before = { 0 };
	struct statx status;
	int r;

	if (call->node->type == S_IFDIR)
		return -EISDIR;
	if ((in->flags & O_ACCMODE) == O_ACCMODE)
		return -EINVAL;
	r = in->open_flags & FUSE_OPEN_KILL_SUIDGID ? mc_fs_drop_fsetid(&before) : 0;
	if (r < 0)
		return r;
	opened.fd = open_node(call, (int)in->flags, &opened.is_append_only);
	mc_fs_restore_fsetid(&before);
	if (opened.fd < 0)
		return opened.fd;
	if (mc_fs_stat(opened.fd, &status) == 0)
		opened.version = mc_fs_version_of(&status);
	return enter_opened(call, &opened);
}

/* Now the client has seen the reply to the open, and dropped what it had in its cache if it was not told to keep it. */
int mc_fs_op_release(struct mc_fs_call *call)
{
	if (!call->file->is_directory)
		mc_fs_node_note_cached(call->fs, call->file->node, &call->file->version);
	mc_fs_file_release(call->fs, call->file);
	return 0;
}

/* close(2) in the client: of a copy here, which tells what a network file system has kept for it. */
int mc_fs_op_flush(struct mc_fs_call *call)
{
	int fd = fcntl(call->file->fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 || close(fd) < 0 ? -errno : 0;
}

int mc_fs_op_fsync(struct mc_fs_call *call)
{
	const int fd = call->file->fd;

	if (call->arguments.fsync.fsync_flags & FUSE_FSYNC_FDATASYNC)
		return fdatasync(fd) < 0 ? -errno : 0;
	return fsync(fd) < 0 ? -errno : 0;
}

/* ---- parts of files */

/* The client knows the other positions itself. Nothing here reads or writes at the descriptor's position. */
int mc_fs_op_lseek(struct mc_fs_call *call)
{
	const struct fuse_lseek_in *in = &call->arguments.lseek;
	off_t offset;

	if ((in->whence != SEEK_DATA && in->whence != SEEK_HOLE) || in->offset > INT64_MAX)
		return -EINVAL;
	offset = lseek(call->file->fd, (off_t)in->offset, (int)in->whence);
	call->result.lseek.offset = (uint64_t)offset;
	return offset < 0 ? -errno : 0;
}

/* Such a change of the content takes set-user-id away, but the request does not say whether the client's process has
 * CAP_FSETID: we take it that root has. */
static int kill_suid_unless_root(const struct mc_fs_call *call, struct mc_fs_identity *before)
{
	return call->header.uid ? mc_fs_drop_fsetid(before) : 0;
}

int mc_fs_op_fallocate(struct mc_fs_call *call)
{
	const struct fuse_fallocate_in *in = &call->arguments.fallocate;
	struct mc_fs_identity before = { 0 };
	int r;

	if (in->mode & ~(uint32_t)ALLOCATION_MODES)
		return -EOPNOTSUPP;
	if (in->offset > INT64_MAX || in->length > INT64_MAX)
		return -EINVAL;
	r = kill_suid_unless_root(call, &before);
	if (r < 0)
		return r;
	r = fallocate(call->file->fd, (int)in->mode, (off_t)in->offset, (off_t)in->length) < 0 ? -errno : 0;
	mc_fs_restore_fsetid(&before);
	return r;
}

static int copy_range(struct mc_fs_call *call, const struct mc_fs_file *to)
{
	const struct fuse_copy_file_range_in *in = &call->arguments.copy_file_range;
	size_t size = in->len < MOST_COPIED ? (size_t)in->len : MOST_COPIED;
	off_t from_offset = (off_t)in->off_in, to_offset = (off_t)in->off_out;
	struct mc_fs_identity before = { 0 };
	ssize_t n;
	int r = kill_suid_unless_root(call, &before);

	if (r < 0)
		return r;
	n = copy_file_range(call->file->fd, &from_offset, to->fd, &to_offset, size, 0);
	r = n < 0 ? -errno : 0;
	mc_fs_restore_fsetid(&before);
	call->result.write.size = (uint32_t)n;
	return r;
}

int mc_fs_op_copy_file_range(struct mc_fs_call *call)
{
	const struct fuse_copy_file_range_in *in = &call->arguments.copy_file_range;
	struct mc_fs_file *to;
	int r;

	if (in->flags || in->off_in > INT64_MAX || in->off_out > INT64_MAX)
		return -EINVAL;
	to = mc_fs_file_pin(call->fs, in->fh_out, 0);
	if (!to)
		return -EBADF;
	r = copy_range(call, to);
	mc_fs_file_unpin(call->fs, to);
	return r;
}
