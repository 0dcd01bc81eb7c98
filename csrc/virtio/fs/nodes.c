/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * nodes.c: the inodes that the client knows. A node is made by the first lookup of an inode and ends with the client's
 * last reference to it (FUSE_FORGET). Its O_PATH descriptor keeps the inode, so (device, inode, mount) stays its own.
 * The mount belongs to it: the same inode may be read-only in one and writable in another.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define PATIENCE 5 /* seconds */
#define NODE(item, member) ((struct mc_fs_node *)((char *)(item) - offsetof(struct mc_fs_node, member)))

int mc_fs_stat(int fd, struct statx *status)
{
	const unsigned mask = STATX_BASIC_STATS | STATX_MNT_ID;

	return statx(fd, "", AT_EMPTY_PATH | AT_NO_AUTOMOUNT, mask, status) < 0 ? -errno : 0;
}

static uint64_t device_of(const struct statx *status)
{
	return (uint64_t)status->stx_dev_major << 32 | status->stx_dev_minor;
}

static uint64_t mount_of(const struct statx *status)
{
	return status->stx_mask & STATX_MNT_ID ? status->stx_mnt_id : 0; /* Linux 5.8 has it */
}

/* Whether the directory is in another file system, or mount, than its parent. */
int mc_fs_is_submount(const struct mc_fs_node *parent, const struct statx *status)
{
	return S_ISDIR(status->stx_mode) &&
	       (parent->device != device_of(status) || parent->mount != mount_of(status));
}

/* ---- the tables */

static uint64_t inode_key(const struct statx *status)
{
	return (status->stx_ino * 31 + device_of(status)) * 31 + mount_of(status);
}

static struct mc_fs_node *find_inode(struct mc_fs *fs, const struct statx *status)
{
	struct mc_fs_item *item = mc_fs_table_find(&fs->inodes, inode_key(status));

	for (; item; item = mc_fs_table_next(item)) {
		struct mc_fs_node *node = NODE(item, by_inode);

		if (node->inode == status->stx_ino && node->device == device_of(status) &&
		    node->mount == mount_of(status))
			return node;
	}
	return NULL;
}

static int list(struct mc_fs *fs, struct mc_fs_node *node)
{
	int r = mc_fs_table_add(&fs->inodes, &node->by_inode);

	if (r < 0)
		return r;
	r = mc_fs_table_add(&fs->nodes, &node->by_id);
	if (r < 0)
		mc_fs_table_remove(&fs->inodes, &node->by_inode);
	node->listed = r == 0;
	return r;
}

static struct mc_fs_node *make(int fd, const struct statx *status)
{
	struct mc_fs_node *node = calloc(1, sizeof(*node));

	if (!node)
		return NULL;
	node->by_inode.key = inode_key(status);
	node->inode = status->stx_ino;
	node->device = device_of(status);
	node->mount = mount_of(status);
	node->type = status->stx_mode & S_IFMT;
	node->fd = fd;
	return node;
}

static struct mc_fs_node *make_listed(struct mc_fs *fs, int fd, const struct statx *status)
{
	struct mc_fs_node *node = make(fd, status);

	if (!node)
		return NULL;
	node->by_id.key = ++fs->last_node;
	if (list(fs, node) == 0)
		return node;
	free(node);
	return NULL;
}

/* The node of the root takes the descriptor. It is in no table, and ends with mc_fs_node_unpin(). */
int mc_fs_node_of_root(struct mc_fs *fs, int fd)
{
	struct statx status;
	int r = mc_fs_stat(fd, &status);

	if (r == 0 && !S_ISDIR(status.stx_mode))
		r = -ENOTDIR;
	if (r == 0 && !(fs->root = make(fd, &status)))
		r = -ENOMEM;
	if (r < 0) {
		close(fd);
		return r;
	}
	fs->root->by_id.key = fs->last_node = FUSE_ROOT_ID;
	fs->root->pins = 1;
	return 0;
}

/* ---- descriptors are scarce. `lock` is held in all of this */

static void ask_to_forget(struct mc_fs *fs)
{
	fs->asked = 1;
	if (fs->scarce >= 0)
		eventfd_write(fs->scarce, 1);
}

static void note_forgotten(struct mc_fs *fs)
{
	if (fs->nodes.count < MC_FS_SCARCE(fs))
		fs->asked = 0;
	fs->in_vain = 0;
	pthread_cond_broadcast(&fs->forgotten);
}

/* Waits until the client knows less than `most` inodes, unless it forgets none. */
static void await_room(struct mc_fs *fs, size_t most)
{
	struct timespec until;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += PATIENCE;
	ask_to_forget(fs);
	while (fs->nodes.count >= most && !fs->in_vain)
		fs->in_vain = pthread_cond_clockwait(&fs->forgotten, &fs->lock, CLOCK_MONOTONIC, &until) != 0;
}

/* Whether one more may be known; a listing does not wait for that. */
static int has_room(struct mc_fs *fs, size_t most)
{
	if (!fs->asked && fs->nodes.count >= MC_FS_SCARCE(fs))
		ask_to_forget(fs);
	if (fs->nodes.count >= most && most > MC_FS_SCARCE(fs) && fs->scarce >= 0 && !fs->in_vain)
		await_room(fs, most);
	return fs->nodes.count < most;
}

/* The node of an O_PATH descriptor, which it takes, with one more reference of the client. A new one is refused if the
 * client knows `most` already: EMFILE. */
int mc_fs_node_enter(struct mc_fs *fs, int fd, const struct statx *status, size_t most, uint64_t *id)
{
	struct mc_fs_node *node, *known;
	int r = 0;

	pthread_mutex_lock(&fs->lock);
	known = find_inode(fs, status);
	if (!known && !has_room(fs, most))
		r = -EMFILE;
	else if (!known)
		known = find_inode(fs, status); /* another thread may have entered it while this one waited */
	node = known;
	if (!node && r == 0 && !(node = make_listed(fs, fd, status)))
		r = -ENOMEM;
	if (node) {
		node->lookups++;
		*id = node->by_id.key;
	}
	pthread_mutex_unlock(&fs->lock);
	if (!node || known)
		close(fd);
	return r;
}

/* Removes the node from the tables; whether nobody uses it any more, so that the caller discards it. */
static int unlist(struct mc_fs *fs, struct mc_fs_node *node)
{
	mc_fs_table_remove(&fs->nodes, &node->by_id);
	mc_fs_table_remove(&fs->inodes, &node->by_inode);
	node->listed = 0;
	return node->pins == 0;
}

static void discard(struct mc_fs_node *node)
{
	close(node->fd);
	free(node);
}

static struct mc_fs_node *find(const struct mc_fs *fs, uint64_t id)
{
	struct mc_fs_item *item = mc_fs_table_find(&fs->nodes, id);

	return id == FUSE_ROOT_ID ? fs->root : item ? NODE(item, by_id) : NULL;
}

/* The node, for the time of a request; NULL: the client does not know such a one. */
struct mc_fs_node *mc_fs_node_pin(struct mc_fs *fs, uint64_t id)
{
	struct mc_fs_node *node;

	pthread_mutex_lock(&fs->lock);
	node = find(fs, id);
	if (node)
		node->pins++;
	pthread_mutex_unlock(&fs->lock);
	return node;
}

void mc_fs_node_unpin(struct mc_fs *fs, struct mc_fs_node *node)
{
	int is_last;

	pthread_mutex_lock(&fs->lock);
	is_last = --node->pins == 0 && !node->listed;
	pthread_mutex_unlock(&fs->lock);
	if (is_last)
		discard(node);
}

/* ---- the client's cache of a file's content (cached.c) */

int mc_fs_node_has_cached(struct mc_fs *fs, const struct mc_fs_node *node, const struct mc_fs_version *version)
{
	int has;

	pthread_mutex_lock(&fs->lock);
	has = mc_fs_is_same_version(&node->cached, version);
	pthread_mutex_unlock(&fs->lock);
	return has;
}

/* If the client still knows the node. */
void mc_fs_node_note_cached(struct mc_fs *fs, uint64_t id, const struct mc_fs_version *version)
{
	struct mc_fs_node *node;

	pthread_mutex_lock(&fs->lock);
	node = find(fs, id);
	if (node)
		node->cached = *version;
	pthread_mutex_unlock(&fs->lock);
}

/* ---- the client's references */

/* Takes some back. The root stays. */
void mc_fs_node_forget(struct mc_fs *fs, uint64_t id, uint64_t lookups)
{
	struct mc_fs_node *node;
	int is_last = 0;

	pthread_mutex_lock(&fs->lock);
	node = find(fs, id);
	if (node && node->listed) {
		node->lookups -= lookups < node->lookups ? lookups : node->lookups;
		is_last = node->lookups == 0 && unlist(fs, node);
		note_forgotten(fs);
	}
	pthread_mutex_unlock(&fs->lock);
	if (is_last)
		discard(node);
}

/* Forgets every node but the root. */
void mc_fs_nodes_reset(struct mc_fs *fs)
{
	struct mc_fs_item *item;
	size_t from = 0;

	pthread_mutex_lock(&fs->lock);
	while ((item = mc_fs_table_from(&fs->nodes, &from)))
		if (unlist(fs, NODE(item, by_id)))
			discard(NODE(item, by_id));
	pthread_mutex_unlock(&fs->lock);
}

/* ---- what the descriptor stands for, opened */

const char *mc_fs_fd_name(int fd, char name[MC_FS_FD_NAME])
{
	snprintf(name, MC_FS_FD_NAME, "%d", fd);
	return name;
}

/* Opens what a descriptor stands for, by the magic link of proc(5), which leads to it and nowhere else. */
int mc_fs_reopen(const struct mc_fs *fs, int fd, int flags)
{
	char name[MC_FS_FD_NAME];

	fd = openat(fs->proc_fds, mc_fs_fd_name(fd, name), flags | O_CLOEXEC | O_NOCTTY);
	return fd < 0 ? -errno : fd;
}

/* Opens a regular file or a directory. Anything else is the client's own to open: a device, a FIFO or a socket of the
 * host could block or act. */
int mc_fs_reopen_node(const struct mc_fs *fs, const struct mc_fs_node *node, int flags)
{
	if (node->type == S_IFLNK)
		return -ELOOP;
	if (node->type != S_IFREG && node->type != S_IFDIR)
		return -ENXIO;
	return mc_fs_reopen(fs, node->fd, flags);
}
