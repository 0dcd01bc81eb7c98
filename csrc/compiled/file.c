/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/file.c: opens the file that is executed, by /proc/self/exe, so that no path can lead to another one. It is
 * refused if another user could have changed it: its contents run with the caller's rights.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/stat.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "compiled/compiled.h"

#define WRITABLE_BY_OTHERS 022 /* an access control list (acl(5)) that permits it shows in the group's bits */

static int is_trusted(const char *name, int fd, uint64_t *size)
{
	const uint32_t uid = (uint32_t)mc_sys0(SYS_geteuid);
	struct statx file;
	long r = mc_sys5(SYS_statx, MC_FD(fd), MC_PTR(""), AT_EMPTY_PATH, STATX_BASIC_STATS, MC_PTR(&file));

	if (r < 0)
		return complain_errno("file", name, r, NULL), 0;
	if (file.stx_uid != 0 && file.stx_uid != uid)
		return complain("file", name, "belongs to another user, who could have changed it", "chown"), 0;
	if (file.stx_mode & WRITABLE_BY_OTHERS)
		return complain("file", name, "others than its owner can write to it", "chmod go-w"), 0;
	*size = file.stx_size;
	return 1;
}

const struct mc_compiled *file_open(const char *name)
{
	long fd = mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/proc/self/exe"), O_RDONLY | O_CLOEXEC, 0), map;
	const struct mc_compiled *c = NULL;
	uint64_t size;

	if (fd < 0) {
		complain_errno("file", name, fd, fd == -ENOENT ? "it needs /proc" : "it has to be readable");
		return NULL;
	}
	if (is_trusted(name, (int)fd, &size)) {
		map = mc_sys(SYS_mmap, 0, size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, MC_FD(fd), 0);
		if (NO_MEMORY(map))
			complain_errno("file", name, map, NULL);
		else if (!(c = payload_find((const void *)map, size)) || payload_check(c) < 0)
			c = (stale("file", name, "is damaged"), NULL);
	}
	mc_sys1(SYS_close, (uint64_t)fd);
	return c;
}
