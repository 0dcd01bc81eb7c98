/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/program.c: opens what the plan needs (pipes, a socket, init-helper, a filter), clones the child that walks the
 * plan (spawn.c), and tells the host of the result. After a failure nothing of it runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "guest/guest.h"
#include "helpers/received.h"
#include "monitor/cgroup.h"
#include "plan/walk.h"

#ifndef TIOCGPTPEER
#include <asm/ioctls.h>
#endif

/* The numbers that a plan gives to its streams, to init-helper, report and filter end before it (execute.py). */
#define ABOVE_PLAN 16

/* What the child gets, and what init keeps of it. */
struct ends {
	int child[6], count;
	int mine[3];         /* of the pipes of the streams */
	int report, socket;
};

/* Moves a descriptor for the child to a number that no dup3 of the plan overwrites, and puts it into a slot. */
static long give(struct guest *g, struct ends *e, int32_t slot, long fd)
{
	long moved = fd < 0 ? fd : mc_sys3(SYS_fcntl, (uint64_t)fd, F_DUPFD_CLOEXEC, ABOVE_PLAN);

	if (fd >= 0)
		mc_sys1(SYS_close, (uint64_t)fd);
	if (moved < 0)
		return moved;
	e->child[e->count++] = (int)moved;
	g->spawn->run.slots[slot] = (int32_t)moved;
	return 0;
}

static void nonblocking(int fd)
{
	mc_sys3(SYS_fcntl, MC_FD(fd), F_SETFL, (uint64_t)mc_sys3(SYS_fcntl, MC_FD(fd), F_GETFL, 0) | O_NONBLOCK);
}

/* One end for the child, the other one into `own`. */
static long open_pipe(struct guest *g, struct ends *e, int32_t slot, int *own, int child_reads)
{
	int pair[2];
	long r = slot < 0 ? 0 : mc_sys2(SYS_pipe2, MC_PTR(pair), O_CLOEXEC);

	if (r < 0 || slot < 0)
		return r;
	*own = pair[child_reads];
	return give(g, e, slot, pair[!child_reads]);
}

static long open_streams(struct guest *g, struct ends *e)
{
	const int32_t slots[] = { g->start->input, g->start->output, g->start->error };
	long r = 0;

	for (int i = 0; i < 3 && r == 0; i++) {
		r = open_pipe(g, e, slots[i], &e->mine[i], i == IN);
		if (r == 0 && e->mine[i] >= 0)
			nonblocking(e->mine[i]);
	}
	return r;
}

static long open_socket(struct guest *g, struct ends *e)
{
	int pair[2];
	long r = mc_sys4(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, MC_PTR(pair));

	if (r < 0)
		return r;
	e->socket = pair[0];
	return give(g, e, g->start->socket, pair[1]);
}

static long open_filter(struct guest *g, struct ends *e)
{
	const char *data = (const char *)g->start + g->start->filter_data;
	long n, fd = mc_sys2(SYS_memfd_create, MC_PTR("filter"), MFD_CLOEXEC);

	if (fd < 0)
		return fd;
	n = mc_sys3(SYS_write, fd, MC_PTR(data), g->start->filter_size);
	if (n != (long)g->start->filter_size) {
		mc_sys1(SYS_close, fd);
		return n < 0 ? n : -ENOSPC;
	}
	return give(g, e, g->start->filter, fd);
}

static long open_all(struct guest *g, struct ends *e)
{
	const struct mc_guest_start *s = g->start;
	long r = s->flags & MC_GUEST_TTY ? open_socket(g, e) : open_streams(g, e);

	if (r == 0)
		r = open_pipe(g, e, s->report, &e->report, 0);
	if (r == 0 && s->filter >= 0)
		r = open_filter(g, e);
	if (r == 0 && s->init >= 0) {
		r = give(g, e, s->init, g->helper < 0 ? -ENOENT : g->helper);
		g->helper = -1;
	}
	return r < 0 ? report(g, "open", "descriptors of the plan", r) : 0;
}

static void close_child_ends(struct ends *e)
{
	while (e->count > 0)
		close_fd(&e->child[--e->count]);
}

/* ---- the run of the plan */

static long lay(struct guest *g)
{
	const struct mc_guest_start *s = g->start;
	const struct mc_plan *plan = (const struct mc_plan *)((const char *)s + s->plan);
	const size_t size = sizeof(struct mc_spawn) + mc_run_room(plan) + 8;
	long at = mc_sys(SYS_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, MC_FD(-1), 0);

	if (at < 0 && at > -4096)
		return report(g, "mmap", "run of the plan", at);
	g->spawn = mc_spawn_lay((void *)at, plan);
	g->spawn->flags = s->clone_flags;
	if (s->initial_slots)
		memcpy(g->spawn->run.slots, (const char *)s + s->initial_slots, plan->nslots * sizeof(int32_t));
	return 0;
}

static void kill_and_reap(struct mc_spawn *spawn)
{
	if (spawn->pidfd < 0)
		return;
	mc_sys4(SYS_pidfd_send_signal, MC_FD(spawn->pidfd), SIGKILL, 0, 0);
	mc_spawn_reap(spawn);
	close_fd(&spawn->pidfd);
}

/* Ends what there is of the program, and records why. */
static long fail(struct guest *g, enum mc_guest_failure kind, long error)
{
	struct mc_spawn *spawn = g->spawn;
	const struct mc_run *run = &spawn->run;
	int64_t step = kind == MC_GUEST_STEP_FAILED ? run->failed : kind == MC_GUEST_STEP_ENDED ? run->at : -1;

	kill_and_reap(spawn);
	g->failed = (struct mc_guest_failed){
		.kind = kind,
		.error = (int32_t)-error,
		.step = (int32_t)step,
		.status = spawn->reaped ? spawn->status : 0,
		.start_ns = spawn->start_ns,
		.end_ns = spawn->end_ns,
		.nrecords = run->plan->nsteps,
		.program = run->program,
	};
	return error;
}

static long spawn_child(struct guest *g, struct ends *e)
{
	struct mc_run *run = &g->spawn->run;
	long r = mc_spawn(g->spawn);

	close_child_ends(e);
	if (r < 0)
		return fail(g, MC_GUEST_CLONE_FAILED, r);
	r = mc_walk_error(run);
	if (r < 0)
		return fail(g, run->failed >= 0 ? MC_GUEST_STEP_FAILED : MC_GUEST_STEP_ENDED, r);
	if (e->report >= 0)
		r = mc_receive_report(e->report, &run->program);
	return r < 0 ? fail(g, MC_GUEST_EXEC_FAILED, r) : 0;
}

/* ---- its streams */

/* Takes the port; the flow closes it. */
static void attach(struct guest *g, int i, int own)
{
	const int64_t until = g->opened + MC_GUEST_OPEN_MS * MS;

	if (i == IN)
		flow_begin(&g->flows[i], g->ports[i], own, 1, until);
	else
		flow_begin(&g->flows[i], own, g->ports[i], 0, until);
	g->ports[i] = -1;
	if (own < 0)
		flow_close(&g->flows[i]);
}

static void set_window(const struct guest *g, int master)
{
	const struct winsize size = { .ws_row = g->start->rows, .ws_col = g->start->columns };

	if (size.ws_row)
		mc_sys3(SYS_ioctl, MC_FD(master), TIOCSWINSZ, MC_PTR(&size));
}

/* Each direction has a descriptor of the master of its own. */
static long receive_terminal(struct guest *g, struct ends *e)
{
	long in;

	e->mine[OUT] = mc_receive_fd(e->socket);
	if (e->mine[OUT] < 0)
		return report(g, "recvmsg", "terminal", -EPROTO);
	in = mc_sys3(SYS_fcntl, MC_FD(e->mine[OUT]), F_DUPFD_CLOEXEC, ABOVE_PLAN);
	g->peer = (int)mc_sys3(SYS_ioctl, MC_FD(e->mine[OUT]), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (in < 0 || g->peer < 0)
		return report(g, "open", "terminal", in < 0 ? in : g->peer);
	e->mine[IN] = (int)in;
	nonblocking(e->mine[OUT]);
	set_window(g, e->mine[OUT]);
	return 0;
}

static long tell_started(struct guest *g)
{
	const struct mc_spawn *spawn = g->spawn;
	const struct mc_guest_started started = { spawn->start_ns, spawn->end_ns, spawn->pid, spawn->run.plan->nsteps };
	const struct part parts[] = {
		{ &started, sizeof(started) },
		{ spawn->run.records, started.nrecords * sizeof(struct mc_record) },
	};
	long r = frames_send(&g->control, MC_GUEST_STARTED, parts, 2);

	return r < 0 ? report(g, "control", "STARTED", r) : 0;
}

static void end_program(struct guest *g)
{
	if (g->spawn)
		kill_and_reap(g->spawn);
	signals_kill_all();
}

long program_start(struct guest *g)
{
	struct ends e = { .mine = { -1, -1, -1 }, .report = -1, .socket = -1 };
	long r = lay(g);

	g->oom_kills = oom_kills(g->vmstat);
	if (r == 0)
		r = open_all(g, &e);
	if (r == 0)
		r = spawn_child(g, &e);
	close_child_ends(&e);
	if (r == 0 && g->start->flags & MC_GUEST_TTY)
		r = receive_terminal(g, &e);
	close_fd(&e.report);
	close_fd(&e.socket);
	if (r == 0)
		r = tell_started(g);
	for (int i = 0; i < 3 && r == 0; i++)
		attach(g, i, e.mine[i]);
	if (r < 0)
		end_program(g);
	return r;
}
