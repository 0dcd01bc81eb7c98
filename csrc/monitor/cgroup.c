/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/cgroup.c: the container's cgroup, where it has one (cgroup-v2.rst).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "monitor/monitor.h"

/* The number that follows `key` in a file of "key number" lines; 0 where there is none. */
static uint64_t number_of(int cgroup, const char *file, const char *key)
{
	char data[512];
	size_t length = strlen(key);
	long n = cgroup < 0 ? -1 : mc_read_at(cgroup, file, data, sizeof(data) - 1);
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
	return number_of(told->cgroup, "memory.events", "oom_kill ");
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

int cgroup_is_populated(const struct mc_monitor *told)
{
	return number_of(told->cgroup, "cgroup.events", "populated ") != 0;
}

static int next_number(const char *data, long size, long *at)
{
	int number = 0;

	for (; *at < size && data[*at] != '\n'; ++*at)
		number = number * 10 + data[*at] - '0';
	++*at;
	return number;
}

static int is_listed(int directory, int pid)
{
	static char pids[16384];
	long n = mc_read_at(directory, "cgroup.procs", pids, sizeof(pids));

	for (long at = 0; at < n;)
		if (next_number(pids, n, &at) == pid)
			return 1;
	return 0;
}

/* A number that was read may be another's by now: the pidfd is opened first, and used where it is listed then. What is
 * of a pid namespace that we do not see is listed as 0. */
static void kill_listed(int directory)
{
	static char pids[16384];
	long n = mc_read_at(directory, "cgroup.procs", pids, sizeof(pids));

	for (long at = 0; at < n;) {
		int pid = next_number(pids, n, &at), fd = pid ? (int)mc_sys2(SYS_pidfd_open, (uint64_t)pid, 0) : -1;

		if (fd >= 0 && is_listed(directory, pid))
			mc_sys4(SYS_pidfd_send_signal, MC_FD(fd), SIGKILL, 0, 0);
		close_fd(&fd);
	}
}

/* The first directory in which somebody is, behind the one of an inode where that is given; -1 where there is none. */
static int next_below(int directory, uint64_t behind)
{
	_Alignas(struct dirent64) char entries[2048];
	long n;

	mc_sys3(SYS_lseek, MC_FD(directory), 0, SEEK_SET);
	while ((n = next_entries(directory, entries, sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
			int fd = is_below(entry) && !behind ? open_directory(directory, entry->d_name) : -1;

			if (fd >= 0 && number_of(fd, "cgroup.events", "populated ") != 0)
				return fd;
			close_fd(&fd);
			if (entry->d_ino == behind)
				behind = 0;
			at += entry->d_reclen;
		}
	return -1;
}

/* Whoever was inside may have nested any number: so there is no recursion, and the way up is "..". */
static void kill_below(int directory)
{
	int here = open_directory(directory, "."), there;
	uint64_t behind = 0;

	kill_listed(here);
	for (long depth = 0; here >= 0;) {
		there = next_below(here, behind);
		behind = 0;
		if (there >= 0) {
			kill_listed(there);
			depth++;
		} else if (depth-- > 0) {
			behind = inode_of(here);
			there = open_directory(here, "..");
		}
		close_fd(&here);
		here = there;
	}
}

/* cgroup.kill (Linux 5.14) kills all that is in it at once, but spares a process whose main thread has exited while
 * another runs (__cgroup_kill signals main threads; Linux 6.1 and 6.18), and leaves a cgroup in which what is born by
 * CLONE_INTO_CGROUP may be killed (its kill_seq differs from that of the maker's; Linux 6.18). So what is still listed
 * gets its own signal; and all of it does, standing still, so that none is missed by forking, where something is to be
 * born in it again. */
void cgroup_kill(const struct mc_monitor *told, int again)
{
	set(told, again ? "cgroup.freeze" : "cgroup.kill", "1");
	if (told->cgroup >= 0)
		kill_below(told->cgroup);
	cgroup_thaw(told);
}

void cgroup_remove(const struct mc_monitor *told)
{
	const char *name = (const char *)told + told->group;

	if (told->cgroup < 0 || mc_sys3(SYS_unlinkat, MC_FD(told->home), MC_PTR(name), AT_REMOVEDIR) == 0)
		return;
	remove_entries(told->cgroup, 0);
	mc_sys3(SYS_unlinkat, MC_FD(told->home), MC_PTR(name), AT_REMOVEDIR);
}
