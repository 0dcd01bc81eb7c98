/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/resources.c: what a run takes from the host, in the order of the library (container/start.py): an id with
 * its ownership lock, a cgroup, a range of ids. If this process is killed, the kernel frees the locks, and the next
 * clean-up removes the cgroup, whose owner is gone.
 */
#include <signal.h>

#include "compiled/state.h"
#include "monitor/cgroup.h"

int resources_take(struct runner *r)
{
	char mark[12];

	return state_mark(r->c, mark) || group_make(r, mark) ? FAILED : ids_take(r);
}

void resources_kill(struct runner *r)
{
	if (r->place.cgroup >= 0)
		cgroup_kill(r->place.cgroup, 0);
}

/* With processes left in the cgroup, their ids stay reserved until a clean-up. */
int resources_release(struct runner *r)
{
	if (group_remove(r))
		return FAILED;
	ids_release(r);
	return 0;
}

int resources_finish(struct runner *r)
{
	const int has_cgroup = r->place.cgroup >= 0;
	const int e = mc_finish(r->spawn, has_cgroup ? &r->place : NULL, 0, &r->usage);
	const int failed = e < 0 ? complain_errno("waitid", NULL, e, NULL) : 0;

	r->spawn->reaped = 1;
	note_record(r, "wait", "waitid", &r->usage.records[MC_WAITED]);
	if (r->place.cgroup < 0 && has_cgroup)
		note_record(r, "remove", "rmdir", &r->usage.records[MC_REMOVED]);
	r->status = r->guest ? ended_status(r) : r->spawn->status;
	r->is_oom = !failed && (r->status == -SIGKILL || r->status == 128 + SIGKILL) &&
		    (ended_out_of_memory(r) || cgroup_oom_kills(r->place.cgroup) > 0);
	return resources_release(r) || failed ? FAILED : 0;
}
