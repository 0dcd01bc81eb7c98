/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * attributes.c: FUSE_GETATTR and FUSE_SETATTR. An O_PATH descriptor allows fchownat(2) with AT_EMPTY_PATH; chmod(2) and
 * utimensat(2) go by the magic links of proc(5), which opens nothing.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define SECOND 1000000000u
#define TIMES (FATTR_ATIME | FATTR_MTIME | FATTR_ATIME_NOW | FATTR_MTIME_NOW)
#define OWNER (FATTR_UID | FATTR_GID)

/* struct fuse_attr.rdev: new_encode_dev() of the kernel's include/linux/kdev_t.h */
static uint32_t encoded_device(uint32_t major, uint32_t minor)
{
	return (minor & 0xff) | major << 8 | (minor & ~0xffu) << 12;
}

void mc_fs_attributes(const struct statx *status, struct fuse_attr *attributes)
{
	*attributes = (struct fuse_attr){
		.ino = status->stx_ino,
		.size = status->stx_size,
		.blocks = status->stx_blocks,
		.atime = (uint64_t)status->stx_atime.tv_sec,
		.mtime = (uint64_t)status->stx_mtime.tv_sec,
		.ctime = (uint64_t)status->stx_ctime.tv_sec,
		.atimensec = status->stx_atime.tv_nsec,
		.mtimensec = status->stx_mtime.tv_nsec,
		.ctimensec = status->stx_ctime.tv_nsec,
		.mode = status->stx_mode,
		.nlink = status->stx_nlink,
		.uid = status->stx_uid,
		.gid = status->stx_gid,
		.rdev = encoded_device(status->stx_rdev_major, status->stx_rdev_minor),
		.blksize = status->stx_blksize,
	};
}

int mc_fs_op_getattr(struct mc_fs_call *call)
{
	struct statx status;
	int r = mc_fs_stat(call->node->fd, &status);

	if (r < 0)
		return r;
	mc_fs_attributes(&status, &call->result.attr.attr);
	call->result.attr.attr_valid = MC_FS_VALID_SECONDS;
	return 0;
}

/* ---- FUSE_SETATTR */

static int set_owner(const struct mc_fs_call *call, const struct fuse_setattr_in *in)
{
	uid_t uid = in->valid & FATTR_UID ? in->uid : (uid_t)-1;
	gid_t gid = in->valid & FATTR_GID ? in->gid : (gid_t)-1;

	if ((in->valid & FATTR_UID && uid == (uid_t)-1) || (in->valid & FATTR_GID && gid == (gid_t)-1))
		return -EINVAL; /* which chown(2) takes for "as it is" */
	return fchownat(call->node->fd, "", uid, gid, AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW) < 0 ? -errno : 0;
}

static int set_mode(const struct mc_fs_call *call, const struct fuse_setattr_in *in)
{
	char name[MC_FS_FD_NAME];

	mc_fs_fd_name(call->node->fd, name);
	return fchmodat(call->fs->proc_fds, name, in->mode & ALLPERMS, 0) < 0 ? -errno : 0;
}

/* Without an open file of the client, the file is opened for it. */
static int truncate_to(struct mc_fs_call *call, const struct fuse_setattr_in *in)
{
	struct mc_fs_file *file = NULL;
	int fd, r;

	if (in->size > INT64_MAX)
		return -EFBIG;
	if (call->node->type != S_IFREG)
		return call->node->type == S_IFDIR ? -EISDIR : -EINVAL;
	if (in->valid & FATTR_FH) {
		file = mc_fs_file_pin(call->fs, in->fh, 0);
		if (!file)
			return -EBADF;
	}
	fd = file ? file->fd : mc_fs_reopen_node(call->fs, call->node, O_WRONLY);
	if (fd < 0)
		return fd;
	r = ftruncate(fd, (off_t)in->size) < 0 ? -errno : 0;
	if (file)
		mc_fs_file_unpin(call->fs, file);
	else
		close(fd);
	return r;
}

static int set_size(struct mc_fs_call *call, const struct fuse_setattr_in *in)
{
	struct mc_fs_identity before = { 0 };
	int r = in->valid & FATTR_KILL_SUIDGID ? mc_fs_drop_fsetid(&before) : 0;

	if (r < 0)
		return r;
	r = truncate_to(call, in);
	mc_fs_restore_fsetid(&before);
	return r;
}

static int time_of(uint64_t seconds, uint32_t nanoseconds, int is_set, int is_now, struct timespec *time)
{
	*time = (struct timespec){ .tv_nsec = is_now ? UTIME_NOW : UTIME_OMIT };
	if (!is_set || is_now)
		return 0;
	if (nanoseconds >= SECOND)
		return -EINVAL;
	*time = (struct timespec){ (time_t)seconds, nanoseconds };
	return 0;
}

static int set_times(const struct mc_fs_call *call, const struct fuse_setattr_in *in)
{
	const uint32_t valid = in->valid;
	struct timespec times[2];
	char name[MC_FS_FD_NAME];
	int r = time_of(in->atime, in->atimensec, valid & FATTR_ATIME, valid & FATTR_ATIME_NOW, &times[0]);

	if (r == 0)
		r = time_of(in->mtime, in->mtimensec, valid & FATTR_MTIME, valid & FATTR_MTIME_NOW, &times[1]);
	if (r < 0)
		return r;
	return utimensat(call->fs->proc_fds, mc_fs_fd_name(call->node->fd, name), times, 0) < 0 ? -errno : 0;
}

/* Linux leaves it to the server to clear set-user-id (FUSE_HANDLE_KILLPRIV_V2), but sends a request that changes
 * nothing before a write that will, and for a chown(2) that names nobody. Such a chown(2) of ours clears it, now and
 * not with the write, so that the client sees it at once. Root's request may have another reason: file capabilities. */
static int changes_nothing(const struct mc_fs_call *call)
{
	return !(call->arguments.setattr.valid & (OWNER | FATTR_MODE | FATTR_SIZE | TIMES)) && call->header.uid != 0;
}

/* The owner before the mode: a new owner takes set-user-id away. FATTR_CTIME is sent with a writeback cache alone. */
int mc_fs_op_setattr(struct mc_fs_call *call)
{
	const struct fuse_setattr_in *in = &call->arguments.setattr;
	int r = 0;

	if (in->valid & OWNER || changes_nothing(call))
		r = set_owner(call, in);
	if (r == 0 && in->valid & FATTR_MODE)
		r = set_mode(call, in);
	if (r == 0 && in->valid & FATTR_SIZE)
		r = set_size(call, in);
	if (r == 0 && in->valid & TIMES)
		r = set_times(call, in);
	return r < 0 ? r : mc_fs_op_getattr(call);
}
