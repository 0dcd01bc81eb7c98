/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * entries.c: names of the client, and the nodes that they stand for: FUSE_LOOKUP, FUSE_FORGET. A name is one component
 * and is opened in the directory's own descriptor without following anything, so nothing leads out of the root.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "virtio/fs/server.h"

static int is_component(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") != 0 && strcmp(name, "..") != 0;
}

/* Copies a name with its end. The client does not send "." and ".." (FUSE_EXPORT_SUPPORT is not negotiated). */
int mc_fs_take_name(struct mc_fs_cursor *in, mc_fs_name name)
{
	size_t have = mc_fs_peek(in, name, sizeof(mc_fs_name));
	size_t length = strnlen(name, have);

	if (length == have)
		return have < sizeof(mc_fs_name) ? -EINVAL : -ENAMETOOLONG;
	mc_fs_skip(in, length + 1);
	return is_component(name) ? 0 : -EINVAL;
}

/* The entry, in the directory of the request, of an O_PATH descriptor, which it takes; with one more reference of the
 * client. `most`: inodes that the client may know, if this is a new one; else EMFILE. */
int mc_fs_entry_of(const struct mc_fs_call *call, int fd, size_t most, struct fuse_entry_out *entry)
{
	struct statx status;
	int r = mc_fs_stat(fd, &status);

	if (r < 0) {
		close(fd);
		return r;
	}
	*entry = (struct fuse_entry_out){ .entry_valid = MC_FS_VALID_SECONDS, .attr_valid = MC_FS_VALID_SECONDS };
	mc_fs_attributes(&status, &entry->attr);
	if (mc_fs_is_submount(call->node, &status))
		entry->attr.flags = FUSE_ATTR_SUBMOUNT;
	return mc_fs_node_enter(call->fs, fd, &status, most, &entry->nodeid);
}

int mc_fs_entry(const struct mc_fs_call *call, const char *name, size_t most, struct fuse_entry_out *entry)
{
	int fd = openat(call->node->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : mc_fs_entry_of(call, fd, most, entry);
}

int mc_fs_op_lookup(struct mc_fs_call *call)
{
	mc_fs_name name;
	int r = mc_fs_take_name(&call->in, name);

	return r < 0 ? r : mc_fs_entry(call, name, MC_FS_LOOKED_UP(call->fs), &call->result.entry);
}

int mc_fs_op_forget(struct mc_fs_call *call)
{
	mc_fs_node_forget(call->fs, call->header.nodeid, call->arguments.forget.nlookup);
	return 0;
}

int mc_fs_op_batch_forget(struct mc_fs_call *call)
{
	struct fuse_forget_one one;

	for (uint32_t i = 0; i < call->arguments.batch_forget.count; i++) {
		if (mc_fs_take(&call->in, &one, sizeof(one)) < 0)
			return -EINVAL;
		mc_fs_node_forget(call->fs, one.nodeid, one.nlookup);
	}
	return 0;
}
