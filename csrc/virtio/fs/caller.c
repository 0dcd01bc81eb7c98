/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * caller.c: the identity of the thread that answers a request: what it needs in general, and what it borrows of the
 * client's process for a single call.
 *
 * New files belong to the fsuid and fsgid of who makes them (path_resolution(7), credentials(7)). setfsuid(2) of
 * another user clears the capabilities over files; they are set again, since the client's kernel has decided already
 * whether its process may (FUSE's default_permissions). All of this is of the thread alone: raw system calls, and
 * setfsuid(2), which glibc does not broadcast.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "plan/dumpable.h"
#include "virtio/fs/server.h"

#define NO_ID ((uid_t)-1) /* setfsuid(2) returns the current one, and changes nothing */

static __thread int is_prepared;

/* The working directory is /proc/self/fd, since getxattr(2) and its like know no other directory; the umask is set for
 * each new file. SIGXFSZ is blocked: a client that writes beyond RLIMIT_FSIZE gets EFBIG, and ends nothing. */
int mc_fs_prepare_thread(const struct mc_fs *fs)
{
	sigset_t signals;

	if (is_prepared)
		return 0;
	sigemptyset(&signals);
	sigaddset(&signals, SIGXFSZ);
	if (pthread_sigmask(SIG_BLOCK, &signals, NULL))
		return -EINVAL;
	if (unshare(CLONE_FS) < 0 || fchdir(fs->proc_fds) < 0)
		return -errno;
	is_prepared = 1;
	return 0;
}

static int capabilities(long call, const struct mc_fs_identity *identity)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };

	return syscall(call, &header, identity->capabilities) < 0 ? -errno : 0;
}

/* ---- the client's ids */

static int has_ids(uint32_t uid, uint32_t gid)
{
	return (uint32_t)setfsuid(NO_ID) == uid && (uint32_t)setfsgid(NO_ID) == gid;
}

/* Sets the ids of the thread; back to its own ones this cannot fail, and must not. */
void mc_fs_act_as_before(const struct mc_fs_identity *before)
{
	if (!before->changed)
		return;
	setfsgid(before->gid);
	setfsuid(before->uid);
	if (!has_ids(before->uid, before->gid) || capabilities(SYS_capset, before) < 0)
		abort();
	if (before->death_signal && prctl(PR_SET_PDEATHSIG, before->death_signal) < 0) /* a change of ids clears it */
		abort();
	mc_dumpable_restore();
}

/* 0, or -EPERM: the server has no right to these ids, or its user namespace does not have them. */
int mc_fs_act_as(struct mc_fs_identity *before, uint32_t uid, uint32_t gid)
{
	int r;

	before->uid = (uint32_t)setfsuid(NO_ID);
	before->gid = (uint32_t)setfsgid(NO_ID);
	before->changed = before->uid != uid || before->gid != gid;
	if (!before->changed)
		return 0;
	r = capabilities(SYS_capget, before);
	if (r == 0 && prctl(PR_GET_PDEATHSIG, &before->death_signal) < 0)
		r = -errno;
	if (r < 0) {
		before->changed = 0;
		return r;
	}
	mc_dumpable_save();
	setfsgid(gid);
	setfsuid(uid);
	r = has_ids(uid, gid) ? capabilities(SYS_capset, before) : -EPERM;
	if (r < 0)
		mc_fs_act_as_before(before);
	return r;
}

/* ---- without CAP_FSETID the kernel clears set-user-id and set-group-id bits of a file that is written */

int mc_fs_drop_fsetid(struct mc_fs_identity *before)
{
	struct mc_fs_identity without;
	int r = capabilities(SYS_capget, before);

	before->changed = r == 0 && before->capabilities[CAP_TO_INDEX(CAP_FSETID)].effective & CAP_TO_MASK(CAP_FSETID);
	if (!before->changed)
		return r;
	without = *before;
	without.capabilities[CAP_TO_INDEX(CAP_FSETID)].effective &= ~CAP_TO_MASK(CAP_FSETID);
	return capabilities(SYS_capset, &without);
}

void mc_fs_restore_fsetid(const struct mc_fs_identity *before)
{
	if (before->changed && capabilities(SYS_capset, before) < 0)
		abort();
}
