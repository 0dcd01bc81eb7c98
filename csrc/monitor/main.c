/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/main.c: the monitor of a detached container. It holds the container's streams, writes its log, records its
 * end, restarts it, and cleans up.
 *
 * Theory of operation. The creator (detached/monitor.py) prepares the container and starts this program, which walks
 * the plan as the library would (spawn.c) and writes one byte when the first start has succeeded or failed. The monitor
 * is an orphan: no process waits for it. Until the container has ended the monitor waits in one loop (loop.c).
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
#define STABLE (10000 * MS) /* a run of this length resets the backoff */

static struct monitor self = { .creator = MC_STARTED_FD, .report = -1 };

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

static int record_start(void)
{
	int r;

	self.started_at = (int64_t)mc_now();
	self.expire_at = self.shared->timeout_ms ? self.started_at + (int64_t)self.shared->timeout_ms * MS : 0;
	self.run.pid = self.shared->spawn.pid;
	self.run.upper = self.streams.upper;
	self.run.started = realtime();
	self.run.finished = 0;
	r = loop_record(&self, "running");
	if (r == 0 || self.run.restarts)
		event_write(self.shared, "start", NULL, 0);
	return r;
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
	int64_t start = (int64_t)mc_now(), interval = MS;
	int is_recorded = 0;

	while (cgroup_is_populated(self.shared->cgroup)) {
		cgroup_kill(self.shared->cgroup, self.restart);
		loop_poll(&self, (int64_t)mc_now() + interval);
		loop_forward(&self);
		loop_receive(&self);
		interval = interval < SECOND / 8 ? interval * 2 : interval;
		if (!is_recorded && (int64_t)mc_now() - start > SECOND / 2)
			is_recorded = loop_record(&self, "stopping") == 0;
	}
}

/* Of the run that has ended. What a guest has told is cleared at each start (csrc/vmm/report.c). */
static int was_out_of_memory(void)
{
	const struct mc_monitor *shared = self.shared;
	uint32_t guests = 0;

	if (shared->guest >= 0)
		mc_sys4(SYS_pread64, MC_FD(shared->guest), MC_PTR(&guests), sizeof(guests), shared->guest_oom_kills);
	return guests || cgroup_oom_kills(shared->cgroup) > self.oom_kills;
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
	self.run.oom_killed = was_out_of_memory();
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
	int64_t until;

	self.backoff = (int64_t)mc_now() - self.started_at >= STABLE ? 0 : self.backoff * 2;
	self.backoff = self.backoff < BACKOFF_LEAST ? BACKOFF_LEAST : self.backoff;
	self.backoff = self.backoff > BACKOFF_MOST ? BACKOFF_MOST : self.backoff;
	loop_record(&self, "restarting");
	failpoint("restarting");
	until = (int64_t)mc_now() + self.backoff;
	while (!self.control.stopping && (int64_t)mc_now() < until) {
		loop_poll(&self, until);
		loop_receive(&self);
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
		loop_serve(&self);
		record_exit();
	}
}

/* ---- the first start, and the end */

static void finish(void)
{
	failpoint("finishing");
	end_release(self.shared);
	for (int i = 0; loop_record(&self, "exited") < 0 && i < STATE_WRITE_TRIES; i++)
		loop_poll(&self, (int64_t)mc_now() + SECOND / 10);
	state_unreserve(self.shared);
	failpoint("exited");
	if (self.shared->flags & MC_REMOVE)
		end_remove(self.shared);
}

static void report_start(int r)
{
	const char byte = 1;
	int lock = self.shared->lock;

	self.creator = -1;
	if (r == 0) {
		r = self.shared->state_error = record_start();
		failpoint("started");
	}
	if (r < 0) {
		kill_and_reap(&self.shared->spawn);
		state_unreserve(self.shared);
	}
	if (r < 0) { /* the creator reports the error, and cleans up, if it is there */
		if (mc_sys3(SYS_write, MC_STARTED_FD, MC_PTR(&byte), 1) < 0)
			end_release(self.shared);
		end(1);
	}
	close_fd(&lock);
	mc_sys3(SYS_write, MC_STARTED_FD, MC_PTR(&byte), 1);
	mc_sys1(SYS_close, MC_STARTED_FD);
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
	loop_serve(&self);
	failpoint("ended");
	record_exit();
	restart_loop();
	finish();
	end(0);
}
