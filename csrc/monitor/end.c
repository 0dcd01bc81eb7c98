/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/end.c: releases the resources of a container when none of its processes is left.
 */
#define _GNU_SOURCE
#include <fcntl.h>

#include "monitor/monitor.h"
#include "monitor/map.h"
#include "plan/walk.h"

/* The file of a name contains "PID ID" (container/registry/names.py). */
static int owns_name(const struct mc_monitor *shared)
{
	char content[128];
	long n = mc_read_at(shared->names, shared->name, content, sizeof(content)), at = 0;

	while (at < n && content[at] != ' ')
		at++;
	if (n - at < 65)
		return 0;
	for (int i = 0; i < 64; i++)
		if (content[at + 1 + i] != shared->id[i])
			return 0;
	return 1;
}

/* A state directory that cannot be removed as a whole keeps all its files, and `rm` reports the obstacle. */
void end_remove(const struct mc_monitor *shared)
{
	long parent;

	if (!is_removable(shared->directory))
		return;
	parent = mc_sys4(SYS_openat, MC_FD(shared->directory), MC_PTR(".."), O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
	event_write(shared, "destroy", NULL, 0);
	remove_entries(shared->directory, 1);
	failpoint("emptied");
	if (owns_name(shared)) /* no other container can take the name while the state directory exists */
		mc_sys3(SYS_unlinkat, MC_FD(shared->names), MC_PTR(shared->name), 0);
	failpoint("name released");
	mc_sys3(SYS_unlinkat, parent, MC_PTR(shared->id), AT_REMOVEDIR);
}

/* Releases the network lease (address, names, ports). The walk continues after a step that fails. */
static void release_lease(const struct mc_monitor *shared)
{
	struct mc_run run = { 0 };
	uint32_t first = 0;

	if (!shared->release.plan)
		return;
	mc_run_init(&run, (void *)shared, &shared->release);
	mc_run_reset(&run, (void *)shared, &shared->release);
	while (mc_plan_walk_from(&run, first) < 0)
		first = (uint32_t)run.failed + 1;
	mc_sys3(SYS_unlinkat, MC_FD(shared->directory), MC_PTR("lease"), 0);
}

void end_release(const struct mc_monitor *shared)
{
	const char none = 0;

	cgroup_remove(shared->cgroup, shared->cgroup_parent, (const char *)shared + shared->cgroup_name);
	failpoint("cgroup removed");
	if (shared->ids_byte != MC_NO_BYTE)
		mc_sys4(SYS_pwrite64, MC_FD(shared->ids), MC_PTR(&none), 1, shared->ids_byte);
	failpoint("ids released");
	release_lease(shared);
	failpoint("network left");
	mc_sys3(SYS_unlinkat, MC_FD(shared->directory), MC_PTR("control"), 0);
	mc_sys3(SYS_unlinkat, MC_FD(shared->directory), MC_PTR("cgroup"), 0);
}
