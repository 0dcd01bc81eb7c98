/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * serve.c: the conversation with the guest's init (csrc/guest/control.h), up to the program's end. The guest is not
 * trusted: every length is checked, and what it says concerns its own program alone.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "vmm/vmm.h"

#define ROOM 0x40000 /* bytes of the longest message of a guest */
#define FAILED 125

struct conversation {
	struct mc_vmm *vmm;
	size_t have;
	uint64_t pending;      /* signals that came before the program ran */
	int has_started;
	_Alignas(8) unsigned char in[ROOM];
};

static struct conversation conversation;

static void send_all(struct mc_vmm *vmm, const void *data, size_t size)
{
	const char *from = data;

	while (size) {
		ssize_t n = send(vmm->control, from, size, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			mc_vmm_fail(vmm, -errno, "send(control)");
		from += n;
		size -= (size_t)n;
	}
}

static void send_frame(struct mc_vmm *vmm, uint32_t type, const void *payload, uint32_t length)
{
	struct mc_guest_frame frame = { type, length };

	send_all(vmm, &frame, sizeof(frame));
	send_all(vmm, payload, length);
}

/* ---- the terminal: the pty of the guest does what terminals do, so this one passes bytes as they are */

static struct mc_guest_size window_of(int terminal)
{
	struct winsize window = { 0 };

	ioctl(terminal, TIOCGWINSZ, &window);
	return (struct mc_guest_size){ window.ws_row, window.ws_col };
}

static void make_raw(struct mc_vmm *vmm)
{
	struct termios modes;

	if (tcgetattr(vmm->terminal, &modes) < 0)
		mc_vmm_fail(vmm, -errno, "tcgetattr()");
	cfmakeraw(&modes);
	if (tcsetattr(vmm->terminal, TCSANOW, &modes) < 0)
		mc_vmm_fail(vmm, -errno, "tcsetattr()");
}

static void send_window(struct mc_vmm *vmm)
{
	struct mc_guest_size window = window_of(vmm->terminal);

	send_frame(vmm, MC_GUEST_RESIZE, &window, sizeof(window));
}

/* ---- what the guest says */

static void on_ready(struct mc_vmm *vmm)
{
	struct mc_guest_start *start = (void *)((char *)vmm->run + vmm->run->start);
	struct timespec now;

	vmm->run->ready_ns = mc_now();
	clock_gettime(CLOCK_REALTIME, &now);
	start->realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
	if (vmm->has_terminal) {
		struct mc_guest_size window = window_of(vmm->terminal);

		start->rows = window.rows;
		start->columns = window.columns;
	}
	send_frame(vmm, MC_GUEST_START, start, vmm->run->start_size);
}

static void keep_records(struct mc_vmm_run *run, const void *from, size_t bytes, uint32_t count)
{
	if (count > bytes / sizeof(struct mc_record))
		count = (uint32_t)(bytes / sizeof(struct mc_record));
	if (count < run->nrecords)
		run->nrecords = count;
	memcpy((char *)run + run->records, from, run->nrecords * sizeof(struct mc_record));
}

static void send_signal(struct mc_vmm *vmm, int number)
{
	struct mc_guest_signal message = { number };

	send_frame(vmm, MC_GUEST_SIGNAL, &message, sizeof(message));
}

static void on_started(struct conversation *c, const unsigned char *payload, uint32_t length)
{
	struct mc_vmm_run *run = c->vmm->run;

	memcpy(&run->guest, payload, sizeof(run->guest));
	keep_records(run, payload + sizeof(run->guest), length - sizeof(run->guest), run->guest.nrecords);
	run->started_ns = mc_now();
	run->started = c->has_started = 1;
	mc_vmm_report_start(run);
	if (c->vmm->has_terminal)
		send_window(c->vmm); /* it may have changed */
	for (int number = 1; number < 64; number++)
		if (c->pending >> number & 1)
			send_signal(c->vmm, number);
}

__attribute__((noreturn)) static void on_failed(struct mc_vmm *vmm, const unsigned char *payload, uint32_t length)
{
	struct mc_vmm_run *run = vmm->run;
	size_t left = length - sizeof(run->failure), records, text;

	memcpy(&run->failure, payload, sizeof(run->failure));
	if (run->failure.program.length > MC_HEAD)
		run->failure.program.length = MC_HEAD;
	payload += sizeof(run->failure);
	records = run->failure.nrecords;
	records = records < left / sizeof(struct mc_record) ? records * sizeof(struct mc_record) : 0;
	keep_records(run, payload, records, run->failure.nrecords);
	text = left - records < run->failure.length ? left - records : run->failure.length;
	text = text < sizeof(run->text) - 1 ? text : sizeof(run->text) - 1;
	memcpy(run->text, payload + records, text);
	run->failed = 1;
	mc_vmm_exit(vmm, FAILED);
}

__attribute__((noreturn)) static void on_exited(struct mc_vmm *vmm, const unsigned char *payload)
{
	struct mc_vmm_run *run = vmm->run;
	int status;

	memcpy(&run->exit, payload, sizeof(run->exit));
	run->exited_ns = mc_now();
	status = run->exit.status;
	mc_console_drain(vmm->console, -1);
	run->exited = 1;
	mc_vmm_exit(vmm, status < 0 ? 128 - status : status);
}

/* Handles one message. Returns whether it is one. */
static int on_frame(struct conversation *c, uint32_t type, const unsigned char *payload, uint32_t length)
{
	switch (type) {
	case MC_GUEST_READY:
		if (length != sizeof(struct mc_guest_ready) || c->vmm->run->ready_ns)
			return 0;
		on_ready(c->vmm);
		return 1;
	case MC_GUEST_STARTED:
		if (length < sizeof(struct mc_guest_started) || c->has_started)
			return 0;
		on_started(c, payload, length);
		return 1;
	case MC_GUEST_FAILED:
		if (length < sizeof(struct mc_guest_failed))
			return 0;
		on_failed(c->vmm, payload, length);
	case MC_GUEST_EXITED:
		if (length != sizeof(struct mc_guest_exited) || !c->has_started)
			return 0;
		on_exited(c->vmm, payload);
	}
	return 0;
}

/* Returns whether more may come. */
static int read_control(struct conversation *c)
{
	struct mc_guest_frame frame;
	ssize_t n = recv(c->vmm->control, c->in + c->have, ROOM - c->have, MSG_DONTWAIT);
	size_t size;

	if (n < 0 && errno != EAGAIN && errno != EINTR)
		mc_vmm_fail(c->vmm, -errno, "recv(control)");
	if (n == 0)
		return 0; /* the guest has closed its port: its end will follow */
	c->have += n > 0 ? (size_t)n : 0;
	while (c->have >= sizeof(frame)) {
		memcpy(&frame, c->in, sizeof(frame));
		if (frame.length > ROOM - sizeof(frame))
			mc_vmm_fail(c->vmm, -EPROTO, "the guest's init: a message of %u bytes", frame.length);
		size = sizeof(frame) + frame.length;
		if (c->have < size)
			break;
		if (!on_frame(c, frame.type, c->in + sizeof(frame), frame.length))
			mc_vmm_fail(c->vmm, -EPROTO, "the guest's init: message %u", frame.type);
		c->have -= size;
		memmove(c->in, c->in + size, c->have);
	}
	return 1;
}

/* ---- signals */

static void read_signals(struct conversation *c, int signals)
{
	struct signalfd_siginfo info;

	while (read(signals, &info, sizeof(info)) == sizeof(info)) {
		int number = (int)info.ssi_signo;

		if (number == SIGCHLD || (number == SIGWINCH && c->vmm->has_terminal && !c->has_started))
			continue;
		if (number == SIGWINCH && c->vmm->has_terminal) {
			send_window(c->vmm);
			continue;
		}
		if (c->has_started)
			send_signal(c->vmm, number);
		else if (number < 64)
			c->pending |= 1ull << number;
	}
}

/* Before the program runs, the guest expects nothing of the kind. */
static void on_scarce(struct conversation *c)
{
	const struct mc_guest_forget everything = { 3 };
	eventfd_t times;

	if (eventfd_read(c->vmm->scarce, &times) == 0 && c->has_started)
		send_frame(c->vmm, MC_GUEST_FORGET, &everything, sizeof(everything));
}

/* The guest has broken a rule of virtio. Its kernel does not do that by itself. */
__attribute__((noreturn)) static void on_broken(struct mc_vmm *vmm)
{
	for (int i = 0; i < (int)vmm->machine->ndevices; i++)
		if (vmm->devices[i]->broken)
			mc_vmm_fail(vmm, -EPROTO, "%s: %s", vmm->devices[i]->type->name, vmm->devices[i]->broken);
	mc_vmm_fail(vmm, -EPROTO, "a device");
}

void mc_vmm_serve(struct mc_vmm *vmm, int signals)
{
	struct pollfd fds[] = {
		{ .fd = vmm->control, .events = POLLIN },
		{ .fd = signals, .events = POLLIN },
		{ .fd = vmm->alarm, .events = POLLIN },
		{ .fd = vmm->ended, .events = POLLIN },
		{ .fd = vmm->scarce, .events = POLLIN },
	};
	struct conversation *c = &conversation;

	c->vmm = vmm;
	if (vmm->has_terminal)
		make_raw(vmm);
	mc_vmm_confine(vmm, MC_ROLE_MAIN);
	for (;;) {
		if (poll(fds, sizeof(fds) / sizeof(fds[0]), -1) < 0 && errno != EINTR)
			mc_vmm_fail(vmm, -errno, "poll()");
		if (fds[0].revents && !read_control(c))
			fds[0].fd = -1;
		if (fds[1].revents)
			read_signals(c, signals);
		if (fds[2].revents)
			on_broken(vmm);
		if (fds[3].revents)
			mc_vmm_exit(vmm, FAILED); /* without a word of its init */
		if (fds[4].revents)
			on_scarce(c);
	}
}
