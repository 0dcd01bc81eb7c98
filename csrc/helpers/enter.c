/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * enter.c: walks a plan that leads into a container that runs (`exec`), for a process that must not go there itself.
 *
 * Theory of operation. A child that shares its maker's memory would show that memory to whom it joins, and where the
 * container is at its limit of memory, the OOM killer would take the maker with all others of the cgroup
 * (memory.oom.group). This program has nothing to show or to lose: it is sealed (its maker executes a memfd), cannot
 * be traced, joins the namespaces, and makes the sibling (MC_FORK) that is born in the cgroup and becomes the program.
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
