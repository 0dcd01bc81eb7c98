/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/loop.c: what the monitor waits for: the end of process 1, its output, requests of clients (control.c),
 * SIGTERM (as `stop`), and the next deadline. The loop waits neither for a reader of the output, nor for free space on
 * a full disk.
 */
#define _GNU_SOURCE
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <time.h>

#include "monitor/monitor.h"

enum { SIGNALS, CHILD, REPORT, CREATOR, OUT, ERR, INPUT, LISTENER, CLIENTS, POLLED = CLIENTS + MC_CLIENTS };

static struct pollfd polled[POLLED];

/* If `state` cannot be written, the loop tries again later, with the values of that time. */
int loop_record(struct monitor *m, const char *status)
{
	int r;

	m->run.status = status;
	r = state_write(m->shared, &m->run, m->log.lost);
	m->state_retry_at = r < 0 ? (int64_t)mc_now() + SECOND : 0;
	return r;
}

/* ---- one turn */

/* Returns the number of entries of `polled` in use. ppoll(2) fails (EINVAL) with more than RLIMIT_NOFILE. This number
 * is lower: clients take the first free entries, and the monitor has more than CLIENTS other descriptors. The end of
 * process 1 does not end the wait for its report, which ends too then. */
static size_t fill_pollfds(const struct monitor *m)
{
	const struct streams *s = &m->streams;
	int has_input = s->input_start < s->input_end;
	size_t count = CLIENTS;

	polled[SIGNALS] = (struct pollfd){ m->signals, POLLIN, 0 };
	polled[CHILD] = (struct pollfd){ m->report >= 0 ? -1 : m->shared->spawn.pidfd, POLLIN, 0 };
	polled[REPORT] = (struct pollfd){ m->report, 0, 0 }; /* POLLHUP */
	polled[CREATOR] = (struct pollfd){ m->creator, 0, 0 }; /* POLLERR: nobody reads */
	polled[OUT] = (struct pollfd){ s->out, POLLIN, 0 };
	polled[ERR] = (struct pollfd){ s->err, POLLIN, 0 };
	polled[INPUT] = (struct pollfd){ has_input ? (s->peer >= 0 ? s->out : s->in) : -1, POLLOUT, 0 };
	polled[LISTENER] = (struct pollfd){ m->control.listener, POLLIN, 0 };
	for (int i = 0; i < MC_CLIENTS; i++) {
		const struct client *client = &m->control.clients[i];

		polled[CLIENTS + i] = (struct pollfd){ client->blocked && has_input ? -1 : client->fd, POLLIN, 0 };
		if (client->fd >= 0)
			count = CLIENTS + (size_t)i + 1;
	}
	return count;
}

void loop_poll(const struct monitor *m, int64_t until)
{
	int64_t left = until ? until - (int64_t)mc_now() : 0;
	struct timespec t = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };

	mc_sys5(SYS_ppoll, MC_PTR(polled), fill_pollfds(m), until ? MC_PTR(&t) : 0, 0, 0);
}

void loop_receive(struct monitor *m)
{
	struct signalfd_siginfo info;
	int new;

	if (polled[SIGNALS].revents && mc_sys3(SYS_read, MC_FD(m->signals), MC_PTR(&info), sizeof(info)) > 0)
		control_stop(&m->control, m->shared, 0, (int64_t)m->shared->stop_timeout_ms);
	for (int i = 0; i < MC_CLIENTS; i++)
		if (polled[CLIENTS + i].revents)
			control_receive(&m->control, &m->control.clients[i], m->shared, &m->streams);
	for (int i = 0; i < MC_CLIENTS && polled[LISTENER].revents && (new = control_accept(&m->control)) >= 0; i++)
		control_receive(&m->control, &m->control.clients[new], m->shared, &m->streams);
}

void loop_forward(struct monitor *m)
{
	struct streams *s = &m->streams;

	if (polled[OUT].revents && !streams_read(s->out, "stdout", &m->log) && s->peer < 0)
		close_fd(&s->out);
	if (polled[ERR].revents && !streams_read(s->err, "stderr", &m->log))
		close_fd(&s->err);
	if (polled[INPUT].revents)
		streams_write_input(s);
}

/* ---- the loop */

static int64_t next_deadline(const struct monitor *m)
{
	const int64_t times[] = { m->control.kill_at, m->expire_at, m->state_retry_at };
	int64_t next = 0;

	for (int i = 0; i < 3; i++)
		if (times[i] && (!next || times[i] < next))
			next = times[i];
	return next;
}

static void kill_process(const struct monitor *m)
{
	if (m->shared->spawn.pidfd >= 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(m->shared->spawn.pidfd), SIGKILL, 0, 0);
}

/* A start that takes time, as that of a machine, ends with the process that waits for it. */
static void heed_creator(struct monitor *m)
{
	if (!polled[CREATOR].revents)
		return;
	m->creator = -1;
	m->control.stopping = 1;
	kill_process(m);
}

static void handle_deadlines(struct monitor *m)
{
	int64_t now = (int64_t)mc_now();

	if (m->expire_at && now >= m->expire_at) {
		m->expired = 1;
		m->expire_at = 0;
		kill_process(m);
	}
	if (m->control.kill_at && now >= m->control.kill_at) {
		m->control.kill_at = 0;
		kill_process(m);
	}
	if (m->state_retry_at && now >= m->state_retry_at)
		loop_record(m, m->run.status);
}

void loop_serve(struct monitor *m)
{
	do {
		loop_poll(m, next_deadline(m));
		loop_forward(m);
		loop_receive(m);
		heed_creator(m);
		handle_deadlines(m);
	} while (!polled[CHILD].revents && !polled[REPORT].revents);
}
