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

int fds_available(int count)
{
	int fds[MC_SPARE_FDS + 1], n = 0;

	while (n < count && n <= MC_SPARE_FDS && (fds[n] = (int)mc_sys3(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0)) >= 0)
		n++;
	for (int i = 0; i < n; i++)
		close_fd(&fds[i]);
	return n == count;
}

static int spawn_child(struct mc_monitor *shared, int report[2])
{
	int r;

	if (shared->report >= 0)
		shared->spawn.run.slots[shared->report] = report[1];
	shared->spawn.reaped = 0;
	shared->program_error = 0;
	r = shared->result = mc_spawn(&shared->spawn);
	close_fd(&report[1]);
	if (r == 0)
		r = mc_walk_error(&shared->spawn.run);
	if (r == 0 && shared->report >= 0)
		r = shared->program_error = mc_receive_report(report[0], &shared->spawn.run.program);
	if (r < 0)
		kill_and_reap(&shared->spawn);
	return r;
}

int start(struct monitor *m)
{
	struct mc_monitor *shared = m->shared;
	int child_ends[4], report[2] = { -1, -1 }, socket, r;

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
		r = spawn_child(shared, report);
	for (int i = 0; i < 4; i++)
		close_fd(&child_ends[i]);
	close_fd(&report[0]);
	close_fd(&report[1]);
	if (r == 0)
		r = streams_receive(shared, &m->streams, socket);
	close_fd(&socket);
	if (r < 0)
		streams_close(&m->streams);
	return r;
}
