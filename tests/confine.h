/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * confine.h: for test programs that serve files to a hostile client: whatever goes wrong there, nothing of the host is
 * changed. In a mount namespace of its own the program can write below one directory, and open no device anywhere.
 */
#ifndef CONFINE_H
#define CONFINE_H

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

static inline void confine_change(const char *path, unsigned flags, uint64_t set, uint64_t clear)
{
	struct mount_attr attributes = { .attr_set = set, .attr_clr = clear };

	if (mount_setattr(AT_FDCWD, path, flags, &attributes, sizeof(attributes)) < 0)
		err(2, "mount_setattr %s", path);
}

static inline void confine_check(const char *path)
{
	if (access(path, W_OK) == 0 || (errno != EROFS && errno != EACCES))
		errx(2, "%s can be written to", path);
}

/* Also makes the directory the current one. What is opened before stays as it is. */
static inline void confine(const char *directory)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		err(2, "unshare");
	if (mount(directory, directory, NULL, MS_BIND, NULL) < 0)
		err(2, "mount %s", directory);
	confine_change("/", AT_RECURSIVE, MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOSUID, 0);
	confine_change(directory, 0, 0, MOUNT_ATTR_RDONLY);
	if (chdir(directory) < 0)
		err(2, "%s", directory);
	confine_check("/");
	confine_check("/etc");
	confine_check("/tmp");
	confine_check("..");
}

static inline void confine_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || dprintf(fd, "%s", text) < 0 || close(fd) < 0)
		err(2, "%s", path);
}

/* Root of a user namespace that has no other id. */
static inline void confine_user(void)
{
	char uids[32], gids[32];

	snprintf(uids, sizeof(uids), "0 %u 1", geteuid());
	snprintf(gids, sizeof(gids), "0 %u 1", getegid());
	if (unshare(CLONE_NEWUSER) < 0)
		err(2, "unshare");
	confine_write("/proc/self/setgroups", "deny");
	confine_write("/proc/self/uid_map", uids);
	confine_write("/proc/self/gid_map", gids);
}

#endif
