/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mountpoint.c: a path of the container, to mount on; what is missing of it is made.
 *
 * Theory of operation. mkdir(2) and mknod(2) make nothing through a link that leads nowhere, and it is what it leads to
 * that is wanted. So the path is walked name by name: a name is opened without being followed, what is missing is made,
 * and a link is read and walked in its place, as path_resolution(7) has it. All of it begins at the caller's root, which
 * is the container's by then, and ".." ends there; nor does it lead out of a mount from a directory that was moved away
 * meanwhile (path_connected() in the kernel's fs/namei.c). A link of proc(5) is refused: it leads elsewhere than it says.
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

#define LINKS 40 /* that are followed: the kernel's own number */
#define ATTEMPTS 10 /* where somebody else makes and removes the name all the time */

struct way {
	long at;             /* the directory that it has come to (O_PATH), or -errno                    */
	int links;
	size_t rest;         /* where in `path` it goes on: up to its end                              */
	char path[PATH_MAX];
};

static long open_path(long at, const char *name)
{
	return mc_sys4(SYS_openat, MC_FD(at), MC_PTR(name), O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);
}

static void go_to(struct way *way, long fd)
{
	mc_sys1(SYS_close, MC_FD(way->at));
	way->at = fd;
}

static long put_before(struct way *way, const char *path, size_t length)
{
	if (length > way->rest)
		return -ENAMETOOLONG;
	way->rest -= length;
	memcpy(way->path + way->rest, path, length);
	return 0;
}

/* The length of the next name, which goes into `name`; 0 at the end. */
static long next_name(struct way *way, char name[NAME_MAX + 1])
{
	const char *path = way->path;
	long n = 0;

	while (path[way->rest] == '/')
		way->rest++;
	while (path[way->rest] && path[way->rest] != '/') {
		if (n == NAME_MAX)
			return -ENAMETOOLONG;
		name[n++] = path[way->rest++];
	}
	name[n] = 0;
	while (path[way->rest] == '/' && (path[way->rest + 1] == '/' || !path[way->rest + 1]))
		way->rest++; /* so that the rest is empty after the last name */
	return n;
}

static long open_or_make(const struct way *way, const char *name, int is_file)
{
	long fd = open_path(way->at, name);

	for (int tries = 0; fd == -ENOENT && tries < ATTEMPTS; tries++) {
		long r = is_file ? mc_sys4(SYS_mknodat, MC_FD(way->at), MC_PTR(name), S_IFREG | 0644, 0)
				 : mc_sys3(SYS_mkdirat, MC_FD(way->at), MC_PTR(name), 0755);

		if (r < 0 && r != -EEXIST)
			return r;
		fd = open_path(way->at, name);
	}
	return fd;
}

/* 1 where `fd` is a link, with which the rest now begins; 0 where it is none (readlink(2): ENOENT, or EINVAL). */
static long follow(struct way *way, long fd)
{
	char link[PATH_MAX];
	struct statfs fs = { 0 };
	long r, n = mc_sys4(SYS_readlinkat, MC_FD(fd), MC_PTR(""), MC_PTR(link), sizeof(link));

	if (n < 0)
		return n == -ENOENT || n == -EINVAL ? 0 : n;
	r = mc_sys2(SYS_fstatfs, MC_FD(fd), MC_PTR(&fs));
	if (r == 0 && (fs.f_type == PROC_SUPER_MAGIC || ++way->links > LINKS))
		r = -ELOOP;
	if (r == 0)
		r = put_before(way, link, (size_t)n);
	if (r == 0 && link[0] == '/')
		go_to(way, open_path(AT_FDCWD, "/"));
	return r < 0 ? r : 1;
}

long mc_mount_point(const char *path, int is_file)
{
	struct way way = { .rest = PATH_MAX - 1 };
	char name[NAME_MAX + 1];
	long r = put_before(&way, path, strlen(path));

	way.at = open_path(AT_FDCWD, "/");
	while (r >= 0 && way.at >= 0 && (r = next_name(&way, name)) > 0) {
		long fd = open_or_make(&way, name, is_file && !way.path[way.rest]);

		r = fd < 0 ? fd : follow(&way, fd);
		if (r == 0)
			go_to(&way, fd);
		else if (fd >= 0)
			mc_sys1(SYS_close, MC_FD(fd));
	}
	if (r < 0 && way.at >= 0)
		mc_sys1(SYS_close, MC_FD(way.at));
	return r < 0 ? r : way.at;
}
