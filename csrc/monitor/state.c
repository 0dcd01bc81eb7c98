/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/state.c: what is known of the container, as the file `state` (JSON, and blanks) of its directory. Written beside
 * it, synced and exchanged with it (renameat2(2)), so that a reader sees the one or the other, whenever one of us dies.
 * Both files are there before the container is: a disk that is full by its end keeps nothing from being told. A process
 * is told by its number and its start (proc(5), field 22) under this boot: a number that is another's by now, or is from
 * before a reboot, is seen.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>

#include "monitor/monitor.h"

#define ROOM 1024
#define NEXT ".state"
#define OPEN (O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK) /* whatever somebody has put there */

/* Clock ticks since boot; 0 where there is no such process. */
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

static void put_word(struct text *t, const char *key, const char *word)
{
	put(t, key);
	put(t, "\": \"");
	put(t, word);
	put(t, "\"");
}

static void format(struct text t, const struct mc_monitor *told, const struct run *run, uint64_t lost)
{
	put(&t, "{\"");
	put_word(&t, "status", run->status);
	put(&t, ", \"");
	put_word(&t, "boot", (const char *)told + told->boot);
	put_process(&t, "monitor", (int32_t)mc_sys0(SYS_getpid));
	put_process(&t, "process", run->pid);
	put_field(&t, "started", run->started, run->started != 0);
	put_field(&t, "finished", run->finished, run->finished != 0);
	put_field(&t, "exit_code", run->exit_code, run->finished != 0);
	put(&t, ", \"");
	put_word(&t, "reason", run->finished ? run->reason : "");
	put(&t, run->oom_killed ? ", \"oom_killed\": true" : ", \"oom_killed\": false");
	put_field(&t, "restarts", run->restarts, 1);
	put_field(&t, "log_lost", (int64_t)lost, 1);
	put_field(&t, "upper", run->upper, run->pid > 0 && run->upper >= 0);
	put(&t, "}");
}

/* All of a page that is there: so that it needs no more room, however full the file system is by then. */
static int overwrite(const struct mc_monitor *told, const char json[ROOM])
{
	long fd = mc_sys4(SYS_openat, MC_FD(told->directory), MC_PTR(NEXT), OPEN, 0600);
	long r = mc_sys4(SYS_pwrite64, fd, MC_PTR(json), ROOM, 0);

	r = fd < 0 ? fd : r == ROOM ? mc_sys1(SYS_fsync, fd) : r < 0 ? r : -ENOSPC;
	if (fd >= 0)
		mc_sys1(SYS_close, fd);
	return (int)r;
}

static int rename_next(const struct mc_monitor *told, uint64_t flags)
{
	return (int)mc_sys5(SYS_renameat2, MC_FD(told->directory), MC_PTR(NEXT), MC_FD(told->directory), MC_PTR("state"),
			    flags);
}

/* Room for all that will be written: two files, of which each write takes the one that is not `state`. */
int state_reserve(const struct mc_monitor *told)
{
	char blank[ROOM];
	int r;

	memset(blank, ' ', sizeof(blank));
	r = overwrite(told, blank);
	if (r == 0 && rename_next(told, RENAME_NOREPLACE) == 0)
		r = overwrite(told, blank);
	return r;
}

void state_unreserve(const struct mc_monitor *told)
{
	mc_sys3(SYS_unlinkat, MC_FD(told->directory), MC_PTR(NEXT), 0);
}

/* Where two names cannot be exchanged (NFS), the room is made anew. */
int state_write(const struct mc_monitor *told, const struct run *run, uint64_t lost)
{
	char json[ROOM];
	int r;

	memset(json, ' ', sizeof(json));
	json[ROOM - 1] = '\n';
	format((struct text){ json, json + ROOM - 1 }, told, run, lost);
	r = overwrite(told, json);
	if (r == 0 && rename_next(told, RENAME_EXCHANGE) < 0) {
		r = rename_next(told, 0);
		overwrite(told, json);
	}
	return r;
}
