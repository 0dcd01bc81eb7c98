/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * identity.c: one system call with other file system ids and the caller's capabilities. In an ID-mapped mount, root's
 * own ids are not mapped: creating a file fails with EOVERFLOW (mount_setattr(2)). setfsuid(2) changes the calling
 * thread alone, and its ids are restored before this returns: no Python signal handler runs in between.
 */
#include <linux/capability.h>
#include <sys/prctl.h>

#include "plan/dumpable.h"
#include "plan/native.h"
#include "plan/syscalls.h"

long mc_syscall_as(uint32_t uid, uint32_t gid, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct capabilities[2];
	int death_signal = 0;
	long r = mc_sys2(SYS_capget, MC_PTR(&header), MC_PTR(capabilities)), own_uid, own_gid;

	if (r < 0)
		return r;
	mc_dumpable_save();
	mc_sys2(SYS_prctl, PR_GET_PDEATHSIG, MC_PTR(&death_signal)); /* setfsuid(2) clears it */
	own_gid = mc_sys1(SYS_setfsgid, gid);
	own_uid = mc_sys1(SYS_setfsuid, uid);
	mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(capabilities)); /* setfsuid(2) has cleared some */
	r = mc_sys5(nr, a, b, c, d, e);
	mc_sys1(SYS_setfsuid, (uint64_t)own_uid);
	mc_sys1(SYS_setfsgid, (uint64_t)own_gid);
	mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(capabilities));
	mc_sys2(SYS_prctl, PR_SET_PDEATHSIG, (uint64_t)death_signal);
	mc_dumpable_restore();
	return r;
}
