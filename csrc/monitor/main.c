/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/main.c: what stays of a detached container beside it: holds its streams, writes its log, records its end,
 * starts it again, and cleans up.
 *
 * Theory of operation. Who starts a container (container/monitored.py) prepares all of it, and starts this program, which
 * walks the plan as the library would (spawn.c), says by a byte that the first start is over, and is nobody's child from
 * then on. One loop waits for the end of process 1, for its output, for what clients say (control.c), for SIGTERM (as
 * `stop`) and for the next deadline. It never waits for anything else: not for a reader, not for a disk.
 * A container does not outlive its monitor (PR_SET_PDEATHSIG), but for what has changed its ids, which clears that signal:
 * whoever sees it next ends it (detached/ending.py).
 * No libc: there may be thousands, and each has a few pages of its own.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <time.h>

#include "helpers/start.h"
#include "monitor/monitor.h"
#include "monitor/told.h"
#include "plan/dumpable.h"

MC_START(monitor_main);

#define TRIES 100 /* to write what is written last */
#define BACKOFF_LEAST (100 * MS)
#define BACKOFF_MOST (60000 * MS)
#define SECOND (1000 * MS)
#define SETTLED (10000 * MS) /* what has run so long is no failure of starting */

enum { SIGNALS, CHILD, OUT, ERR, INPUT, LISTENER, CLIENTS, POLLED = CLIENTS + MC_CLIENTS };

static struct monitor me;

/* Nothing has to be kept: nobody traces us. */
void mc_dumpable_save(void)
{
}

void mc_dumpable_restore(void)
{
}

__attribute__((noreturn)) static void end(int status)
{
	for (;;)
		mc_sys1(SYS_exit_group, (uint64_t)status);
}

/* ---- what we were told */

static void hear_what_is_told(void)
{
	struct mc_monitor *told = mc_hear(MC_MONITOR_MAGIC);

	if (!told)
		end(125);
	me.told = told;
	mc_point(&told->spawn.run, told, &told->child);
	told->spawn.parent = NULL;
	if (told->parent.plan) {
		mc_point(&told->parent_side.run, told, &told->parent);
		told->parent_side.shared = (const int32_t *)((char *)told + told->shared);
		told->spawn.parent = &told->parent_side;
	}
	told->spawn.cgroup = told->cgroup;
	me.log = (struct log){ told->directory, -1, 0, told->log_size, told->log_files, 0, 0 };
}

static int32_t block_signals(void)
{
	const uint64_t all = ~0ull, heard = 1ull << (SIGTERM - 1);

	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), 0, 8);
	return (int32_t)mc_sys4(SYS_signalfd4, MC_FD(-1), MC_PTR(&heard), 8, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* What cannot be written is tried again, as it is then. */
static int write_state(const char *status)
{
	int r;

	me.run.status = status;
	r = state_write(me.told, &me.run, me.log.lost);
	me.write_at = r < 0 ? (int64_t)mc_now() + SECOND : 0;
	return r;
}

static int note_start(void)
{
	int r;

	me.begun = (int64_t)mc_now();
	me.expire_at = me.told->timeout_ms ? me.begun + (int64_t)me.told->timeout_ms * MS : 0;
	me.expired = 0;
	me.control.kill_at = 0;
	me.run.pid = me.told->spawn.pid;
	me.run.upper = me.streams.upper;
	me.run.started = realtime();
	me.run.finished = 0;
	r = write_state("running");
	if (r == 0 || me.run.restarts)
		event_write(me.told, "start", NULL, 0);
	return r;
}

/* ---- the loop */

static int64_t nearest(void)
{
	const int64_t times[] = { me.control.kill_at, me.expire_at, me.write_at };
	int64_t found = 0;

	for (int i = 0; i < 3; i++)
		if (times[i] && (!found || times[i] < found))
			found = times[i];
	return found;
}

/* How many of `polled` count: never more than we may have descriptors, or ppoll(2) fails (EINVAL). Clients take the first
 * free places, and we have more descriptors of our own than there are places before theirs. */
static size_t watch(struct pollfd *polled)
{
	const struct streams *s = &me.streams;
	int is_waiting = s->begin < s->filled;
	size_t count = CLIENTS;

	polled[SIGNALS] = (struct pollfd){ me.signals, POLLIN, 0 };
	polled[CHILD] = (struct pollfd){ me.told->spawn.pidfd, POLLIN, 0 };
	polled[OUT] = (struct pollfd){ s->out, POLLIN, 0 };
	polled[ERR] = (struct pollfd){ s->err, POLLIN, 0 };
	polled[INPUT] = (struct pollfd){ is_waiting ? (s->peer >= 0 ? s->out : s->in) : -1, POLLOUT, 0 };
	polled[LISTENER] = (struct pollfd){ me.control.listener, POLLIN, 0 };
	for (int i = 0; i < MC_CLIENTS; i++) {
		const struct client *client = &me.control.clients[i];

		polled[CLIENTS + i] = (struct pollfd){ client->holds && is_waiting ? -1 : client->fd, POLLIN, 0 };
		if (client->fd >= 0)
			count = CLIENTS + (size_t)i + 1;
	}
	return count;
}

static void wait_for(struct pollfd *polled, int64_t until)
{
	int64_t left = until ? until - (int64_t)mc_now() : 0;
	struct timespec t = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };

	mc_sys5(SYS_ppoll, MC_PTR(polled), watch(polled), until ? MC_PTR(&t) : 0, 0, 0);
}

static void listen_to_clients(const struct pollfd *polled)
{
	struct signalfd_siginfo info;
	int new;

	if (polled[SIGNALS].revents && mc_sys3(SYS_read, MC_FD(me.signals), MC_PTR(&info), sizeof(info)) > 0)
		control_stop(&me.control, me.told, 0, (int64_t)me.told->stop_timeout_ms);
	for (int i = 0; i < MC_CLIENTS; i++)
		if (polled[CLIENTS + i].revents)
			control_hear(&me.control, &me.control.clients[i], me.told, &me.streams);
	for (int i = 0; i < MC_CLIENTS && polled[LISTENER].revents && (new = control_accept(&me.control)) >= 0; i++)
		control_hear(&me.control, &me.control.clients[new], me.told, &me.streams);
}

static void kill_first(void)
{
	if (me.told->spawn.pidfd >= 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(me.told->spawn.pidfd), SIGKILL, 0, 0);
}

static void meet_deadlines(void)
{
	int64_t now = (int64_t)mc_now();

	if (me.expire_at && now >= me.expire_at) {
		me.expired = 1;
		me.expire_at = 0;
		kill_first();
	}
	if (me.control.kill_at && now >= me.control.kill_at) {
		me.control.kill_at = 0;
		kill_first();
	}
	if (me.write_at && now >= me.write_at)
		write_state(me.run.status);
}

static void move_output(const struct pollfd *polled)
{
	struct streams *s = &me.streams;

	if (polled[OUT].revents && !streams_move(s->out, "stdout", &me.log) && s->peer < 0)
		close_fd(&s->out);
	if (polled[ERR].revents && !streams_move(s->err, "stderr", &me.log))
		close_fd(&s->err);
	if (polled[INPUT].revents)
		streams_feed(s);
}

static void serve(void)
{
	struct pollfd polled[POLLED];

	do {
		wait_for(polled, nearest());
		move_output(polled);
		listen_to_clients(polled);
		meet_deadlines();
	} while (!polled[CHILD].revents);
}

/* What was written before the end is there: no more is waited for. */
static void drain(void)
{
	struct streams *s = &me.streams;

	while (s->out >= 0 && streams_move(s->out, "stdout", &me.log) > 1)
		;
	while (s->err >= 0 && streams_move(s->err, "stderr", &me.log) > 1)
		;
	streams_close(s);
}

static int wants_restart(void)
{
	const struct mc_monitor *told = me.told;

	if (me.control.stopping || told->policy == MC_NEVER)
		return 0;
	if (told->policy == MC_ALWAYS)
		return 1;
	return me.run.exit_code != 0 && (!told->retries || me.run.restarts < told->retries);
}

/* As long as something of it runs it has not ended: what a kill does not end at once (a call that cannot be interrupted) is
 * waited for, and killed again. */
static void empty(void)
{
	struct pollfd polled[POLLED];
	int64_t begun = (int64_t)mc_now(), nap = MS;
	int is_told = 0;

	while (cgroup_is_populated(me.told)) {
		cgroup_kill(me.told, me.again);
		wait_for(polled, (int64_t)mc_now() + nap);
		move_output(polled);
		listen_to_clients(polled);
		nap = nap < SECOND / 8 ? nap * 2 : nap;
		if (!is_told && (int64_t)mc_now() - begun > SECOND / 2)
			is_told = write_state("stopping") == 0;
	}
}

static void note_end(void)
{
	struct mc_spawn *spawn = &me.told->spawn;
	int known = mc_spawn_reap(spawn) == 0;

	close_fd(&spawn->pidfd);
	failpoint("reaped");
	me.run.exit_code = !known ? 255 : spawn->status < 0 ? 128 - spawn->status : spawn->status;
	me.run.reason = "";
	me.run.finished = realtime();
	me.run.pid = 0;
	me.again = wants_restart();
	empty();
	failpoint("killed");
	drain();
	me.run.oom_killed = cgroup_oom_kills(me.told) > me.oom_kills;
	me.run.reason = me.expired ? "timeout" : me.run.oom_killed && me.run.exit_code == 128 + SIGKILL ? "oom" :
			spawn->status < 0	 ? "signal" :
						   "exited";
	if (me.run.oom_killed)
		event_write(me.told, "oom", NULL, 0);
	event_write(me.told, "die", "exitCode", me.run.exit_code);
}

/* ---- after an end */

/* Twice as long each time, for what does not keep running: docker's. False: not to be started any more. */
static int rest(void)
{
	struct pollfd polled[POLLED];
	int64_t until;

	me.backoff = (int64_t)mc_now() - me.begun >= SETTLED ? 0 : me.backoff * 2;
	me.backoff = me.backoff < BACKOFF_LEAST ? BACKOFF_LEAST : me.backoff > BACKOFF_MOST ? BACKOFF_MOST : me.backoff;
	write_state("restarting");
	failpoint("restarting");
	until = (int64_t)mc_now() + me.backoff;
	while (!me.control.stopping && (int64_t)mc_now() < until) {
		wait_for(polled, until);
		listen_to_clients(polled);
	}
	return !me.control.stopping;
}

static void note_failure(int error)
{
	me.run.exit_code = error == -ENOENT ? 127 : error == -EACCES || error == -ENOEXEC ? 126 : 125;
	me.run.reason = "failed";
	me.run.started = me.run.finished = realtime();
	me.run.pid = 0;
	me.begun = (int64_t)mc_now();
}

static void run_again(void)
{
	int r;

	while (me.again && rest()) {
		me.run.restarts++;
		failpoint("starting again");
		do
			r = start(&me);
		while (r == -EMFILE && control_drop(&me.control));
		if (r < 0) {
			note_failure(r);
			me.again = wants_restart();
			continue;
		}
		note_start();
		serve();
		note_end();
	}
}

/* ---- the end of it all */

static void finish(void)
{
	struct pollfd polled[POLLED];

	failpoint("finishing");
	end_give_back(me.told);
	for (int i = 0; write_state("exited") < 0 && i < TRIES; i++)
		wait_for(polled, (int64_t)mc_now() + SECOND / 10);
	state_unreserve(me.told);
	failpoint("exited");
	if (me.told->wishes & MC_REMOVE)
		end_remove(me.told);
}

static void tell_manager(int r)
{
	const char byte = 1;
	int lock = me.told->lock;

	if (r == 0) {
		r = me.told->state_error = note_start();
		failpoint("started");
	}
	if (r < 0) {
		bury(&me.told->spawn);
		state_unreserve(me.told);
	}
	close_fd(&lock);
	mc_sys3(SYS_write, MC_STARTED, MC_PTR(&byte), 1);
	mc_sys1(SYS_close, MC_STARTED);
	if (r < 0)
		end(1); /* who waits for us says why, and cleans up */
}

/* What could not be told of is not started. */
static int start_first(void)
{
	int r = me.told->state_error = state_reserve(me.told);

	return r < 0 ? r : start(&me);
}

__attribute__((noreturn, used)) static void monitor_main(long *stack)
{
	failpoint_begin(stack);
	failpoint("begun");
	me.signals = block_signals();
	hear_what_is_told();
	mc_sys1(SYS_fchdir, MC_FD(me.told->directory));
	control_open(&me.control);
	failpoint("listening");
	tell_manager(start_first());
	serve();
	failpoint("ended");
	note_end();
	run_again();
	finish();
	end(0);
}
