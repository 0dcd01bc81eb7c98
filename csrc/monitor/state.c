/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/state.c: the state of the container, as the file `state` (JSON, padded with blanks) of its state directory. A
 * new state is written to a spare file, synced, and exchanged with `state` (renameat2(2)). So a reader sees the old or
 * the new state, even if the monitor dies meanwhile. Both files exist before the container starts, so a full disk does
 * not prevent the final state. A process is identified by its pid, its start time (proc_pid_stat(5), field 22) and the
 * boot id: a reused pid, or one from before a reboot, has others.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include "monitor/monitor.h"

#define ROOM 1024
#define SPARE ".state"
#define OPEN (O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) /* the file may have been replaced */

/* Clock ticks since boot; 0 if there is no such process. */
static uint64_t start_time(int32_t pid)
{
	char path[32], stat[1024], *at;
	struct text t = { path, path + sizeof(path) };
	uint64_t ticks = 0;
	long n;

	put(&t, "/proc/");
	put_number(&t, pid);
	put(&t, "/stat");
	put_bytes(&t, "", 1);
	n = mc_read_at(AT_FDCWD, path, stat, sizeof(stat) - 1);
	if (n <= 0)
		return 0;
	stat[n] = 0;
	for (at = stat + n; at > stat && *at != ')'; at--)
		;
	for (int field = 2; field < 22 && *at; at++)
		field += *at == ' ';
	for (; *at >= '0' && *at <= '9'; at++)
		ticks = ticks * 10 + (uint64_t)(*at - '0');
	return ticks;
}

static void put_process(struct text *t, const char *key, int32_t pid)
{
	put(t, ", \"");
	put(t, key);
	put(t, "\": ");
	if (pid <= 0) {
		put(t, "null");
		return;
	}
	put(t, "[");
	put_number(t, pid);
	put(t, ", ");
	put_number(t, (int64_t)start_time(pid));
	put(t, "]");
}

static void put_field(struct text *t, const char *key, int64_t number, int known)
{
	put(t, ", \"");
	put(t, key);
	put(t, "\": ");
	if (known)
		put_number(t, number);
	else
		put(t, "null");
}

static void put_string(struct text *t, const char *key, const char *value)
{
	put(t, key);
	put(t, "\": \"");
	put(t, value);
	put(t, "\"");
}

static void format(struct text t, const struct mc_monitor *shared, const struct run *run, uint64_t lost)
{
	put(&t, "{\"");
	put_string(&t, "status", run->status);
	put(&t, ", \"");
	put_string(&t, "boot", (const char *)shared + shared->boot);
	put_process(&t, "monitor", (int32_t)mc_sys0(SYS_getpid));
	put_process(&t, "process", run->pid);
	put_field(&t, "started", run->started, run->started != 0);
	put_field(&t, "finished", run->finished, run->finished != 0);
	put_field(&t, "exit_code", run->exit_code, run->finished != 0);
	put(&t, ", \"");
	put_string(&t, "reason", run->finished ? run->reason : "");
	put(&t, run->oom_killed ? ", \"oom_killed\": true" : ", \"oom_killed\": false");
	put_field(&t, "restarts", run->restarts, 1);
	put_field(&t, "log_lost", (int64_t)lost, 1);
	put_field(&t, "upper", run->upper, run->pid > 0 && run->upper >= 0);
	put(&t, "}");
}

/* Overwrites blocks that exist, which a full file system does not prevent. */
static int write_spare(const struct mc_monitor *shared, const char json[ROOM])
{
	long fd = mc_sys4(SYS_openat, MC_FD(shared->directory), MC_PTR(SPARE), OPEN, 0600);
	long r = mc_sys4(SYS_pwrite64, fd, MC_PTR(json), ROOM, 0);

	r = fd < 0 ? fd : r == ROOM ? mc_sys1(SYS_fsync, fd) : r < 0 ? r : -ENOSPC;
	if (fd >= 0)
		mc_sys1(SYS_close, fd);
	return (int)r;
}

static int rename_spare(const struct mc_monitor *shared, uint64_t flags)
{
	const uint64_t directory = MC_FD(shared->directory);

	return (int)mc_sys5(SYS_renameat2, directory, MC_PTR(SPARE), directory, MC_PTR("state"), flags);
}

/* Creates `state` and the spare file, filled with blanks. */
int state_reserve(const struct mc_monitor *shared)
{
	char blank[ROOM];
	int r;

	memset(blank, ' ', sizeof(blank));
	r = write_spare(shared, blank);
	if (r == 0 && rename_spare(shared, RENAME_NOREPLACE) == 0)
		r = write_spare(shared, blank);
	return r;
}

void state_unreserve(const struct mc_monitor *shared)
{
	mc_sys3(SYS_unlinkat, MC_FD(shared->directory), MC_PTR(SPARE), 0);
}

/* On a file system that cannot exchange two names (NFS), `state` is replaced, and a new spare file is created. */
int state_write(const struct mc_monitor *shared, const struct run *run, uint64_t lost)
{
	char json[ROOM];
	int r;

	memset(json, ' ', sizeof(json));
	json[ROOM - 1] = '\n';
	format((struct text){ json, json + ROOM - 1 }, shared, run, lost);
	r = write_spare(shared, json);
	if (r == 0 && rename_spare(shared, RENAME_EXCHANGE) < 0) {
		r = rename_spare(shared, 0);
		write_spare(shared, json);
	}
	return r;
}
