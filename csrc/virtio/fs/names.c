/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * names.c: names given, taken away and moved; and the target of a symbolic link: FUSE_LINK, FUSE_UNLINK, FUSE_RMDIR,
 * FUSE_RENAME, FUSE_RENAME2, FUSE_READLINK.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "virtio/fs/server.h"

/* By the magic link of proc(5): linkat(2) with AT_EMPTY_PATH needs CAP_DAC_READ_SEARCH of the initial namespace. */
static int link_to(struct mc_fs_call *call, const struct mc_fs_node *node, const char *name)
{
	char source[MC_FS_FD_NAME];
	int fd;

	mc_fs_fd_name(node->fd, source);
	if (linkat(call->fs->proc_fds, source, call->node->fd, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	fd = fcntl(node->fd, F_DUPFD_CLOEXEC, 0);
	return fd < 0 ? -errno : mc_fs_entry_of(call, fd, MC_FS_MADE, &call->result.entry);
}

int mc_fs_op_link(struct mc_fs_call *call)
{
	struct mc_fs_node *node;
	mc_fs_name name;
	int r = mc_fs_take_name(&call->in, name);

	if (r < 0)
		return r;
	node = mc_fs_node_pin(call->fs, call->arguments.link.oldnodeid);
	if (!node)
		return -ESTALE;
	r = link_to(call, node, name);
	mc_fs_node_unpin(call->fs, node);
	return r;
}

static int unlink_name(struct mc_fs_call *call, int flags)
{
	mc_fs_name name;
	int r = mc_fs_take_name(&call->in, name);

	if (r < 0)
		return r;
	return unlinkat(call->node->fd, name, flags) < 0 ? -errno : 0;
}

int mc_fs_op_unlink(struct mc_fs_call *call)
{
	return unlink_name(call, 0);
}

int mc_fs_op_rmdir(struct mc_fs_call *call)
{
	return unlink_name(call, AT_REMOVEDIR);
}

/* A whiteout belongs to who makes it. */
static int rename_as(const struct mc_fs_call *call, const char *from, int directory, const char *to, unsigned flags)
{
	struct mc_fs_identity before = { 0 };
	int r = flags & RENAME_WHITEOUT ? mc_fs_act_as(&before, call->header.uid, call->header.gid) : 0;

	if (r < 0)
		return r;
	r = renameat2(call->node->fd, from, directory, to, flags) < 0 ? -errno : 0;
	mc_fs_act_as_before(&before);
	return r;
}

static int rename_to(struct mc_fs_call *call, uint64_t directory, unsigned flags)
{
	struct mc_fs_node *node;
	mc_fs_name from, to;
	int r = mc_fs_take_name(&call->in, from);

	if (r == 0)
		r = mc_fs_take_name(&call->in, to);
	if (r < 0)
		return r;
	node = mc_fs_node_pin(call->fs, directory);
	if (!node)
		return -ESTALE;
	r = rename_as(call, from, node->fd, to, flags);
	mc_fs_node_unpin(call->fs, node);
	return r;
}

int mc_fs_op_rename(struct mc_fs_call *call)
{
	return rename_to(call, call->arguments.rename.newdir, 0);
}

int mc_fs_op_rename2(struct mc_fs_call *call)
{
	const struct fuse_rename2_in *in = &call->arguments.rename2;

	if (in->flags & ~(uint32_t)(RENAME_NOREPLACE | RENAME_EXCHANGE | RENAME_WHITEOUT))
		return -EINVAL;
	return rename_to(call, in->newdir, in->flags);
}

int mc_fs_op_readlink(struct mc_fs_call *call)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(call->node->fd, "", target, sizeof(target));

	if (n < 0)
		return errno == ENOENT ? -EINVAL : -errno; /* of what is no link; readlinkat(2) with an empty path */
	return mc_fs_put(&call->out, target, (size_t)n);
}
