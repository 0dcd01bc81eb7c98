/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/start.c: one start of the container: its streams, the clone and the walk of its plan (spawn.c), and whether the
 * program runs. Whatever fails, nothing of it is left.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>

#include "monitor/monitor.h"
#include "monitor/told.h"

/* struct report of init.c: nothing, or an error of 0, where the program runs. What is in the pipe counts at its end. */
static int read_report(struct mc_monitor *told, int fd)
{
	struct {
		int32_t error;
		struct mc_program program;
	} report = { 0 };
	struct pollfd end = { .fd = fd }; /* POLLHUP alone */
	long n;

	do
		n = mc_sys5(SYS_ppoll, MC_PTR(&end), 1, 0, 0, 0);
	while (n == -EINTR);
	do
		n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(&report), sizeof(report));
	while (n == -EINTR);
	if (n > 0)
		told->spawn.run.program = report.program;
	return n > 0 ? -report.error : 0;
}

/* Why the plan was not walked to its end; 0 where it was. */
static int why_not(const struct mc_run *run)
{
	if (run->failed >= 0)
		return (int)run->records[run->failed].result;
	return run->at + 1 < (int64_t)run->plan->nsteps ? -ECANCELED : 0;
}

void bury(struct mc_spawn *spawn)
{
	if (spawn->pidfd < 0)
		return;
	mc_sys4(SYS_pidfd_send_signal, MC_FD(spawn->pidfd), SIGKILL, 0, 0);
	mc_spawn_reap(spawn);
	close_fd(&spawn->pidfd);
}

int has_room(int count)
{
	int fds[MC_OWN + 1], n = 0;

	while (n < count && n <= MC_OWN && (fds[n] = (int)mc_sys3(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0)) >= 0)
		n++;
	for (int i = 0; i < n; i++)
		close_fd(&fds[i]);
	return n == count;
}

static int spawn_child(struct mc_monitor *told, int report[2])
{
	int r;

	if (told->report >= 0)
		told->spawn.run.slots[told->report] = report[1];
	told->spawn.reaped = 0;
	told->program_error = 0;
	r = told->result = mc_spawn(&told->spawn);
	close_fd(&report[1]);
	if (r == 0)
		r = why_not(&told->spawn.run);
	if (r == 0 && told->report >= 0)
		r = told->program_error = read_report(told, report[0]);
	if (r < 0)
		bury(&told->spawn);
	return r;
}

int start(struct monitor *m)
{
	struct mc_monitor *told = m->told;
	int theirs[4], report[2] = { -1, -1 }, socket, r;

	mc_begin_anew(&told->spawn.run, told, &told->child);
	if (told->spawn.parent)
		mc_begin_anew(&told->parent_side.run, told, &told->parent);
	socket = streams_open(told, &m->streams, theirs);
	r = socket < -1 ? socket + 1 : 0;
	if (r == 0 && told->report >= 0)
		r = (int)mc_sys2(SYS_pipe2, MC_PTR(report), O_CLOEXEC);
	if (r == 0 && !has_room(MC_OWN))
		r = -EMFILE; /* what becomes of it could not be told */
	m->oom_kills = cgroup_oom_kills(told);
	told->result = r;
	if (r == 0)
		r = spawn_child(told, report);
	for (int i = 0; i < 4; i++)
		close_fd(&theirs[i]);
	close_fd(&report[0]);
	close_fd(&report[1]);
	if (r == 0)
		r = streams_take(told, &m->streams, socket);
	close_fd(&socket);
	if (r < 0)
		streams_close(&m->streams);
	return r;
}
