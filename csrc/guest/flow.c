/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/flow.c: moves bytes between the program's pipes (or its pty) and the ports of its streams.
 *
 * Theory of operation. Each direction has a buffer. It is read into while it has room, so a slow reader stops its own
 * writer, and nobody else. The end of a source is passed on when the buffer is empty, by closing the destination; a
 * destination that nobody reads any more closes the source, so that a program gets SIGPIPE as if it wrote to the
 * host's pipe.
 *
 * A port polls as POLLHUP, and reads as 0 bytes, while the host's side is closed, thus also before the host has opened
 * it. Nothing wakes a process that waits for POLLHUP to end, so until the port was once seen open it is not polled but
 * looked at (patience.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"

static int has_room(const struct flow *f)
{
	return f->start == f->end || f->end < sizeof(f->data);
}

static int is_later(long result)
{
	return result == -EAGAIN || result == -EINTR;
}

void flow_begin(struct flow *f, int from, int to, int is_input, int64_t until)
{
	f->from = from;
	f->to = to;
	f->is_input = is_input;
	f->start = f->end = 0;
	f->ends = 0;
	f->waits = from >= 0 && to >= 0;
	patience_begin(&f->patience, until);
}

void flow_close(struct flow *f)
{
	close_fd(&f->from);
	close_fd(&f->to);
	f->start = f->end = 0;
	f->waits = 0;
}

int flow_is_open(const struct flow *f)
{
	return f->from >= 0 || f->to >= 0;
}

/* Reads once. A source that ends now (EIO: a pty that no process has open) is closed. */
static void fill(struct flow *f)
{
	long n;

	if (f->start == f->end)
		f->start = f->end = 0;
	n = mc_sys3(SYS_read, MC_FD(f->from), MC_PTR(f->data + f->end), sizeof(f->data) - f->end);
	if (n > 0)
		f->end += (uint32_t)n;
	else if (!is_later(n) || (f->ends && n == -EAGAIN))
		close_fd(&f->from);
}

static void drain(struct flow *f)
{
	while (f->start < f->end && f->to >= 0) {
		long n = mc_sys3(SYS_write, MC_FD(f->to), MC_PTR(f->data + f->start), f->end - f->start);

		if (n == 0 || is_later(n) || n == -ENOMEM) /* a port's driver copies what is written */
			return;
		if (n < 0)
			flow_close(f); /* EPIPE: nobody reads it any more */
		else
			f->start += (uint32_t)n;
	}
}

/* ---- a port that was never seen open */

static int is_open_at_the_host(const struct flow *f)
{
	struct pollfd polled = { f->is_input ? f->from : f->to, 0, 0 };

	return mc_sys5(SYS_ppoll, MC_PTR(&polled), 1, MC_PTR(&(struct timespec){ 0 }), 0, 0) == 0;
}

/* The host may have opened a port, filled it and closed it since the last look. */
static int has_input(struct flow *f)
{
	long n = f->is_input ? mc_sys3(SYS_read, MC_FD(f->from), MC_PTR(f->data), sizeof(f->data)) : 0;

	f->end = n > 0 ? (uint32_t)n : 0;
	return n > 0;
}

static void look(struct flow *f)
{
	if ((int64_t)mc_now() < f->patience.look_at)
		return;
	if (is_open_at_the_host(f) || has_input(f))
		f->waits = 0;
	else if (!patience_next(&f->patience))
		f->waits = 0; /* so it is closed for good, which fill() or a poll will say */
}

/* ---- what the loop calls */

void flow_polled(const struct flow *f, struct pollfd *polled)
{
	const int from = has_room(f) && !(f->waits && f->is_input) ? f->from : -1;
	const short events = POLLRDHUP | (f->start < f->end ? POLLOUT : 0); /* a vsock says no POLLHUP */

	polled[0] = (struct pollfd){ from, POLLIN, 0 };
	polled[1] = (struct pollfd){ f->waits && !f->is_input ? -1 : f->to, events, 0 };
}

void flow_move(struct flow *f, const struct pollfd *polled)
{
	int may_read = polled[0].revents != 0 || f->ends;

	if (f->waits)
		look(f);
	if (polled[1].revents & (POLLHUP | POLLERR | POLLRDHUP))
		flow_close(f);
	do {
		if (may_read && f->from >= 0 && has_room(f))
			fill(f);
		if (!f->waits)
			drain(f);
	} while (f->ends && f->from >= 0 && has_room(f));
	if (f->from < 0 && f->start == f->end)
		flow_close(f);
}

void flow_finish(struct flow *f)
{
	f->ends = 1;
}
