/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * dumpable.c: saves and restores the caller's dumpable attribute around spawns; see dumpable.h.
 */
#include <pthread.h>
#include <sys/prctl.h>

#include "plan/dumpable.h"
#include "plan/syscalls.h"

static pthread_mutex_t dumpable_lock = PTHREAD_MUTEX_INITIALIZER;
static int dumpable_depth, dumpable_before;

void mc_dumpable_save(void)
{
	pthread_mutex_lock(&dumpable_lock);
	if (dumpable_depth++ == 0)
		dumpable_before = (int)mc_sys1(SYS_prctl, PR_GET_DUMPABLE);
	pthread_mutex_unlock(&dumpable_lock);
}

void mc_dumpable_restore(void)
{
	pthread_mutex_lock(&dumpable_lock);
	if (--dumpable_depth == 0 && mc_sys1(SYS_prctl, PR_GET_DUMPABLE) != dumpable_before)
		mc_sys2(SYS_prctl, PR_SET_DUMPABLE, dumpable_before);
	pthread_mutex_unlock(&dumpable_lock);
}

/* A process that another thread forks during a spawn has a copy of these variables, but no spawn in progress. */

static void before_fork(void)
{
	pthread_mutex_lock(&dumpable_lock);
}

static void after_fork(void)
{
	pthread_mutex_unlock(&dumpable_lock);
}

static void after_fork_in_child(void)
{
	if (dumpable_depth > 0)
		mc_sys2(SYS_prctl, PR_SET_DUMPABLE, dumpable_before);
	dumpable_depth = 0;
	pthread_mutex_unlock(&dumpable_lock);
}

__attribute__((constructor)) static void watch_forks(void)
{
	pthread_atfork(before_fork, after_fork, after_fork_in_child);
}
