/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/frames.c: the frames of the control port.
 *
 * A port whose host side is closed is always readable (0 bytes), never writable, and polls as POLLHUP
 * (port_fops_poll() of Linux's drivers/char/virtio_console.c).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <time.h>

#include "guest/guest.h"

/* Waits until the port is readable or writable; -EPIPE: it will never be writable. */
static long await(const struct frames *f, short event)
{
	struct pollfd polled = { f->fd, event, 0 };
	long r;

	do
		r = mc_sys5(SYS_ppoll, MC_PTR(&polled), 1, 0, 0, 0);
	while (r == -EINTR);
	if (r >= 0 && event == POLLOUT && polled.revents & (POLLHUP | POLLERR))
		r = -EPIPE;
	return r;
}

/* read(2) or write(2) of all bytes. */
static long transfer(const struct frames *f, long nr, uint64_t at, size_t size)
{
	while (size > 0) {
		long n = mc_sys3(nr, MC_FD(f->fd), at, size);

		if (n == -EAGAIN)
			n = await(f, nr == SYS_read ? POLLIN : POLLOUT);
		else if (n > 0)
			at += (uint64_t)n, size -= (size_t)n;
		else if (n == 0)
			n = -EPIPE;
		if (n < 0 && n != -EINTR)
			return n;
	}
	return 0;
}

long frames_send(const struct frames *f, uint32_t type, const struct part *parts, int count)
{
	struct mc_guest_frame frame = { type, 0 };
	long r;

	for (int i = 0; i < count; i++)
		frame.length += (uint32_t)parts[i].size;
	r = transfer(f, SYS_write, MC_PTR(&frame), sizeof(frame));
	for (int i = 0; i < count && r == 0; i++)
		r = transfer(f, SYS_write, MC_PTR(parts[i].data), parts[i].size);
	return r;
}

long frames_receive_start(const struct frames *f, const struct mc_guest_start **start)
{
	struct mc_guest_frame frame;
	long at, r = transfer(f, SYS_read, MC_PTR(&frame), sizeof(frame));

	if (r < 0)
		return r;
	if (frame.type != MC_GUEST_START || frame.length < sizeof(**start) || frame.length > MC_GUEST_LONGEST)
		return -EPROTO;
	at = mc_sys(SYS_mmap, 0, frame.length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, MC_FD(-1), 0);
	if (at < 0 && at > -4096)
		return at;
	*start = (const struct mc_guest_start *)at;
	r = transfer(f, SYS_read, MC_PTR(*start), frame.length);
	return r == 0 && (*start)->size != frame.length ? -EPROTO : r;
}

static int is_known(const struct mc_guest_frame *frame)
{
	switch (frame->type) {
	case MC_GUEST_SIGNAL:
		return frame->length == sizeof(struct mc_guest_signal);
	case MC_GUEST_RESIZE:
		return frame->length == sizeof(struct mc_guest_size);
	case MC_GUEST_FORGET:
		return frame->length == sizeof(struct mc_guest_forget);
	default:
		return 0;
	}
}

int frames_receive(struct frames *f)
{
	const size_t header = sizeof(f->in.frame);

	for (;;) {
		size_t whole = header;
		long n;

		if (f->have >= header && !is_known(&f->in.frame))
			return -EPROTO;
		if (f->have >= header)
			whole += f->in.frame.length;
		if (f->have == whole && whole > header) {
			f->have = 0;
			return 1;
		}
		n = mc_sys3(SYS_read, MC_FD(f->fd), MC_PTR((char *)&f->in + f->have), whole - f->have);
		if (n == -EAGAIN || n == -EINTR)
			return 0;
		if (n <= 0)
			return n < 0 ? (int)n : -EPIPE;
		f->have += (size_t)n;
	}
}

/* Reads what still comes, and drops it. */
void frames_await_end(const struct frames *f, int64_t ms)
{
	const int64_t until = (int64_t)mc_now() + ms * MS;
	struct pollfd polled = { f->fd, POLLIN, 0 };
	char dropped[256];
	int64_t left;
	long n;

	while ((left = until - (int64_t)mc_now()) > 0) {
		struct timespec t = { left / (1000 * MS), left % (1000 * MS) };

		n = mc_sys3(SYS_read, MC_FD(f->fd), MC_PTR(dropped), sizeof(dropped));
		if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR))
			return;
		if (n < 0)
			mc_sys5(SYS_ppoll, MC_PTR(&polled), 1, MC_PTR(&t), 0, 0);
	}
}
