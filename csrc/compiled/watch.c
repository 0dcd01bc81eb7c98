/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/watch.c: waits for the end of process 1, while it forwards signals and, with a terminal, bytes.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <time.h>

#include "compiled/compiled.h"

enum { CHILD, SIGNALS, TERMINAL, POLLED = TERMINAL + 4 };

static void poll_until(const struct runner *r, struct pollfd *polled, size_t count)
{
	int64_t until = r->kill_at, left;
	struct timespec t;

	if (r->end_at && (!until || r->end_at < until))
		until = r->end_at;
	left = until - (int64_t)mc_now();
	left = left > 0 ? left : 0;
	t = (struct timespec){ left / SECOND, left % SECOND };
	mc_sys5(SYS_ppoll, MC_PTR(polled), count, until ? MC_PTR(&t) : 0, 0, 0);
}

static void handle_deadlines(struct runner *r)
{
	const int64_t now = (int64_t)mc_now();

	if (r->kill_at && now >= r->kill_at) {
		r->kill_at = INT64_MAX;
		kill_all(r);
	}
	if (r->end_at && now >= r->end_at) {
		r->end_at = 0;
		r->is_expired = 1;
		kill_all(r);
	}
}

static void handle_terminal(struct runner *r, int events)
{
	if (events & TERMINAL_INTERRUPTED)
		kill_all(r);
	if (events & TERMINAL_HUNG_UP)
		signals_hang_up(r);
}

void watch(struct runner *r)
{
	struct pollfd polled[POLLED];
	size_t count = TERMINAL;

	r->end_at = r->c->timeout_ns ? (int64_t)mc_now() + (int64_t)r->c->timeout_ns : 0;
	for (;;) {
		for (int i = 0; i < POLLED; i++)
			polled[i] = (struct pollfd){ .fd = -1 };
		polled[CHILD] = (struct pollfd){ r->spawn->pidfd, POLLIN, 0 };
		polled[SIGNALS] = (struct pollfd){ r->signals, POLLIN, 0 };
		if (r->terminal >= 0)
			count = TERMINAL + terminal_polled(polled + TERMINAL);
		poll_until(r, polled, count);
		if (polled[SIGNALS].revents)
			signals_receive(r);
		if (r->terminal >= 0)
			handle_terminal(r, terminal_move(r, polled + TERMINAL));
		if (polled[CHILD].revents)
			return;
		handle_deadlines(r);
	}
}

void watch_output(struct runner *r)
{
	r->is_urgent = 0;
	while (!r->is_urgent && terminal_fill()) {
		struct pollfd polled[] = { { terminal_output(), POLLOUT, 0 }, { r->signals, POLLIN, 0 } };

		mc_sys5(SYS_ppoll, MC_PTR(polled), 2, 0, 0, 0);
		if (polled[1].revents)
			signals_receive(r);
		else if (polled[0].revents)
			terminal_show();
	}
}
