/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/serve.c: the loop from the start of the program to its end: its streams, requests of the host, ended processes.
 *
 * Theory of operation. The end of the program is the end of all: what is left is killed, as when process 1 of a pid
 * namespace ends. Then the pipes have all output that there will be, so a pipe that is empty has ended, even if
 * somebody should still hold it. The host may read as slowly as it likes: only its closing of a port ends the waiting.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <time.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"

#define KILL_MS 10000 /* a process in an uninterruptible system call dies later, or never */

enum { CONTROL, SIGNALS, LISTENER, FLOWS, POLLED = FLOWS + 6 };

/* ---- one turn of the loop */

static void await_events(const struct guest *g, struct pollfd polled[POLLED], int64_t until)
{
	struct timespec t;
	int64_t left;

	polled[CONTROL] = (struct pollfd){ g->control.fd, POLLIN, 0 };
	polled[SIGNALS] = (struct pollfd){ g->signals, POLLIN, 0 };
	polled[LISTENER] = (struct pollfd){ g->has_ended ? -1 : g->listener, POLLIN, 0 };
	for (int i = 0; i < 3; i++) {
		const struct flow *f = &g->flows[i];

		flow_polled(f, polled + FLOWS + 2 * i);
		if (f->waits && (!until || f->patience.look_at < until))
			until = f->patience.look_at;
	}
	left = until - (int64_t)mc_now();
	left = left > 0 ? left : 0;
	t = (struct timespec){ left / (1000 * MS), left % (1000 * MS) };
	mc_sys5(SYS_ppoll, MC_PTR(polled), POLLED, until ? MC_PTR(&t) : 0, 0, 0);
}

static void resize(const struct guest *g, const struct mc_guest_size *size)
{
	const struct winsize window = { .ws_row = size->rows, .ws_col = size->columns };

	if (g->peer >= 0)
		mc_sys3(SYS_ioctl, MC_FD(g->peer), TIOCSWINSZ, MC_PTR(&window));
}

/* The file server of the host has a descriptor for each inode that this kernel knows. */
static void forget(const struct guest *g, const struct mc_guest_forget *what)
{
	const char digit[] = { (char)('0' + what->caches % 10), '\n' };

	if (g->caches >= 0)
		mc_sys3(SYS_write, MC_FD(g->caches), MC_PTR(digit), sizeof(digit));
}

static void obey(struct guest *g)
{
	switch (g->control.in.frame.type) {
	case MC_GUEST_SIGNAL:
		signals_forward(g, g->control.in.payload.signal.number);
		break;
	case MC_GUEST_RESIZE:
		resize(g, &g->control.in.payload.size);
		break;
	case MC_GUEST_FORGET:
		forget(g, &g->control.in.payload.forget);
		break;
	}
}

static long receive(struct guest *g)
{
	int r;

	while ((r = frames_receive(&g->control)) > 0)
		obey(g);
	g->is_hung_up |= r == -EPIPE;
	return r < 0 && r != -EPIPE ? report(g, "control", "frame", r) : r;
}

/* Returns 0, or -errno when there is no host any more that could be served. */
static long turn(struct guest *g, int64_t until)
{
	struct pollfd polled[POLLED];
	long r = 0;

	await_events(g, polled, until);
	if (polled[CONTROL].revents)
		r = receive(g);
	if (polled[SIGNALS].revents)
		signals_reap(g);
	if (polled[LISTENER].revents)
		g->accept(g);
	for (int i = 0; i < 3; i++)
		flow_move(&g->flows[i], polled + FLOWS + 2 * i);
	return r;
}

/* ---- the program's life */

/* A terminal that nobody reads has hung up: the kernel sends SIGHUP when the last descriptor of its master is gone. */
static void check_terminal(struct guest *g)
{
	if (g->peer >= 0 && !flow_is_open(&g->flows[OUT])) {
		flow_close(&g->flows[IN]);
		close_fd(&g->peer);
	}
}

static long run(struct guest *g)
{
	long r = 0;

	while (r == 0 && !g->has_ended) {
		r = turn(g, 0);
		check_terminal(g);
	}
	return r;
}

static long kill_rest(struct guest *g)
{
	const int64_t until = (int64_t)mc_now() + KILL_MS * MS;
	long r = 0;

	signals_kill_all();
	signals_reap(g);
	while (r == 0 && !g->is_alone && (int64_t)mc_now() < until)
		r = turn(g, until);
	return r;
}

static long flush(struct guest *g)
{
	long r = 0;

	flow_close(&g->flows[IN]);
	for (int i = OUT; i <= ERR; i++) {
		flow_finish(&g->flows[i]);
		flow_move(&g->flows[i], (const struct pollfd[2]){ 0 });
	}
	while (r == 0 && (flow_is_open(&g->flows[OUT]) || flow_is_open(&g->flows[ERR])))
		r = turn(g, 0);
	return r;
}

static long tell_exited(struct guest *g)
{
	const struct part part = { &g->exited, sizeof(g->exited) };
	long r;

	/* FUSE without a write-back cache: what was written is on the host, that of mappings since their end. */
	r = frames_send(&g->control, MC_GUEST_EXITED, &part, 1);
	return r < 0 ? report(g, "control", "EXITED", r) : 0;
}

long serve(struct guest *g)
{
	long r = run(g);

	if (r == 0)
		r = kill_rest(g);
	if (r == 0)
		r = flush(g);
	if (r == 0)
		return tell_exited(g);
	signals_kill_all();
	return r;
}
