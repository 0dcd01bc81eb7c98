/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/cgroup.c: the container's cgroup, if it has one (cgroup-v2.rst).
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "monitor/cgroup.h"
#include "plan/native.h"
#include "plan/syscalls.h"

/* The number that follows `key` in a file of "key number" lines; 0 without such a line. */
static uint64_t read_key(int cgroup, const char *file, const char *key)
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

uint64_t cgroup_oom_kills(int cgroup)
{
	return read_key(cgroup, "memory.events", "oom_kill ");
}

static void write_file(int cgroup, const char *file, const char *value)
{
	if (cgroup >= 0)
		mc_write_at(cgroup, file, value, strlen(value));
}

void cgroup_thaw(int cgroup)
{
	write_file(cgroup, "cgroup.freeze", "0");
}

int cgroup_is_populated(int cgroup)
{
	return read_key(cgroup, "cgroup.events", "populated ") != 0;
}

static int next_number(const char *data, long size, long *at)
{
	int number = 0;

	for (; *at < size && data[*at] != '\n'; ++*at)
		number = number * 10 + data[*at] - '0';
	++*at;
	return number;
}

static int is_member(int directory, int pid)
{
	static char pids[16384];
	long n = mc_read_at(directory, "cgroup.procs", pids, sizeof(pids));

	for (long at = 0; at < n;)
		if (next_number(pids, n, &at) == pid)
			return 1;
	return 0;
}

/* A pid may have been reused since it was read. Therefore the pidfd is opened first, and used only if the cgroup still
 * lists the pid then. A process of a pid namespace that is not visible from here is listed as 0. */
static void kill_members(int directory)
{
	static char pids[16384];
	long n = mc_read_at(directory, "cgroup.procs", pids, sizeof(pids));

	for (long at = 0; at < n;) {
		int pid = next_number(pids, n, &at), fd = pid ? (int)mc_sys2(SYS_pidfd_open, (uint64_t)pid, 0) : -1;

		if (fd >= 0 && is_member(directory, pid))
			mc_sys4(SYS_pidfd_send_signal, MC_FD(fd), SIGKILL, 0, 0);
		close_fd(&fd);
	}
}

/* Opens the first nested cgroup with processes, after that with the inode `after` (0: from the first). -1: none. */
static int next_populated(int directory, uint64_t after)
{
	_Alignas(struct dirent64) char entries[2048];
	long n;

	mc_sys3(SYS_lseek, MC_FD(directory), 0, SEEK_SET);
	while ((n = next_entries(directory, entries, sizeof(entries))) > 0)
		for (long at = 0; at < n;) {
			const struct dirent64 *entry = (const struct dirent64 *)(entries + at);
			int fd = is_subdirectory(entry) && !after ? open_directory(directory, entry->d_name) : -1;

			if (fd >= 0 && read_key(fd, "cgroup.events", "populated ") != 0)
				return fd;
			close_fd(&fd);
			if (entry->d_ino == after)
				after = 0;
			at += entry->d_reclen;
		}
	return -1;
}

/* A container may have nested any number of cgroups. Therefore there is no recursion, and ".." leads up. */
static void kill_tree(int directory)
{
	int current = open_directory(directory, "."), next;
	uint64_t after = 0;

	kill_members(current);
	for (long depth = 0; current >= 0;) {
		next = next_populated(current, after);
		after = 0;
		if (next >= 0) {
			kill_members(next);
			depth++;
		} else if (depth-- > 0) {
			after = inode_of(current);
			next = open_directory(current, "..");
		}
		close_fd(&current);
		current = next;
	}
}

/* cgroup.kill (Linux 5.14) kills all processes of a cgroup at once. But it spares a process whose main thread has
 * exited while another thread runs (__cgroup_kill signals main threads; Linux 6.1 and 6.18), so each process that is
 * still listed is killed by a signal of its own. And after cgroup.kill the kernel may kill a child that
 * CLONE_INTO_CGROUP puts into the cgroup (the kill_seq of the cgroup differs from that of the parent's cgroup; Linux
 * 6.18). A cgroup that will be used again is therefore frozen instead, so that no fork is missed, and each process is
 * killed by a signal of its own. */
void cgroup_kill(int cgroup, int reuse)
{
	write_file(cgroup, reuse ? "cgroup.freeze" : "cgroup.kill", "1");
	if (cgroup >= 0)
		kill_tree(cgroup);
	cgroup_thaw(cgroup);
}

long cgroup_remove(int cgroup, int parent, const char *name)
{
	long r = cgroup < 0 ? 0 : mc_sys3(SYS_unlinkat, MC_FD(parent), MC_PTR(name), AT_REMOVEDIR);

	if (r < 0) {
		remove_entries(cgroup, 0);
		r = mc_sys3(SYS_unlinkat, MC_FD(parent), MC_PTR(name), AT_REMOVEDIR);
	}
	return r;
}
