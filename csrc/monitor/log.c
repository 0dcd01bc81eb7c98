/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/log.c: writes the program's output to the file `log`, one entry a line, in the format of the Kubernetes
 * container runtime interface (CRI):
 *
 *     2026-11-23T16:51:08.123456789Z stdout F a whole line
 *     2026-11-23T16:51:08.123456789Z stderr P a part, no newline yet
 *
 * Output is written at once, as a partial entry (P) if it does not end with a newline. At `limit` bytes `log` is
 * renamed to `log.1`, `log.1` to `log.2` ...; `files` files are retained, `log` included. A full disk does not block
 * the program: the lost bytes are counted, and an entry states their number when there is room again:
 *
 *     2026-11-23T16:51:09.123456789Z lost F 512 bytes: errno 28
 */
#include <fcntl.h>
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "monitor/monitor.h"

/* The file may have been replaced: a FIFO must not block, and a terminal not become the controlling one. */
#define OPEN (O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)
#define ENTRY 64 /* bytes, at most, of an entry's header and newline */

static char out[32768];

static void format_name(struct text *t, uint32_t number)
{
	put(t, "log");
	if (number > 0) {
		put(t, ".");
		put_number(t, number);
	}
	put_bytes(t, "", 1);
}

static void rotate(struct log *log)
{
	char from[16], to[16];

	mc_sys1(SYS_close, MC_FD(log->fd));
	log->fd = -1;
	log->size = 0;
	for (uint32_t i = log->files; i-- > 0;) {
		format_name(&(struct text){ from, from + sizeof(from) }, i);
		format_name(&(struct text){ to, to + sizeof(to) }, i + 1);
		if (i + 1 == log->files)
			mc_sys3(SYS_unlinkat, MC_FD(log->directory), MC_PTR(from), 0);
		else
			mc_sys4(SYS_renameat, MC_FD(log->directory), MC_PTR(from), MC_FD(log->directory), MC_PTR(to));
	}
}

/* The log may exist already: the container was restarted. */
static long ensure_open(struct log *log)
{
	if (log->fd >= 0)
		return 0;
	log->fd = (int)mc_sys4(SYS_openat, MC_FD(log->directory), MC_PTR("log"), OPEN, 0640);
	if (log->fd < 0)
		return log->fd;
	log->size = (uint64_t)mc_sys3(SYS_lseek, MC_FD(log->fd), 0, SEEK_END);
	return 0;
}

/* Writes all of `data`, or nothing: an incomplete entry would make the next one unreadable. */
static long append(struct log *log, const char *data, size_t size)
{
	long r = ensure_open(log);

	if (r < 0)
		return r;
	r = mc_sys3(SYS_write, MC_FD(log->fd), MC_PTR(data), size);
	if (r == (long)size) {
		log->size += size;
		return 0;
	}
	if (r > 0)
		mc_sys2(SYS_ftruncate, MC_FD(log->fd), log->size);
	return r < 0 ? r : -ENOSPC;
}

static void put_header(struct text *t, const char *stream, int complete)
{
	put_time(t, realtime());
	put(t, " ");
	put(t, stream);
	put(t, complete ? " F " : " P ");
}

static void write_lost_entry(struct log *log)
{
	char line[128];
	struct text t = { line, line + sizeof(line) };

	put_header(&t, "lost", 1);
	put_number(&t, (int64_t)log->lost);
	put(&t, " bytes: errno ");
	put_number(&t, log->error);
	put(&t, "\n");
	if (append(log, line, (size_t)(t.at - line)) == 0)
		log->lost = 0;
}

/* Writes the `size` bytes of entries in `out`, of which `payload` bytes are the program's. */
static void flush_entries(struct log *log, size_t size, uint64_t payload)
{
	long r = 0;

	if (size == 0)
		return;
	if (log->limit && log->size > 0 && log->size + size > log->limit && log->fd >= 0)
		rotate(log);
	if (log->lost > 0)
		write_lost_entry(log);
	if (log->lost == 0)
		r = append(log, out, size);
	if (log->lost > 0 || r < 0) {
		log->lost += payload;
		log->error = r < 0 ? (int)-r : log->error;
	}
}

/* `size` is at most half of the size of `out`, so any line of `data` fits into `out` with its header. */
void log_write(struct log *log, const char *stream, const char *data, size_t size)
{
	struct text t = { out, out + sizeof(out) };
	uint64_t payload = 0;

	while (size > 0) {
		size_t length = 0, complete;

		while (length < size && data[length] != '\n')
			length++;
		complete = length < size;
		if ((size_t)(t.end - t.at) < ENTRY + length) {
			flush_entries(log, (size_t)(t.at - out), payload);
			t.at = out;
			payload = 0;
		}
		put_header(&t, stream, (int)complete);
		put_bytes(&t, data, length);
		put(&t, "\n");
		payload += length + complete;
		data += length + complete;
		size -= length + complete;
	}
	flush_entries(log, (size_t)(t.at - out), payload);
}
