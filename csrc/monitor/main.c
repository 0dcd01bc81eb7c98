/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/main.c: the monitor of a detached container. It holds the container's streams, writes its log, records its
 * end, restarts it, and cleans up.
 *
 * Theory of operation. The creator (detached/monitor.py) prepares the container and starts this program, which walks
 * the plan as the library would (spawn.c) and writes one byte when the first start has succeeded or failed. The monitor
 * is an orphan: no process waits for it. One loop waits for the end of process 1, for its output, for requests of
 * clients (control.c), for SIGTERM (as `stop`) and for the next deadline. The loop waits neither for a reader of the
 * output, nor for free space on a full disk.
 * A container does not outlive its monitor (PR_SET_PDEATHSIG). But a process that changes its ids clears this signal
 * (prctl(2)); then the next command that inspects the container ends it (detached/termination.py).
 * The monitor has no libc: there may be thousands of monitors, and each has only a few pages of its own.
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
#include "monitor/map.h"
#include "plan/dumpable.h"

MC_START(monitor_main);

#define STATE_WRITE_TRIES 100 /* of the final state */
#define BACKOFF_LEAST (100 * MS)
#define BACKOFF_MOST (60000 * MS)
#define SECOND (1000 * MS)
#define STABLE (10000 * MS) /* a run of this length resets the backoff */

enum { SIGNALS, CHILD, OUT, ERR, INPUT, LISTENER, CLIENTS, POLLED = CLIENTS + MC_CLIENTS };

static struct monitor self;

/* The monitor's memory holds no secret: there is no dumpable attribute to save. */
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

/* ---- preparation */

static void map_shared(void)
{
	struct mc_monitor *shared = mc_shared_map(MC_MONITOR_MAGIC);

	if (!shared)
		end(125);
	self.shared = shared;
	mc_run_init(&shared->spawn.run, shared, &shared->child);
	shared->spawn.parent = NULL;
	if (shared->parent.plan) {
		mc_run_init(&shared->parent_side.run, shared, &shared->parent);
		shared->parent_side.shared = (const int32_t *)((char *)shared + shared->shared_slots);
		shared->spawn.parent = &shared->parent_side;
	}
	shared->spawn.cgroup = shared->cgroup;
	self.log = (struct log){ shared->directory, -1, 0, shared->log_size, shared->log_files, 0, 0 };
}

static int32_t block_signals(void)
{
	const uint64_t all = ~0ull, accepted = 1ull << (SIGTERM - 1);

	mc_sys2(SYS_prctl, PR_SET_NAME, MC_PTR("minicontainer"));
	mc_sys4(SYS_rt_sigprocmask, SIG_SETMASK, MC_PTR(&all), 0, 8);
	return (int32_t)mc_sys4(SYS_signalfd4, MC_FD(-1), MC_PTR(&accepted), 8, SFD_CLOEXEC | SFD_NONBLOCK);
}

/* If `state` cannot be written, the loop tries again later, with the values of that time. */
static int write_state(const char *status)
{
	int r;

	self.run.status = status;
	r = state_write(self.shared, &self.run, self.log.lost);
	self.state_retry_at = r < 0 ? (int64_t)mc_now() + SECOND : 0;
	return r;
}

static int record_start(void)
{
	int r;

	self.started_at = (int64_t)mc_now();
	self.expire_at = self.shared->timeout_ms ? self.started_at + (int64_t)self.shared->timeout_ms * MS : 0;
	self.expired = 0;
	self.control.kill_at = 0;
	self.run.pid = self.shared->spawn.pid;
	self.run.upper = self.streams.upper;
	self.run.started = realtime();
	self.run.finished = 0;
	r = write_state("running");
	if (r == 0 || self.run.restarts)
		event_write(self.shared, "start", NULL, 0);
	return r;
}

/* ---- the loop */

static int64_t next_deadline(void)
{
	const int64_t times[] = { self.control.kill_at, self.expire_at, self.state_retry_at };
	int64_t next = 0;

	for (int i = 0; i < 3; i++)
		if (times[i] && (!next || times[i] < next))
			next = times[i];
	return next;
}

/* Returns the number of entries of `polled` in use. ppoll(2) fails (EINVAL) with more than RLIMIT_NOFILE. This number
 * is lower: clients take the first free entries, and the monitor has more than CLIENTS other descriptors. */
static size_t fill_pollfds(struct pollfd *polled)
{
	const struct streams *s = &self.streams;
	int has_input = s->input_start < s->input_end;
	size_t count = CLIENTS;

	polled[SIGNALS] = (struct pollfd){ self.signals, POLLIN, 0 };
	polled[CHILD] = (struct pollfd){ self.shared->spawn.pidfd, POLLIN, 0 };
	polled[OUT] = (struct pollfd){ s->out, POLLIN, 0 };
	polled[ERR] = (struct pollfd){ s->err, POLLIN, 0 };
	polled[INPUT] = (struct pollfd){ has_input ? (s->peer >= 0 ? s->out : s->in) : -1, POLLOUT, 0 };
	polled[LISTENER] = (struct pollfd){ self.control.listener, POLLIN, 0 };
	for (int i = 0; i < MC_CLIENTS; i++) {
		const struct client *client = &self.control.clients[i];

		polled[CLIENTS + i] = (struct pollfd){ client->blocked && has_input ? -1 : client->fd, POLLIN, 0 };
		if (client->fd >= 0)
			count = CLIENTS + (size_t)i + 1;
	}
	return count;
}

static void poll_until(struct pollfd *polled, int64_t until)
{
	int64_t left = until ? until - (int64_t)mc_now() : 0;
	struct timespec t = { left > 0 ? left / 1000000000 : 0, left > 0 ? left % 1000000000 : 0 };

	mc_sys5(SYS_ppoll, MC_PTR(polled), fill_pollfds(polled), until ? MC_PTR(&t) : 0, 0, 0);
}

static void receive_requests(const struct pollfd *polled)
{
	struct signalfd_siginfo info;
	int new;

	if (polled[SIGNALS].revents && mc_sys3(SYS_read, MC_FD(self.signals), MC_PTR(&info), sizeof(info)) > 0)
		control_stop(&self.control, self.shared, 0, (int64_t)self.shared->stop_timeout_ms);
	for (int i = 0; i < MC_CLIENTS; i++)
		if (polled[CLIENTS + i].revents)
			control_receive(&self.control, &self.control.clients[i], self.shared, &self.streams);
	for (int i = 0; i < MC_CLIENTS && polled[LISTENER].revents && (new = control_accept(&self.control)) >= 0; i++)
		control_receive(&self.control, &self.control.clients[new], self.shared, &self.streams);
}

static void kill_process(void)
{
	if (self.shared->spawn.pidfd >= 0)
		mc_sys4(SYS_pidfd_send_signal, MC_FD(self.shared->spawn.pidfd), SIGKILL, 0, 0);
}

static void handle_deadlines(void)
{
	int64_t now = (int64_t)mc_now();

	if (self.expire_at && now >= self.expire_at) {
		self.expired = 1;
		self.expire_at = 0;
		kill_process();
	}
	if (self.control.kill_at && now >= self.control.kill_at) {
		self.control.kill_at = 0;
		kill_process();
	}
	if (self.state_retry_at && now >= self.state_retry_at)
		write_state(self.run.status);
}

static void forward_output(const struct pollfd *polled)
{
	struct streams *s = &self.streams;

	if (polled[OUT].revents && !streams_read(s->out, "stdout", &self.log) && s->peer < 0)
		close_fd(&s->out);
	if (polled[ERR].revents && !streams_read(s->err, "stderr", &self.log))
		close_fd(&s->err);
	if (polled[INPUT].revents)
		streams_write_input(s);
}

static void serve(void)
{
	struct pollfd polled[POLLED];

	do {
		poll_until(polled, next_deadline());
		forward_output(polled);
		receive_requests(polled);
		handle_deadlines();
	} while (!polled[CHILD].revents);
}

/* Reads the output that the pipes still hold at the container's end; does not wait for more. */
static void drain(void)
{
	struct streams *s = &self.streams;

	while (s->out >= 0 && streams_read(s->out, "stdout", &self.log) > 1)
		;
	while (s->err >= 0 && streams_read(s->err, "stderr", &self.log) > 1)
		;
	streams_close(s);
}

static int should_restart(void)
{
	const struct mc_monitor *shared = self.shared;

	if (self.control.stopping || shared->policy == MC_NEVER)
		return 0;
	if (shared->policy == MC_ALWAYS)
		return 1;
	return self.run.exit_code != 0 && (!shared->retries || self.run.restarts < shared->retries);
}

/* The container has not ended while processes are left in its cgroup. SIGKILL may take time (an uninterruptible system
 * call), so the monitor waits, and kills again. */
static void kill_remaining(void)
{
	struct pollfd polled[POLLED];
	int64_t start = (int64_t)mc_now(), interval = MS;
	int is_recorded = 0;

	while (cgroup_is_populated(self.shared->cgroup)) {
		cgroup_kill(self.shared->cgroup, self.restart);
		poll_until(polled, (int64_t)mc_now() + interval);
		forward_output(polled);
		receive_requests(polled);
		interval = interval < SECOND / 8 ? interval * 2 : interval;
		if (!is_recorded && (int64_t)mc_now() - start > SECOND / 2)
			is_recorded = write_state("stopping") == 0;
	}
}

static void record_exit(void)
{
	struct mc_spawn *spawn = &self.shared->spawn;
	int has_status = mc_spawn_reap(spawn) == 0, is_oom;

	close_fd(&spawn->pidfd);
	failpoint("reaped");
	self.run.exit_code = !has_status ? 255 : spawn->status < 0 ? 128 - spawn->status : spawn->status;
	self.run.reason = "";
	self.run.finished = realtime();
	self.run.pid = 0;
	self.restart = should_restart();
	kill_remaining();
	failpoint("killed");
	drain();
	self.run.oom_killed = cgroup_oom_kills(self.shared->cgroup) > self.oom_kills;
	is_oom = self.run.oom_killed && self.run.exit_code == 128 + SIGKILL;
	self.run.reason = self.expired ? "timeout" : is_oom ? "oom" : spawn->status < 0 ? "signal" : "exited";
	if (self.run.oom_killed)
		event_write(self.shared, "oom", NULL, 0);
	event_write(self.shared, "die", "exitCode", self.run.exit_code);
}

/* ---- after an end */

/* Waits before a restart; twice as long each time, unless the program ran for STABLE (docker's rule). Returns whether
 * the container is still to be restarted. */
static int wait_backoff(void)
{
	struct pollfd polled[POLLED];
	int64_t until;

	self.backoff = (int64_t)mc_now() - self.started_at >= STABLE ? 0 : self.backoff * 2;
	self.backoff = self.backoff < BACKOFF_LEAST ? BACKOFF_LEAST : self.backoff;
	self.backoff = self.backoff > BACKOFF_MOST ? BACKOFF_MOST : self.backoff;
	write_state("restarting");
	failpoint("restarting");
	until = (int64_t)mc_now() + self.backoff;
	while (!self.control.stopping && (int64_t)mc_now() < until) {
		poll_until(polled, until);
		receive_requests(polled);
	}
	return !self.control.stopping;
}

static void record_failure(int error)
{
	self.run.exit_code = error == -ENOENT ? 127 : error == -EACCES || error == -ENOEXEC ? 126 : 125;
	self.run.reason = "failed";
	self.run.started = self.run.finished = realtime();
	self.run.pid = 0;
	self.started_at = (int64_t)mc_now();
}

static void restart_loop(void)
{
	int r;

	while (self.restart && wait_backoff()) {
		self.run.restarts++;
		failpoint("starting again");
		do
			r = start(&self);
		while (r == -EMFILE && control_drop(&self.control));
		if (r < 0) {
			record_failure(r);
			self.restart = should_restart();
			continue;
		}
		record_start();
		serve();
		record_exit();
	}
}

/* ---- the first start, and the end */

static void finish(void)
{
	struct pollfd polled[POLLED];

	failpoint("finishing");
	end_release(self.shared);
	for (int i = 0; write_state("exited") < 0 && i < STATE_WRITE_TRIES; i++)
		poll_until(polled, (int64_t)mc_now() + SECOND / 10);
	state_unreserve(self.shared);
	failpoint("exited");
	if (self.shared->flags & MC_REMOVE)
		end_remove(self.shared);
}

static void report_start(int r)
{
	const char byte = 1;
	int lock = self.shared->lock;

	if (r == 0) {
		r = self.shared->state_error = record_start();
		failpoint("started");
	}
	if (r < 0) {
		kill_and_reap(&self.shared->spawn);
		state_unreserve(self.shared);
	}
	close_fd(&lock);
	mc_sys3(SYS_write, MC_STARTED_FD, MC_PTR(&byte), 1);
	mc_sys1(SYS_close, MC_STARTED_FD);
	if (r < 0)
		end(1); /* the creator reports the error, and cleans up */
}

/* A container whose socket or state file could not be created is not started. */
static int start_first(void)
{
	int r = self.shared->control_error = control_open(&self.control);

	failpoint("listening");
	if (r == 0)
		r = self.shared->state_error = state_reserve(self.shared);
	return r < 0 ? r : start(&self);
}

__attribute__((noreturn, used)) static void monitor_main(long *stack)
{
	failpoint_init(stack);
	failpoint("entry");
	self.signals = block_signals();
	map_shared();
	mc_sys1(SYS_fchdir, MC_FD(self.shared->directory));
	report_start(start_first());
	serve();
	failpoint("ended");
	record_exit();
	restart_loop();
	finish();
	end(0);
}
