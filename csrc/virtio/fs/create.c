/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * create.c: new files of every kind, which belong to who makes them: FUSE_MKNOD, FUSE_MKDIR, FUSE_SYMLINK,
 * FUSE_CREATE, FUSE_TMPFILE. The kernel applies the umask (FUSE_DONT_MASK leaves that to the server), the directory's
 * default ACL, which takes the umask's place, and its set-group-id bit.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "virtio/fs/server.h"

/* What is made, in a directory. */
struct new_file {
	mode_t mode;            /* of mkdir(2), else of mknod(2); S_IFLNK: `target` is meant */
	uint32_t umask;
	mc_fs_name name;
	char target[PATH_MAX];
};

static int make(int directory, const struct new_file *file)
{
	if (S_ISLNK(file->mode))
		return symlinkat(file->target, directory, file->name);
	if (S_ISDIR(file->mode))
		return mkdirat(directory, file->name, file->mode & ALLPERMS);
	return mknodat(directory, file->name, file->mode, 0);
}

/* Makes it and answers with its entry. Whoever replaces it in between is the one who is found. */
static int make_and_enter(struct mc_fs_call *call, const struct new_file *file)
{
	struct mc_fs_identity before;
	int r = mc_fs_act_as(&before, call->header.uid, call->header.gid);

	if (r < 0)
		return r;
	umask(file->umask & ACCESSPERMS);
	r = make(call->node->fd, file) < 0 ? -errno : 0;
	mc_fs_act_as_before(&before);
	return r < 0 ? r : mc_fs_entry(call, file->name, MC_FS_MADE, &call->result.entry);
}

int mc_fs_op_mkdir(struct mc_fs_call *call)
{
	const struct fuse_mkdir_in *in = &call->arguments.mkdir;
	struct new_file file = { .mode = S_IFDIR | (in->mode & ALLPERMS), .umask = in->umask };
	int r = mc_fs_take_name(&call->in, file.name);

	return r < 0 ? r : make_and_enter(call, &file);
}

/* The kernel itself makes an exception for whiteouts (mknod(2), overlayfs): 0:0 is no device. */
int mc_fs_op_mknod(struct mc_fs_call *call)
{
	const struct fuse_mknod_in *in = &call->arguments.mknod;
	struct new_file file = { .mode = in->mode & (S_IFMT | ALLPERMS), .umask = in->umask };
	int r = mc_fs_take_name(&call->in, file.name);

	if (r < 0)
		return r;
	switch (file.mode & S_IFMT) {
	case S_IFREG:
	case S_IFIFO:
	case S_IFSOCK:
		return make_and_enter(call, &file);
	case S_IFCHR:
		return in->rdev == 0 ? make_and_enter(call, &file) : -EPERM;
	case S_IFBLK:
		return -EPERM;
	default:
		return -EINVAL;
	}
}

int mc_fs_op_symlink(struct mc_fs_call *call)
{
	struct new_file file = { .mode = S_IFLNK };
	int r = mc_fs_take_name(&call->in, file.name);
	size_t have, length;

	if (r < 0)
		return r;
	have = mc_fs_peek(&call->in, file.target, sizeof(file.target));
	length = strnlen(file.target, have);
	if (length == have)
		return have < sizeof(file.target) ? -EINVAL : -ENAMETOOLONG;
	return make_and_enter(call, &file);
}

/* ---- FUSE_CREATE, FUSE_TMPFILE: with an open file */

static int open_new(const struct mc_fs_call *call, const char *name, int flags)
{
	const struct fuse_create_in *in = &call->arguments.create;
	struct mc_fs_identity before;
	int fd, r = mc_fs_act_as(&before, call->header.uid, call->header.gid);

	if (r < 0)
		return r;
	umask(in->umask & ACCESSPERMS);
	fd = openat(call->node->fd, name, flags | O_NOFOLLOW | O_CLOEXEC, in->mode & ALLPERMS);
	r = fd < 0 ? -errno : fd;
	mc_fs_act_as_before(&before);
	return r;
}

/* Answers with the entry and the open file of a descriptor, which it takes. */
static int enter_opened(struct mc_fs_call *call, int fd)
{
	struct fuse_entry_out *entry = &call->result.created.entry;
	int path = mc_fs_reopen(call->fs, fd, O_PATH);
	int r = path < 0 ? path : mc_fs_entry_of(call, path, MC_FS_MADE, entry);

	if (r < 0) {
		close(fd);
		return r;
	}
	r = mc_fs_file_enter(call->fs, &(struct mc_fs_file){ .fd = fd }, &call->result.created.open.fh);
	if (r < 0)
		mc_fs_node_forget(call->fs, entry->nodeid, 1);
	return r;
}

/* Only ever makes a file. If there is one, the client has looked the name up too early to know: after ESTALE Linux does
 * so again, decides whether its process may open what is there, and sends FUSE_OPEN. */
int mc_fs_op_create(struct mc_fs_call *call)
{
	const int flags = (int)call->arguments.create.flags;
	mc_fs_name name;
	int fd, r = mc_fs_take_name(&call->in, name);

	if (r < 0)
		return r;
	if ((flags & O_ACCMODE) == O_ACCMODE)
		return -EINVAL;
	fd = open_new(call, name, (flags & O_ACCMODE) | O_CREAT | O_EXCL);
	if (fd == -EEXIST && !(flags & O_EXCL))
		return -ESTALE;
	return fd < 0 ? fd : enter_opened(call, fd);
}

int mc_fs_op_tmpfile(struct mc_fs_call *call)
{
	const int flags = (int)call->arguments.create.flags;
	int fd;

	if ((flags & O_ACCMODE) != O_WRONLY && (flags & O_ACCMODE) != O_RDWR)
		return -EINVAL;
	fd = open_new(call, ".", (flags & (O_ACCMODE | O_EXCL)) | O_TMPFILE);
	return fd < 0 ? fd : enter_opened(call, fd);
}
