/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/cgroup.c: the container's cgroup, where it has one (cgroup-v2.rst).
 */
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "monitor.h"

#define LONGEST 10000 /* ms that processes may take to be gone, after SIGKILL */

/* The number that follows `key` in a file of "key number" lines; 0 where there is none. */
static uint64_t number_of(const struct mc_monitor *told, const char *file, const char *key)
{
	char data[512];
	size_t length = strlen(key);
	long n = told->cgroup < 0 ? -1 : mc_read_at(told->cgroup, file, data, sizeof(data) - 1);
	uint64_t number = 0;

	for (long i = 0; i + (long)length < n; i++) {
		size_t same = 0;

		while (same < length && data[i + (long)same] == key[same])
			same++;
		if (same < length || (i > 0 && data[i - 1] != '\n'))
			continue;
		for (i += (long)length; i < n && data[i] >= '0' && data[i] <= '9'; i++)
			number = number * 10 + (uint64_t)(data[i] - '0');
		return number;
	}
	return 0;
}

uint64_t cgroup_oom_kills(const struct mc_monitor *told)
{
	return number_of(told, "memory.events", "oom_kill ");
}

static void set(const struct mc_monitor *told, const char *file, const char *value)
{
	if (told->cgroup >= 0)
		mc_write_at(told->cgroup, file, value, strlen(value));
}

void cgroup_thaw(const struct mc_monitor *told)
{
	set(told, "cgroup.freeze", "0");
}

/* SIGKILL to each process in it. They stand still meanwhile, so that none is missed by forking. */
static void kill_each(const struct mc_monitor *told)
{
	static char pids[16384];
	long n;

	set(told, "cgroup.freeze", "1");
	n = mc_read_at(told->cgroup, "cgroup.procs", pids, sizeof(pids));
	for (long i = 0, pid = 0; i < n; i++) {
		pid = pids[i] == '\n' ? pid : pid * 10 + pids[i] - '0';
		if (pids[i] == '\n' && pid > 0) {
			mc_sys2(SYS_kill, (uint64_t)pid, SIGKILL);
			pid = 0;
		}
	}
	cgroup_thaw(told);
}

/* By hand where something is to be born in it again: one that was killed by cgroup.kill keeps killing what is made there
 * by CLONE_INTO_CGROUP (its kill_seq differs from that of the maker's; seen on Linux 6.18). */
void cgroup_empty(const struct mc_monitor *told, int again)
{
	const struct timespec pause = { 0, 1000000 };

	for (int ms = 0; number_of(told, "cgroup.events", "populated ") && ms < LONGEST; ms++) {
		if (again)
			kill_each(told);
		else
			set(told, "cgroup.kill", "1"); /* since Linux 5.14 */
		mc_sys4(SYS_clock_nanosleep, CLOCK_MONOTONIC, 0, MC_PTR(&pause), 0);
	}
}

void cgroup_remove(const struct mc_monitor *told)
{
	const char *name = (const char *)told + told->group;

	if (told->cgroup < 0 || mc_sys3(SYS_unlinkat, MC_FD(told->home), MC_PTR(name), AT_REMOVEDIR) == 0)
		return;
	remove_entries(told->cgroup, 0);
	mc_sys3(SYS_unlinkat, MC_FD(told->home), MC_PTR(name), AT_REMOVEDIR);
}
