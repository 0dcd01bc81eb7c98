/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/remove.c: empties a directory. In a cgroup, whose files cannot be removed, that is the cgroups in it.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <string.h>

#include "monitor/monitor.h"

static int is_dots(const char *name)
{
	return name[0] == '.' && (name[1] == 0 || (name[1] == '.' && name[2] == 0));
}

int open_directory(int at, const char *name)
{
	return (int)mc_sys4(SYS_openat, MC_FD(at), MC_PTR(name), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
}

static void remove_entry(int directory, const struct dirent64 *entry, int files)
{
	int fd;

	if (entry->d_type != DT_DIR) {
		if (files)
			mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), 0);
		return;
	}
	fd = open_directory(directory, entry->d_name);
	if (fd >= 0) {
		remove_entries(fd, files);
		mc_sys1(SYS_close, MC_FD(fd));
	}
	mc_sys3(SYS_unlinkat, MC_FD(directory), MC_PTR(entry->d_name), AT_REMOVEDIR);
}

void remove_entries(int directory, int files)
{
	_Alignas(struct dirent64) char entries[2048];
	long n;

	while ((n = mc_sys3(SYS_getdents64, MC_FD(directory), MC_PTR(entries), sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);

			if (!is_dots(entry->d_name))
				remove_entry(directory, entry, files);
			at += entry->d_reclen;
		}
}
