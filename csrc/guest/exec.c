/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/exec.c: a further process in the container of the program, for a connection of the host.
 *
 * Theory of operation. Init clones itself: the new process does for this connection what init does for the control
 * port, with the same code and a struct guest of its own. It holds no descriptor of init but a pidfd of the program, by
 * which the plan joins the program's namespaces. The process that the plan makes is a child of this one (MC_FORK). Init
 * serves its program meanwhile, reaps this process, and kills it when the program has ended.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include <linux/vm_sockets.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"
#include "plan/walk.h"

#define CONTROL_FD (MC_GUEST_PROCESS_FD + 1)
#define FIRST_OTHER (CONTROL_FD + 1)

static struct guest served;

/* Leaves the streams of init, the pidfd and the connection open, and nothing else. */
static long keep_descriptors(struct guest *g, int process, int connection)
{
	const int given[] = { process, connection };
	long copies[2];

	for (int i = 0; i < 2; i++)
		copies[i] = mc_sys3(SYS_fcntl, MC_FD(given[i]), F_DUPFD_CLOEXEC, FIRST_OTHER);
	for (int i = 0; i < 2; i++) {
		long r = mc_sys3(SYS_dup3, (uint64_t)copies[i], (uint64_t)(MC_GUEST_PROCESS_FD + i), O_CLOEXEC);

		if (r < 0)
			return r;
	}
	g->control.fd = CONTROL_FD;
	return mc_sys3(SYS_close_range, FIRST_OTHER, ~0u, 0);
}

static long tell_port(struct guest *g)
{
	struct mc_guest_listen message = { VMADDR_PORT_ANY };
	const struct part part = { &message, sizeof(message) };
	long r;

	g->listener = vsock_listen(&message.port);
	if (g->listener < 0)
		return report(g, "listen", "vsock", g->listener);
	r = frames_send(&g->control, MC_GUEST_LISTEN, &part, 1);
	return r < 0 ? report(g, "control", "LISTEN", r) : 0;
}

/* The host has made them before it has sent START. */
static long accept_streams(struct guest *g)
{
	const int count = g->start->flags & MC_GUEST_TTY ? 2 : 3;

	for (int i = 0; i < count; i++) {
		do
			g->ports[i] = vsock_accept(g->listener);
		while (g->ports[i] == -EACCES);
		if (g->ports[i] < 0)
			return report(g, "accept", "streams", g->ports[i]);
	}
	close_fd(&g->listener);
	g->opened = (int64_t)mc_now();
	return 0;
}

static long run(struct guest *g)
{
	long r = signals_open(g);

	if (r == 0)
		r = tell_port(g);
	if (r == 0)
		r = start_await(g);
	if (r == 0)
		r = accept_streams(g);
	if (r == 0)
		r = program_start(g);
	if (r < 0)
		return r;
	r = serve(g);
	if (r < 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(g->spawn->pidfd), SIGKILL, 0, 0);
	return r;
}

__attribute__((noreturn)) static void serve_connection(const struct guest *init, int connection)
{
	struct guest *g = &served;

	guest_init(g);
	if (keep_descriptors(g, init->spawn->pidfd, connection) == 0 && run(g) < 0)
		report_end(g);
	for (;;)
		mc_sys1(SYS_exit_group, 0);
}

void exec_accept(const struct guest *g)
{
	int connection = vsock_accept(g->listener);

	if (connection < 0)
		return;
	if (mc_sys5(SYS_clone, SIGCHLD, 0, 0, 0, 0) == 0)
		serve_connection(g, connection);
	close_fd(&connection); /* after a failure of the clone, it is all that the host gets */
}
