/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * fs.h: a FUSE server over a directory: the file system behind a virtio file system device (virtio 1.3, 5.11).
 *
 * Theory of operation. A request is answered by mc_fs_handle, in any thread and several at once. The client is not
 * trusted: it reaches what is below the root, through mounts below it too, and nothing else. The client decides about
 * permissions (FUSE's default_permissions, as Linux mounts virtiofs); the server has the rights and limits of its own
 * process: read-only mounts, quotas, user namespace. Ids are not translated.
 */
#ifndef MC_FS_H
#define MC_FS_H

#include <stddef.h>
#include <sys/uio.h>

#define MC_FS_MAX_WRITE (1u << 20) /* bytes of one READ or WRITE, as negotiated with the client */
#define MC_FS_MAX_PAGES (MC_FS_MAX_WRITE / 4096)

struct mc_fs;

/* A server of the directory `root`; `proc_fds` is /proc/self/fd of any mount of proc. Both are descriptors that the
 * caller keeps. `flags` must be 0. NULL with errno: EINVAL also if `proc_fds` is something else.
 *
 * Each inode that the client knows and each file that it has open is a descriptor, up to RLIMIT_NOFILE as it is now:
 * the caller raises it. */
struct mc_fs *mc_fs_new(int root, int proc_fds, unsigned flags);

/* `event`: an eventfd, which stays the caller's. It is written when descriptors become scarce: the client, which keeps
 * inodes in its cache, had better forget those that it does not use. Until then a lookup waits for a while, and is
 * EMFILE then. */
void mc_fs_tell_scarce(struct mc_fs *fs, int event);

/* No request may be in progress. */
void mc_fs_free(struct mc_fs *fs);

/* Answers one request. `in` is the request, `out` the room for its reply; both may lie in memory that others change
 * meanwhile. Returns the size of the reply; 0: there is none, by the protocol or because the header does not fit.
 *
 * The calling thread must be made for this: it gets a working directory and a umask of its own (unshare(CLONE_FS)),
 * and SIGXFSZ is blocked. While the request lasts it may have the client's fsuid(7) and fewer capabilities. Signals
 * whose handlers return should be blocked, since the client sees EINTR otherwise. */
size_t mc_fs_handle(struct mc_fs *fs, const struct iovec *in, unsigned nin, const struct iovec *out, unsigned nout);

#endif
