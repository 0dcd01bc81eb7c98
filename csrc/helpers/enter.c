/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * enter.c: walks the plan of `exec`, which joins a running container, in place of the caller, which must not join it.
 *
 * Theory of operation. A child that shares the caller's memory would expose this memory to the container, and at the
 * container's memory limit the OOM killer would kill the caller with the cgroup (memory.oom.group). This program has
 * no such memory: it is executed from a sealed memfd, is not dumpable, joins the namespaces, and clones a sibling
 * (MC_FORK) into the container's cgroup. The sibling executes the program.
 */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/prctl.h>

#include "helpers/start.h"
#include "monitor/map.h"
#include "plan/dumpable.h"
#include "plan/walk.h"

MC_START(enter_main);

void mc_dumpable_save(void)
{
}

void mc_dumpable_restore(void)
{
}

__attribute__((noreturn, used)) static void enter_main(long *stack)
{
	const uint64_t all = ~0ull;
	struct mc_enter *shared;

	(void)stack;
	mc_sys2(SYS_prctl, PR_SET_DUMPABLE, 0);
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), 0, 8);
	shared = mc_shared_map(MC_ENTER_MAGIC);
	if (shared) {
		mc_run_init(&shared->run, shared, &shared->child);
		mc_run_reset(&shared->run, shared, &shared->child);
		mc_plan_walk_and_fork(&shared->run);
	}
	for (;;)
		mc_sys1(SYS_exit_group, shared ? 0 : 125);
}
