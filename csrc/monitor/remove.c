/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/remove.c: empties a directory. In a cgroup, whose files cannot be removed, that is the cgroups in it.
 *
 * Theory of operation. A container that may make cgroups can nest any number of them, so there is no recursion, and two
 * descriptors are open at most: what cannot be removed is entered, and left by "..", which leads back since nobody moves
 * what is removed here (cgroup-v2 has no rename). What is still not empty then is somebody's, and all stays as it is.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <unistd.h>

#include "monitor.h"

int open_directory(int at, const char *name)
{
	return (int)mc_sys4(SYS_openat, MC_FD(at), MC_PTR(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

uint64_t inode_of(int fd)
{
	struct statx found = { 0 };

	mc_sys5(SYS_statx, MC_FD(fd), MC_PTR(""), AT_EMPTY_PATH, STATX_INO, MC_PTR(&found));
	return found.stx_ino;
}

long next_entries(int directory, void *entries, size_t size)
{
	return mc_sys3(SYS_getdents64, MC_FD(directory), MC_PTR(entries), size);
}

int is_below(const struct dirent64 *entry)
{
	const char *name = entry->d_name;

	return entry->d_type == DT_DIR && !(name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0)));
}

static long remove_entry(int directory, const struct dirent64 *entry, int files)
{
	if (is_below(entry))
		return mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), AT_REMOVEDIR);
	if (files && entry->d_type != DT_DIR)
		mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), 0);
	return 0;
}

/* Removes what can be; a descriptor of the first directory that cannot, -1 where there is none. */
static int remove_to(int directory, int files)
{
	_Alignas(struct dirent64) char entries[2048];
	long n;

	mc_sys3(SYS_lseek, MC_FD(directory), 0, SEEK_SET);
	while ((n = next_entries(directory, entries, sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (remove_entry(directory, entry, files) < 0)
				return open_directory(directory, entry->d_name);
			at += entry->d_reclen;
		}
	return -1;
}

void remove_entries(int directory, int files)
{
	int here = open_directory(directory, "."), there;
	uint64_t left = 0;

	for (long depth = 0; here >= 0;) {
		there = remove_to(here, files);
		if (there >= 0 && left && left == inode_of(there))
			close_fd(&there); /* we have been there, and it is not empty */
		else if (there >= 0)
			depth++, left = 0;
		else if (depth-- > 0) {
			left = inode_of(here);
			there = open_directory(here, "..");
		}
		close_fd(&here);
		here = there;
	}
}
