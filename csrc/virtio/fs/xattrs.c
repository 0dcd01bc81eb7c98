/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * xattrs.c: extended attributes, of inodes of every kind: by the magic link of proc(5) in the thread's working
 * directory, since an O_PATH descriptor is none for fgetxattr(2). ENOSYS is never said: the client would not ask again.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/limits.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "virtio/fs/server.h"

#define NO_ID ((uint32_t)-1) /* what the kernel says for one that this user namespace does not have */
#define NOBODYS ((uint32_t)-2)

typedef char xattr_name[XATTR_NAME_MAX + 1];

static int take_xattr_name(struct mc_fs_cursor *in, xattr_name name)
{
	size_t have = mc_fs_peek(in, name, sizeof(xattr_name));
	size_t length = strnlen(name, have);

	if (length == have)
		return have < sizeof(xattr_name) ? -EINVAL : -ERANGE;
	mc_fs_skip(in, length + 1);
	return length ? 0 : -ERANGE;
}

static int is_acl(const char *name)
{
	return strcmp(name, "system.posix_acl_access") == 0 || strcmp(name, "system.posix_acl_default") == 0;
}

/* Entries for users and groups that the server does not have get an id that no process of the client has. Linux takes
 * no list with one that has none, and refuses every use of the file (posix_acl_from_xattr() in fs/posix_acl.c). Linux
 * 6.1 has none for any entry of a file on an ID-mapped mount. */
static void give_ids(char *acl, size_t size)
{
	for (size_t at = sizeof(struct posix_acl_xattr_header); at + sizeof(struct posix_acl_xattr_entry) <= size;
	     at += sizeof(struct posix_acl_xattr_entry)) {
		struct posix_acl_xattr_entry entry;

		memcpy(&entry, acl + at, sizeof(entry));
		if ((entry.e_tag == ACL_USER || entry.e_tag == ACL_GROUP) && entry.e_id == NO_ID)
			entry.e_id = NOBODYS;
		memcpy(acl + at, &entry, sizeof(entry));
	}
}

/* ---- FUSE_GETXATTR, FUSE_LISTXATTR */

/* Answers with the attribute of a name, or for NULL with the list of names; for size 0 with its size. */
static int answer(struct mc_fs_call *call, const char *name)
{
	const struct fuse_getxattr_in *in = &call->arguments.getxattr;
	const size_t room = in->size < XATTR_SIZE_MAX ? in->size : XATTR_SIZE_MAX;
	char path[MC_FS_FD_NAME], *value = room ? malloc(room) : NULL;
	ssize_t n;
	int r;

	if (room && !value)
		return -ENOMEM;
	mc_fs_fd_name(call->node->fd, path);
	n = name ? getxattr(path, name, value, room) : listxattr(path, value, room);
	r = n < 0 ? -errno : 0;
	if (r == 0 && room) {
		if (name && is_acl(name))
			give_ids(value, (size_t)n);
		r = call->out.left < (size_t)n ? -ERANGE : mc_fs_put(&call->out, value, (size_t)n);
	} else if (r == 0) {
		struct fuse_getxattr_out out = { .size = (uint32_t)n };

		r = mc_fs_put(&call->out, &out, sizeof(out));
	}
	free(value);
	return r;
}

/* The client asks for ACLs to decide about permissions. Where the file system has none, Linux takes EOPNOTSUPP for a
 * failure of that decision (fuse_get_acl() in fs/fuse/acl.c). */
int mc_fs_op_getxattr(struct mc_fs_call *call)
{
	xattr_name name;
	int r = take_xattr_name(&call->in, name);

	if (r == 0)
		r = answer(call, name);
	return r == -EOPNOTSUPP && is_acl(name) ? -ENODATA : r;
}

int mc_fs_op_listxattr(struct mc_fs_call *call)
{
	return answer(call, NULL);
}

/* ---- FUSE_SETXATTR, FUSE_REMOVEXATTR */

/* The second half of struct fuse_setxattr_in, if INIT has agreed on it. */
static int take_extension(struct mc_fs_call *call)
{
	struct fuse_setxattr_in *in = &call->arguments.setxattr;

	if (!__atomic_load_n(&call->fs->setxattr_ext, __ATOMIC_RELAXED))
		return 0;
	return mc_fs_take(&call->in, &in->setxattr_flags, sizeof(*in) - FUSE_COMPAT_SETXATTR_IN_SIZE);
}

/* The client's process is not in the file's group, and may not give an ACL with set-group-id. */
static int kill_sgid(const struct mc_fs_call *call, const char *path)
{
	struct statx status;
	int r = mc_fs_stat(call->node->fd, &status);

	if (r < 0 || !(status.stx_mode & S_ISGID))
		return r;
	return fchmodat(call->fs->proc_fds, path, status.stx_mode & ALLPERMS & ~S_ISGID, 0) < 0 ? -errno : 0;
}

static int set(struct mc_fs_call *call, const char *name, const void *value)
{
	const struct fuse_setxattr_in *in = &call->arguments.setxattr;
	char path[MC_FS_FD_NAME];

	if (setxattr(mc_fs_fd_name(call->node->fd, path), name, value, in->size, (int)in->flags) < 0)
		return -errno;
	return in->setxattr_flags & FUSE_SETXATTR_ACL_KILL_SGID && is_acl(name) ? kill_sgid(call, path) : 0;
}

int mc_fs_op_setxattr(struct mc_fs_call *call)
{
	const struct fuse_setxattr_in *in = &call->arguments.setxattr;
	xattr_name name;
	void *value;
	int r = take_extension(call);

	if (r == 0)
		r = take_xattr_name(&call->in, name);
	if (r < 0)
		return r;
	if (in->size > XATTR_SIZE_MAX)
		return -E2BIG;
	value = malloc(in->size ? in->size : 1);
	if (!value)
		return -ENOMEM;
	r = mc_fs_take(&call->in, value, in->size);
	if (r == 0)
		r = set(call, name, value);
	free(value);
	return r;
}

int mc_fs_op_removexattr(struct mc_fs_call *call)
{
	char path[MC_FS_FD_NAME];
	xattr_name name;
	int r = take_xattr_name(&call->in, name);

	if (r < 0)
		return r;
	return removexattr(mc_fs_fd_name(call->node->fd, path), name) < 0 ? -errno : 0;
}
