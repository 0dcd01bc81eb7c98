/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * session.c: the server, and what concerns all of it: FUSE_INIT, FUSE_DESTROY, FUSE_STATFS, FUSE_SYNCFS.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "virtio/fs/server.h"

#define LEAST_MINOR 31 /* Linux 5.4, the first with virtiofs; with all structures of today but for what is negotiated */
#define BACKGROUND 64  /* requests that the client may have under way without a process that waits, and when it ... */
#define CONGESTED 48   /* ... sends less */
#define OTHERS 40      /* descriptors that the caller may open after this server is made */

/* What we can, of the flags of <linux/fuse.h>. Not among them, and why:
 * WRITEBACK_CACHE: host and client could not change a file by turns. POSIX_LOCKS, FLOCK_LOCKS: locks are the client's
 * own. EXPORT_SUPPORT: ".." would have to be looked up. HANDLE_KILLPRIV: does not say who has CAP_FSETID.
 * CACHE_SYMLINKS is sound, since the target of an inode never changes. */
#define FEATURES                                                                                                       \
	(FUSE_ASYNC_READ | FUSE_ATOMIC_O_TRUNC | FUSE_BIG_WRITES | FUSE_DONT_MASK | FUSE_AUTO_INVAL_DATA |             \
	 FUSE_DO_READDIRPLUS | FUSE_READDIRPLUS_AUTO | FUSE_ASYNC_DIO | FUSE_PARALLEL_DIROPS | FUSE_POSIX_ACL |        \
	 FUSE_MAX_PAGES | FUSE_CACHE_SYMLINKS | FUSE_SUBMOUNTS | FUSE_HANDLE_KILLPRIV_V2 | FUSE_SETXATTR_EXT)

/* ---- the server */

/* How many descriptors are for the client, if numbers below `used` are in use. */
static size_t left_of(size_t limit, size_t used)
{
	const size_t others = used + OTHERS;

	return limit > 2 * others ? limit - others : limit / 2;
}

static int start(struct mc_fs *fs, int root, int proc_fds)
{
	struct statx given, found;
	struct rlimit limit;
	int fd, r;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		return -errno;
	fs->proc_fds = fcntl(proc_fds, F_DUPFD_CLOEXEC, 0);
	if (fs->proc_fds < 0)
		return -errno;
	fs->descriptors = left_of(limit.rlim_cur, (size_t)fs->proc_fds);
	fd = mc_fs_reopen(fs, root, O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fd == -ENOENT ? -EINVAL : fd;
	r = mc_fs_stat(root, &given);
	if (r == 0)
		r = mc_fs_stat(fd, &found);
	if (r == 0 && (given.stx_ino != found.stx_ino || given.stx_dev_minor != found.stx_dev_minor))
		r = -EINVAL; /* the directory is not /proc/self/fd */
	if (r < 0) {
		close(fd);
		return r;
	}
	return mc_fs_node_of_root(fs, fd);
}

struct mc_fs *mc_fs_new(int root, int proc_fds, unsigned flags)
{
	struct mc_fs *fs = flags ? NULL : calloc(1, sizeof(*fs));
	int r = fs ? 0 : flags ? -EINVAL : -ENOMEM;

	if (fs) {
		fs->proc_fds = fs->scarce = -1;
		pthread_mutex_init(&fs->lock, NULL);
		pthread_cond_init(&fs->forgotten, NULL);
		r = start(fs, root, proc_fds);
	}
	if (r < 0 && fs)
		mc_fs_free(fs);
	if (r < 0)
		errno = -r;
	return r < 0 ? NULL : fs;
}

void mc_fs_tell_scarce(struct mc_fs *fs, int event)
{
	pthread_mutex_lock(&fs->lock);
	fs->scarce = event;
	pthread_mutex_unlock(&fs->lock);
}

static void reset(struct mc_fs *fs)
{
	mc_fs_files_reset(fs);
	mc_fs_nodes_reset(fs);
}

void mc_fs_free(struct mc_fs *fs)
{
	reset(fs);
	if (fs->root)
		mc_fs_node_unpin(fs, fs->root);
	if (fs->proc_fds >= 0)
		close(fs->proc_fds);
	mc_fs_table_free(&fs->nodes);
	mc_fs_table_free(&fs->inodes);
	mc_fs_table_free(&fs->files);
	pthread_cond_destroy(&fs->forgotten);
	pthread_mutex_destroy(&fs->lock);
	free(fs);
}

/* ---- FUSE_INIT, FUSE_DESTROY */

/* A client may begin anew without an end: it has been restarted. */
int mc_fs_op_init(struct mc_fs_call *call)
{
	const struct fuse_init_in *in = &call->arguments.init;
	const uint32_t flags = in->flags & FEATURES;
	struct fuse_init_out *out = &call->result.init;

	if (in->major < FUSE_KERNEL_VERSION || (in->major == FUSE_KERNEL_VERSION && in->minor < LEAST_MINOR))
		return -EPROTO;
	out->major = FUSE_KERNEL_VERSION;
	out->minor = FUSE_KERNEL_MINOR_VERSION;
	if (in->major > FUSE_KERNEL_VERSION)
		return 0; /* the client begins again with our version */
	reset(call->fs);
	__atomic_store_n(&call->fs->setxattr_ext, flags & FUSE_SETXATTR_EXT, __ATOMIC_RELAXED);
	__atomic_store_n(&call->fs->ready, 1, __ATOMIC_RELEASE);
	out->flags = flags;
	out->max_readahead = in->max_readahead;
	out->max_background = BACKGROUND;
	out->congestion_threshold = CONGESTED;
	out->max_write = MC_FS_MAX_WRITE;
	out->max_pages = MC_FS_MAX_PAGES;
	out->time_gran = 1;
	return 0;
}

int mc_fs_op_destroy(struct mc_fs_call *call)
{
	__atomic_store_n(&call->fs->ready, 0, __ATOMIC_RELEASE);
	reset(call->fs);
	return 0;
}

/* ---- the file system of a node */

int mc_fs_op_statfs(struct mc_fs_call *call)
{
	struct fuse_kstatfs *out = &call->result.statfs.st;
	struct statfs found;

	if (fstatfs(call->node->fd, &found) < 0)
		return -errno;
	out->blocks = found.f_blocks;
	out->bfree = found.f_bfree;
	out->bavail = found.f_bavail;
	out->files = found.f_files;
	out->ffree = found.f_ffree;
	out->bsize = (uint32_t)found.f_bsize;
	out->namelen = (uint32_t)found.f_namelen;
	out->frsize = (uint32_t)found.f_frsize;
	return 0;
}

/* syncfs(2) wants more than an O_PATH descriptor. */
int mc_fs_op_syncfs(struct mc_fs_call *call)
{
	int r, fd = mc_fs_reopen_node(call->fs, call->node, O_RDONLY);

	if (fd < 0)
		return fd;
	r = syncfs(fd) < 0 ? -errno : 0;
	close(fd);
	return r;
}
