/* SPDX-License-Identifier: GPL-3.0-or-later
 * caller.c: the facts about the caller and the root directory that a compiled plan depends on. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/stat.h>

#include "plan/syscalls.h"
#include "start/start.h"

static void set_error(struct mc_caller *out, long result)
{
	if (result < 0 && !out->error)
		out->error = (int32_t)result;
}

static struct statx status_of(const char *path, struct mc_caller *out)
{
	struct statx status = { 0 };

	set_error(out, mc_sys5(SYS_statx, MC_FD(AT_FDCWD), MC_PTR(path), 0,
			       STATX_INO | STATX_MODE | STATX_UID | STATX_GID, MC_PTR(&status)));
	return status;
}

static void identify(uint64_t to[2], const struct statx *status)
{
	to[0] = (uint64_t)status->stx_dev_major << 32 | status->stx_dev_minor;
	to[1] = status->stx_ino;
}

/* Whether /proc/self names this process: that of another pid namespace names another one, or none. */
static int is_own_proc(void)
{
	char link[16];
	long n = mc_sys4(SYS_readlinkat, MC_FD(AT_FDCWD), MC_PTR("/proc/self"), MC_PTR(link), sizeof(link));
	long pid = 0;

	for (long i = 0; i < n; i++)
		pid = pid * 10 + link[i] - '0';
	return n > 0 && pid == mc_sys1(SYS_getpid, 0);
}

void mc_caller(const char *rootfs, struct mc_caller *out)
{
	struct statx root, directory, userns;

	*out = (struct mc_caller){ 0 };
	root = status_of("/", out);
	directory = status_of(rootfs, out);
	userns = status_of("/proc/self/ns/user", out);
	identify(out->root, &root);
	identify(out->rootfs, &directory);
	out->userns = userns.stx_ino;
	out->mode = directory.stx_mode;
	out->owner[0] = directory.stx_uid;
	out->owner[1] = directory.stx_gid;
	out->ids[0] = (uint32_t)mc_sys1(SYS_geteuid, 0);
	out->ids[1] = (uint32_t)mc_sys1(SYS_getegid, 0);
	out->foreign = !is_own_proc();
}

int mc_is_caller(const char *rootfs, const struct mc_caller *known)
{
	struct mc_caller now;
	const unsigned char *a = (const void *)&now, *b = (const void *)known;

	mc_caller(rootfs, &now);
	for (size_t i = 0; i < sizeof(now); i++)
		if (a[i] != b[i])
			return 0;
	return !now.error && !now.foreign;
}
