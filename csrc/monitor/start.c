/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/start.c: one start of the container: opens its streams, clones the child that walks the plan (spawn.c), and
 * waits until the program runs. After a failure nothing of the start is left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>

#include "helpers/received.h"
#include "monitor/monitor.h"
#include "monitor/map.h"

void kill_and_reap(struct mc_spawn *spawn)
{
	if (spawn->pidfd < 0)
		return;
	mc_sys4(SYS_pidfd_send_signal, MC_FD(spawn->pidfd), SIGKILL, 0, 0);
	mc_spawn_reap(spawn);
	close_fd(&spawn->pidfd);
}

/* Init's report, at once; or the answer of a program that reports its start too, as the monitor of a machine does when
 * the guest runs the program: requests are received meanwhile. */
static int await_report(struct monitor *m, int report)
{
	struct mc_program *program = &m->shared->spawn.run.program;

	if (!(m->shared->flags & MC_ANSWERS))
		return mc_receive_report(report, program);
	m->report = report;
	loop_serve(m);
	m->report = -1;
	return mc_receive_answer(report, program);
}

static int spawn_child(struct monitor *m, int report[2], int socket)
{
	struct mc_monitor *shared = m->shared;
	int r;

	if (shared->report >= 0)
		shared->spawn.run.slots[shared->report] = report[1];
	shared->spawn.reaped = 0;
	shared->program_error = 0;
	r = shared->result = mc_spawn(&shared->spawn);
	close_fd(&report[1]);
	if (r == 0)
		r = mc_walk_error(&shared->spawn.run);
	if (r == 0)
		r = streams_receive(shared, &m->streams, socket);
	if (r == 0 && shared->report >= 0)
		r = shared->program_error = await_report(m, report[0]);
	if (r < 0)
		kill_and_reap(&shared->spawn);
	return r;
}

int start(struct monitor *m)
{
	struct mc_monitor *shared = m->shared;
	int child_ends[4], report[2] = { -1, -1 }, socket, r;

	m->expire_at = m->control.kill_at = 0;
	m->expired = 0;
	mc_run_reset(&shared->spawn.run, shared, &shared->child);
	if (shared->spawn.parent)
		mc_run_reset(&shared->parent_side.run, shared, &shared->parent);
	socket = streams_open(shared, &m->streams, child_ends);
	r = socket < -1 ? socket + 1 : 0;
	if (r == 0 && shared->report >= 0)
		r = (int)mc_sys2(SYS_pipe2, MC_PTR(report), O_CLOEXEC);
	if (r == 0 && !fds_available(MC_SPARE_FDS))
		r = -EMFILE; /* the monitor could not write its files */
	m->oom_kills = cgroup_oom_kills(shared->cgroup);
	shared->result = r;
	if (r == 0)
		r = spawn_child(m, report, socket);
	for (int i = 0; i < 4; i++)
		close_fd(&child_ends[i]);
	close_fd(&report[0]);
	close_fd(&report[1]);
	close_fd(&socket);
	if (r < 0)
		streams_close(&m->streams);
	return r;
}
