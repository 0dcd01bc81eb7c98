/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * directories.c: FUSE_OPENDIR, FUSE_READDIR, FUSE_READDIRPLUS.
 *
 * Entries are read in batches, and a batch goes on with the next request: lseek(2) only when the client does not go on
 * where it was. Some file systems (tmpfs before Linux 6.6) count entries for a position, and would skip some after
 * others were removed.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define BATCH 8192 /* for each open directory, of which there may be many */

int mc_fs_op_opendir(struct mc_fs_call *call)
{
	struct mc_fs_file directory = { .is_directory = 1 };

	if (call->node->type != S_IFDIR)
		return -ENOTDIR;
	directory.fd = mc_fs_reopen_node(call->fs, call->node, O_RDONLY | O_DIRECTORY);
	return directory.fd < 0 ? directory.fd : mc_fs_file_enter(call->fs, &directory, &call->result.open.fh);
}

/* ---- batches; under the lock of the open directory */

/* Goes to a position; the beginning (rewinddir(3)) is always read again. */
static int go_to(struct mc_fs_file *directory, uint64_t offset)
{
	if (offset == directory->offset && offset != 0)
		return 0;
	directory->used = directory->next = 0;
	if (lseek(directory->fd, (off_t)offset, SEEK_SET) < 0)
		return -errno;
	directory->offset = offset;
	return 0;
}

/* The next entry, NULL at the end; or -errno. It stays the next one until it is passed. */
static int next_entry(struct mc_fs_file *directory, struct dirent64 **entry)
{
	*entry = NULL;
	if (!directory->batch && !(directory->batch = malloc(BATCH)))
		return -ENOMEM;
	if (directory->next == directory->used) {
		ssize_t n = getdents64(directory->fd, directory->batch, BATCH);

		directory->next = 0;
		directory->used = n < 0 ? 0 : (size_t)n;
		if (n <= 0)
			return n < 0 ? -errno : 0;
	}
	*entry = (struct dirent64 *)(directory->batch + directory->next);
	return 0;
}

static void pass(struct mc_fs_file *directory, const struct dirent64 *entry)
{
	directory->next += entry->d_reclen;
	directory->offset = (uint64_t)entry->d_off;
}

/* ---- what is put into the reply */

static int is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* What is above the root is nobody's concern: like "/.." it is the root itself. */
static uint64_t inode_of(const struct mc_fs_call *call, const struct dirent64 *entry)
{
	return call->node == call->fs->root && is_dot(entry->d_name) ? call->node->inode : entry->d_ino;
}

static size_t size_of(const struct dirent64 *entry, int is_plus)
{
	const size_t head = is_plus ? FUSE_NAME_OFFSET_DIRENTPLUS : FUSE_NAME_OFFSET;

	return FUSE_DIRENT_ALIGN(head + strlen(entry->d_name));
}

/* Without a node (0) the client learns the name alone: of the dots, and of what cannot be looked up, since it has been
 * removed meanwhile or descriptors are scarce. */
static struct fuse_entry_out looked_up(const struct mc_fs_call *call, const struct dirent64 *entry)
{
	struct fuse_entry_out found = { 0 };

	if (is_dot(entry->d_name) || mc_fs_entry(call, entry->d_name, MC_FS_LISTED(call->fs), &found) < 0)
		found = (struct fuse_entry_out){ .attr.ino = entry->d_ino, .attr.mode = DTTOIF(entry->d_type) };
	return found;
}

/* The caller has seen that there is room. */
static int put_entry(struct mc_fs_call *call, const struct dirent64 *entry, int is_plus)
{
	const struct fuse_dirent head = {
		.ino = inode_of(call, entry),
		.off = (uint64_t)entry->d_off,
		.namelen = (uint32_t)strlen(entry->d_name),
		.type = entry->d_type,
	};
	struct {
		struct fuse_direntplus entry;
		char name[NAME_MAX + 1 + sizeof(uint64_t)];
	} whole = { .entry.dirent = head };
	const size_t from = is_plus ? 0 : offsetof(struct fuse_direntplus, dirent);

	if (is_plus)
		whole.entry.entry_out = looked_up(call, entry);
	memcpy((char *)&whole + FUSE_NAME_OFFSET_DIRENTPLUS, entry->d_name, head.namelen);
	return mc_fs_put(&call->out, (char *)&whole + from, size_of(entry, is_plus));
}

static int put_entries(struct mc_fs_call *call, size_t room, int is_plus)
{
	struct mc_fs_file *directory = call->file;
	struct dirent64 *entry;
	size_t done = 0;
	int r = 0;

	while ((r = next_entry(directory, &entry)) == 0 && entry) {
		size_t size = size_of(entry, is_plus);

		if (size > room - done)
			return done ? 0 : -EINVAL;
		r = put_entry(call, entry, is_plus);
		if (r < 0)
			break;
		pass(directory, entry);
		done += size;
	}
	return done ? 0 : r;
}

static int read_directory(struct mc_fs_call *call, int is_plus)
{
	const struct fuse_read_in *in = &call->arguments.read;
	size_t room = in->size < call->out.left ? in->size : call->out.left;
	int r;

	pthread_mutex_lock(&call->file->lock);
	r = go_to(call->file, in->offset);
	if (r == 0)
		r = put_entries(call, room, is_plus);
	pthread_mutex_unlock(&call->file->lock);
	return r;
}

int mc_fs_op_readdir(struct mc_fs_call *call)
{
	return read_directory(call, 0);
}

int mc_fs_op_readdirplus(struct mc_fs_call *call)
{
	return read_directory(call, 1);
}
