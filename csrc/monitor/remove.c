/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/remove.c: empties a directory. In a cgroup, whose files cannot be removed, it removes the nested cgroups.
 *
 * Theory of operation. A container that may create cgroups can nest any number of them. Therefore there is no
 * recursion, and at most two descriptors are open. A directory that cannot be removed is entered, emptied, and left by
 * "..", which leads back, since these directories are not moved (cgroup v2 has no rename). A directory that cannot be
 * removed even then is in use, and stays.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <unistd.h>

#include "monitor/cgroup.h"
#include "plan/syscalls.h"

void close_fd(int *fd)
{
	if (*fd >= 0)
		mc_sys1(SYS_close, MC_FD(*fd));
	*fd = -1;
}

int open_directory(int at, const char *name)
{
	return (int)mc_sys4(SYS_openat, MC_FD(at), MC_PTR(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

uint64_t inode_of(int fd)
{
	struct statx status = { 0 };

	mc_sys5(SYS_statx, MC_FD(fd), MC_PTR(""), AT_EMPTY_PATH, STATX_INO, MC_PTR(&status));
	return status.stx_ino;
}

long next_entries(int directory, void *entries, size_t size)
{
	return mc_sys3(SYS_getdents64, MC_FD(directory), MC_PTR(entries), size);
}

int is_subdirectory(const struct dirent64 *entry)
{
	const char *name = entry->d_name;

	return entry->d_type == DT_DIR && !(name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0)));
}

#define FIXED (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND)

static uint64_t attributes(int at, const char *name, uint64_t flags)
{
	struct statx status = { 0 };

	mc_sys5(SYS_statx, MC_FD(at), MC_PTR(name), flags, 0, MC_PTR(&status));
	return status.stx_attributes;
}

/* Whether root can remove the directory with its entries: none is immutable or append-only (chattr(1)), or a mount
 * point. */
int is_removable(int directory)
{
	_Alignas(struct dirent64) char entries[2048];
	uint64_t all = attributes(directory, "", AT_EMPTY_PATH) | (attributes(directory, "..", 0) & FIXED);
	long n;

	mc_sys3(SYS_lseek, MC_FD(directory), 0, SEEK_SET);
	while ((n = next_entries(directory, entries, sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (is_subdirectory(entry) || entry->d_type != DT_DIR)
				all |= attributes(directory, entry->d_name, AT_SYMLINK_NOFOLLOW);
			at += entry->d_reclen;
		}
	return !(all & (FIXED | STATX_ATTR_MOUNT_ROOT));
}

static long remove_entry(int directory, const struct dirent64 *entry, int files)
{
	if (is_subdirectory(entry))
		return mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), AT_REMOVEDIR);
	if (files && entry->d_type != DT_DIR)
		mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), 0);
	return 0;
}

/* Removes entries up to the first directory that cannot be removed, and opens this one; -1 if there is none. */
static int remove_pass(int directory, int files)
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
	int current = open_directory(directory, "."), next;
	uint64_t emptied = 0;

	for (long depth = 0; current >= 0;) {
		next = remove_pass(current, files);
		if (next >= 0 && emptied && emptied == inode_of(next))
			close_fd(&next); /* it was emptied before, and is in use */
		else if (next >= 0)
			depth++, emptied = 0;
		else if (depth-- > 0) {
			emptied = inode_of(current);
			next = open_directory(current, "..");
		}
		close_fd(&current);
		current = next;
	}
}
