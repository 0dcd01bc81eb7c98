/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mountpoint.c: opens a mount point in the container's root; missing components are created.
 *
 * Theory of operation. mkdir(2) and mknod(2) do not follow a dangling symbolic link, but a mount point behind one has
 * to be created at the link's target. So the path is resolved component by component, as path_resolution(7)
 * describes: each is opened with O_NOFOLLOW, or created; the target of a symbolic link is resolved in its place.
 * Resolution starts at the caller's root, which is the container's by then, and ".." does not leave it, nor a mount
 * from a directory that was moved away meanwhile (path_connected() in the kernel's fs/namei.c). Magic links of
 * proc(5) are refused (ELOOP).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/magic.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "plan/syscalls.h"
#include "plan/walk.h"

#define MAX_SYMLINKS 40 /* symbolic links that are followed: the kernel's limit, MAXSYMLINKS */
#define MAKE_TRIES 10 /* while another process creates and removes the same name */

struct lookup {
	long at;             /* the current directory (O_PATH), or -errno                               */
	int links;
	size_t rest;         /* offset in `path` of the components that are left                      */
	char path[PATH_MAX];
};

static long open_path(long at, const char *name)
{
	return mc_sys4(SYS_openat, MC_FD(at), MC_PTR(name), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

static void set_directory(struct lookup *lookup, long fd)
{
	mc_sys1(SYS_close, MC_FD(lookup->at));
	lookup->at = fd;
}

static long prepend(struct lookup *lookup, const char *path, size_t length)
{
	if (length > lookup->rest)
		return -ENAMETOOLONG;
	lookup->rest -= length;
	memcpy(lookup->path + lookup->rest, path, length);
	return 0;
}

/* Copies the next component to `name`; returns its length, 0 at the end. */
static long next_name(struct lookup *lookup, char name[NAME_MAX + 1])
{
	const char *path = lookup->path;
	long n = 0;

	while (path[lookup->rest] == '/')
		lookup->rest++;
	while (path[lookup->rest] && path[lookup->rest] != '/') {
		if (n == NAME_MAX)
			return -ENAMETOOLONG;
		name[n++] = path[lookup->rest++];
	}
	name[n] = 0;
	while (path[lookup->rest] == '/' && (path[lookup->rest + 1] == '/' || !path[lookup->rest + 1]))
		lookup->rest++; /* the rest is empty after the last component */
	return n;
}

static long open_or_make(const struct lookup *lookup, const char *name, int is_file)
{
	long fd = open_path(lookup->at, name);

	for (int tries = 0; fd == -ENOENT && tries < MAKE_TRIES; tries++) {
		long r = is_file ? mc_sys4(SYS_mknodat, MC_FD(lookup->at), MC_PTR(name), S_IFREG | 0644, 0)
				 : mc_sys3(SYS_mkdirat, MC_FD(lookup->at), MC_PTR(name), 0755);

		if (r < 0 && r != -EEXIST)
			return r;
		fd = open_path(lookup->at, name);
	}
	return fd;
}

/* 1: `fd` is a symbolic link, and its target is now part of the rest; 0: no link (readlinkat(2): ENOENT, EINVAL). */
static long follow(struct lookup *lookup, long fd)
{
	char link[PATH_MAX];
	struct statfs fs = { 0 };
	long r, n = mc_sys4(SYS_readlinkat, MC_FD(fd), MC_PTR(""), MC_PTR(link), sizeof(link));

	if (n < 0)
		return n == -ENOENT || n == -EINVAL ? 0 : n;
	r = mc_sys2(SYS_fstatfs, MC_FD(fd), MC_PTR(&fs));
	if (r == 0 && (fs.f_type == PROC_SUPER_MAGIC || ++lookup->links > MAX_SYMLINKS))
		r = -ELOOP;
	if (r == 0)
		r = prepend(lookup, link, (size_t)n);
	if (r == 0 && link[0] == '/')
		set_directory(lookup, open_path(AT_FDCWD, "/"));
	return r < 0 ? r : 1;
}

long mc_mount_point(const char *path, int is_file)
{
	struct lookup lookup = { .rest = PATH_MAX - 1 };
	char name[NAME_MAX + 1];
	long r = prepend(&lookup, path, strlen(path));

	lookup.at = open_path(AT_FDCWD, "/");
	while (r >= 0 && lookup.at >= 0 && (r = next_name(&lookup, name)) > 0) {
		long fd = open_or_make(&lookup, name, is_file && !lookup.path[lookup.rest]);

		r = fd < 0 ? fd : follow(&lookup, fd);
		if (r == 0)
			set_directory(&lookup, fd);
		else if (fd >= 0)
			mc_sys1(SYS_close, MC_FD(fd));
	}
	if (r < 0 && lookup.at >= 0)
		mc_sys1(SYS_close, MC_FD(lookup.at));
	return r < 0 ? r : lookup.at;
}
