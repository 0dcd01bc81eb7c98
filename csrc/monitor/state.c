/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/state.c: what is known of the container, as the file `state` (JSON) of its directory. Written beside it, synced
 * and renamed, so that a reader sees the one or the other, whenever one of us dies. A process is told by its number and
 * its start (proc(5), field 22) under this boot: a number that is another's by now, or is from before a reboot, is seen.
 */
#include <fcntl.h>
#include <string.h>

#include "monitor.h"

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

static size_t format(struct text t, const struct mc_monitor *told, const struct run *run, uint64_t lost)
{
	const char *begin = t.at;

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
	put(&t, "}\n");
	return (size_t)(t.at - begin);
}

void state_write(const struct mc_monitor *told, const struct run *run, uint64_t lost)
{
	char json[1024];
	size_t size = format((struct text){ json, json + sizeof(json) }, told, run, lost);
	long fd = mc_sys4(SYS_openat, MC_FD(told->directory), MC_PTR(".state"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC,
			  0600);
	long r = mc_sys3(SYS_write, fd, MC_PTR(json), size);

	if (r == (long)size) {
		mc_sys1(SYS_fsync, fd);
		mc_sys4(SYS_renameat, MC_FD(told->directory), MC_PTR(".state"), MC_FD(told->directory), MC_PTR("state"));
	}
	if (fd >= 0)
		mc_sys1(SYS_close, fd);
}
