/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/end.c: what is given back at the end of a container, when nothing of it runs any more.
 */
#define _GNU_SOURCE
#include <fcntl.h>

#include "monitor/monitor.h"
#include "monitor/told.h"
#include "plan/walk.h"

/* The file of a name says "PID ID" (container/registry/names.py). */
static int has_name(const struct mc_monitor *told)
{
	char said[128];
	long n = mc_read_at(told->names, told->name, said, sizeof(said)), at = 0;

	while (at < n && said[at] != ' ')
		at++;
	if (n - at < 65)
		return 0;
	for (int i = 0; i < 64; i++)
		if (said[at + 1 + i] != told->id[i])
			return 0;
	return 1;
}

void end_remove(const struct mc_monitor *told)
{
	long parent = mc_sys4(SYS_openat, MC_FD(told->directory), MC_PTR(".."), O_PATH | O_DIRECTORY | O_CLOEXEC, 0);

	event_write(told, "destroy", NULL, 0);
	remove_entries(told->directory, 1);
	failpoint("emptied");
	if (has_name(told)) /* while the directory is there nobody else can take it */
		mc_sys3(SYS_unlinkat, MC_FD(told->names), MC_PTR(told->name), 0);
	failpoint("name given back");
	mc_sys3(SYS_unlinkat, parent, MC_PTR(told->id), AT_REMOVEDIR);
}

/* What somebody outside lent (an address, names, ports), each step whatever became of the others. */
static void give_back(const struct mc_monitor *told)
{
	struct mc_run run = { 0 };
	uint32_t first = 0;

	if (!told->ending.plan)
		return;
	mc_point(&run, (void *)told, &told->ending);
	mc_begin_anew(&run, (void *)told, &told->ending);
	while (mc_plan_walk_from(&run, first) < 0)
		first = (uint32_t)run.failed + 1;
	mc_sys3(SYS_unlinkat, MC_FD(told->directory), MC_PTR("lease"), 0);
}

void end_give_back(const struct mc_monitor *told)
{
	const char none = 0;

	cgroup_remove(told);
	failpoint("cgroup removed");
	if (told->ids_byte != MC_NO_BYTE)
		mc_sys4(SYS_pwrite64, MC_FD(told->ids), MC_PTR(&none), 1, told->ids_byte);
	failpoint("ids given back");
	give_back(told);
	failpoint("network left");
	mc_sys3(SYS_unlinkat, MC_FD(told->directory), MC_PTR("control"), 0);
	mc_sys3(SYS_unlinkat, MC_FD(told->directory), MC_PTR("cgroup"), 0);
}
