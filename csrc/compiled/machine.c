/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/machine.c: a machine (--isolation kvm): the child is its monitor, csrc/vmm, which gets what
 * minicontainer/container/machine/start.py gives it. It says by a pipe whether the program runs.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>

#include "compiled/opened.h"
#include "vmm/machine.h"

#define BOOT_MAX 300 /* seconds, as start.py */
#define TOO_LONG "its program does not run after 300 s"

/* The files of the kernel. Each plan has the same inputs: the data stands for a file that there is not. */
static int open_files(struct runner *r, struct opened *o, int32_t data)
{
	const struct mc_machine_file *files = at(r->c, r->c->machine.files.at);
	int32_t *slots = r->spawn->run.slots;

	for (uint32_t i = 0; i < MC_MACHINE_FILES; i++) {
		int32_t fd = data;

		if (i < r->c->machine.files.count) {
			fd = kvm_open_file(r->c, files + i);
			if (fd < 0)
				return FAILED;
			fd = opened_keep(o, fd, ABOVE_PLAN, 1);
		}
		if (fd < 0)
			return complain_errno("descriptors", NULL, fd, NULL);
		slots[r->guest->files[i]] = fd;
	}
	return 0;
}

int machine_open(struct runner *r, struct opened *o)
{
	const struct mc_machine_part *m = &r->c->machine;
	const struct mc_guest_part *g = r->guest;
	int32_t *slots = r->spawn->run.slots;
	int pair[2], kvm = kvm_open(r->c);
	long e;

	if (kvm < 0)
		return FAILED;
	e = slots[g->kvm] = opened_keep(o, kvm, ABOVE_PLAN, 1);
	if (e >= 0)
		e = slots[g->machine] = opened_sealed(o, "minicontainer-machine", r->c, m->data);
	if (e >= 0)
		e = slots[g->program] = opened_sealed(o, "minicontainer-vmm", r->c, m->program);
	if (e >= 0)
		e = slots[g->run] = opened_keep(o, r->machine_fd, ABOVE_PLAN, 1);
	if (e >= 0 && (e = mc_sys2(SYS_pipe2, MC_PTR(pair), O_CLOEXEC)) >= 0) {
		r->report = pair[0];
		e = slots[g->report] = opened_keep(o, pair[1], ABOVE_PLAN, 1);
	}
	return e < 0 ? complain_errno("descriptors", NULL, e, NULL) : open_files(r, o, slots[g->machine]);
}

static void note_phases(struct runner *r)
{
	static const char *const names[] = { "the monitor makes the machine", "the kernel boots, init loads modules",
					     "init starts the program" };
	const struct mc_vmm_run *m = r->machine;
	const uint64_t times[] = { m->entered_ns, m->booted_ns, m->ready_ns, m->started_ns };

	for (int i = 0; i < 3; i++) {
		const struct mc_record record = { times[i], times[i + 1], 0 };

		if (record.start_ns && record.end_ns)
			note_record(r, "machine", names[i], &record);
	}
}

/* Waits for a report, or for the end of the monitor. Returns whether there is one. */
static int await_report(struct runner *r)
{
	const int64_t until = (int64_t)mc_now() + BOOT_MAX * SECOND;
	struct pollfd polled[] = { { r->report, POLLIN, 0 }, { r->signals, POLLIN, 0 } };

	while (!polled[0].revents && !r->given_up) {
		const int64_t left = until - (int64_t)mc_now();
		const struct timespec t = { left / SECOND, left % SECOND };

		if (left <= 0)
			return 0;
		mc_sys5(SYS_ppoll, MC_PTR(polled), 2, MC_PTR(&t), 0, 0);
		if (polled[1].revents)
			signals_receive(r);
	}
	return 1;
}

int machine_await(struct runner *r)
{
	int has_report;

	r->is_booting = 1;
	has_report = await_report(r);
	mc_sys1(SYS_close, MC_FD(r->report));
	note_phases(r);
	if (r->given_up)
		return 128 + r->given_up;
	if (!has_report)
		return complain("machine", NULL, TOO_LONG, NULL);
	if (!r->machine->started)
		return ended_before(r);
	signals_resume(r);
	return 0;
}
