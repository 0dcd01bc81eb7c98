/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * measure.c: the usage of a cgroup (cgroup-v2.rst), and the end of a container: reap, measure, remove.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "plan/syscalls.h"
#include "start/start.h"

#define ROOM 16384 /* bytes of one file: io.stat has a line of about 100 for each device */

static int begins_with(const char *text, const char *key)
{
	while (*key && *text == *key)
		text++, key++;
	return *key == 0;
}

/* The number behind the next occurrence of `key` in the text from *at on, which is then moved behind it; -1: none. */
static int64_t number_after(const char **at, const char *key)
{
	const char *text = *at;
	int64_t number = 0;

	while (*text && !begins_with(text, key))
		text++;
	if (!*text)
		return -1;
	for (text += strlen(key); *text >= '0' && *text <= '9'; text++)
		number = number * 10 + (*text - '0');
	*at = text;
	return number;
}

static int64_t first_number(const char *text, const char *key)
{
	return number_after(&text, key);
}

static int64_t sum_of_numbers(const char *text, const char *key)
{
	int64_t sum = 0, number;

	while ((number = number_after(&text, key)) >= 0)
		sum += number;
	return sum;
}

static void parse(struct mc_usage *out, enum mc_measuring file, const char *text)
{
	switch (file) {
	case MC_CPU_STAT:
		out->cpu_usec = first_number(text, "usage_usec ");
		out->user_usec = first_number(text, "user_usec ");
		out->system_usec = first_number(text, "system_usec ");
		break;
	case MC_IO_STAT:
		out->read = sum_of_numbers(text, "rbytes=");
		out->written = sum_of_numbers(text, "wbytes=");
		break;
	case MC_MEMORY_PEAK:
		out->memory_peak = first_number(text, "");
		break;
	case MC_PIDS_PEAK:
		out->pids_peak = first_number(text, "");
		break;
	case MC_CPU_PRESSURE:
		out->cpu_stall = first_number(text, "total="); /* the line "some" comes first */
		break;
	case MC_MEMORY_PRESSURE:
		out->memory_stall = first_number(text, "total=");
		break;
	case MC_IO_PRESSURE:
		out->io_stall = first_number(text, "total=");
		break;
	default:
		break;
	}
}

static const char *const FILES[] = {
	[MC_CPU_STAT] = "cpu.stat",
	[MC_IO_STAT] = "io.stat",
	[MC_MEMORY_PEAK] = "memory.peak",
	[MC_PIDS_PEAK] = "pids.peak",
	[MC_CPU_PRESSURE] = "cpu.pressure",
	[MC_MEMORY_PRESSURE] = "memory.pressure",
	[MC_IO_PRESSURE] = "io.pressure",
};

void mc_measure(int cgroup, uint32_t files, struct mc_usage *out)
{
	char text[ROOM];

	for (int64_t *value = &out->cpu_usec; value <= &out->written; value++)
		*value = -1;
	for (int i = MC_CPU_STAT; i <= MC_IO_PRESSURE; i++) {
		struct mc_record *record = &out->records[i];

		if (!(files >> i & 1))
			continue;
		record->start_ns = mc_now();
		record->result = mc_read_at(cgroup, FILES[i], text, sizeof(text) - 1);
		record->end_ns = mc_now();
		if (record->result < 0) {
			if (record->result != -ENOENT && record->result != -EOPNOTSUPP) /* psi=0 at boot */
				out->failed = i + 1;
			continue;
		}
		text[record->result] = 0;
		parse(out, (enum mc_measuring)i, text);
	}
}

static void close_fd(int32_t *fd)
{
	if (*fd >= 0)
		mc_sys1(SYS_close, MC_FD(*fd));
	*fd = -1;
}

/* Reaps the child, measures its cgroup, removes it, and releases the lock. A cgroup that is not removed (place->cgroup
 * stays open) has processes left, or its child was killed: then the caller finds out why before it removes the cgroup.
 * `place` is NULL where there is no cgroup. Returns -errno of the reap; a second call has the same result. */
int mc_finish(struct mc_spawn *spawn, struct mc_place *place, uint32_t files, struct mc_usage *out)
{
	struct mc_record *waited = &out->records[MC_WAITED], *removed = &out->records[MC_REMOVED];
	int r;

	if (waited->end_ns)
		return waited->result < 0 ? (int)waited->result : 0;
	waited->start_ns = mc_now();
	r = mc_spawn_reap(spawn);
	waited->result = r < 0 ? r : spawn->pid;
	waited->end_ns = mc_now();
	if (!place)
		return r;
	mc_measure(place->cgroup, files, out);
	if (r < 0 || spawn->status == -SIGKILL || spawn->status == 128 + SIGKILL)
		return r;
	removed->start_ns = mc_now();
	removed->result = mc_sys3(SYS_unlinkat, MC_FD(place->parent), MC_PTR(place->name), AT_REMOVEDIR);
	removed->end_ns = mc_now();
	if (removed->result < 0)
		return 0;
	close_fd(&place->cgroup);
	close_fd(&place->lock);
	return 0;
}
