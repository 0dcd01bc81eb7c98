/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * identity.c: one system call with the file system ids of somebody else, and the rights of the caller. A file made by a
 * host's root in a file system that shows a container's ids would have an owner who is nobody there: EOVERFLOW
 * (user_namespaces(7), mount_setattr(2)). The ids are the calling thread's alone, and it has its own again when this
 * returns: no handler of Python's runs in between.
 */
#include <linux/capability.h>
#include <sys/prctl.h>

#include "plan/dumpable.h"
#include "plan/native.h"
#include "plan/syscalls.h"

long mc_syscall_as(uint32_t uid, uint32_t gid, long nr, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct rights[2];
	int dies_with = 0;
	long r = mc_sys2(SYS_capget, MC_PTR(&header), MC_PTR(rights)), own_uid, own_gid;

	if (r < 0)
		return r;
	mc_dumpable_save();
	mc_sys2(SYS_prctl, PR_GET_PDEATHSIG, MC_PTR(&dies_with)); /* a change of ids forgets it */
	own_gid = mc_sys1(SYS_setfsgid, gid);
	own_uid = mc_sys1(SYS_setfsuid, uid);
	mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(rights)); /* setfsuid(2) took those over files */
	r = mc_sys5(nr, a, b, c, d, e);
	mc_sys1(SYS_setfsuid, (uint64_t)own_uid);
	mc_sys1(SYS_setfsgid, (uint64_t)own_gid);
	mc_sys2(SYS_capset, MC_PTR(&header), MC_PTR(rights));
	mc_sys2(SYS_prctl, PR_SET_PDEATHSIG, (uint64_t)dies_with);
	mc_dumpable_restore();
	return r;
}
