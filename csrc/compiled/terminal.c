/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/terminal.c: passes the caller's terminal through to the container's pty (minicontainer/cli/terminal.py): raw
 * mode, window size, and restoration at the end.
 *
 * It reads no more than it can buffer, so a fast writer waits for a slow reader. It writes to the caller's terminal
 * through a second, non-blocking file description: a stopped terminal (Ctrl-S) does not delay signals or the time-out.
 * It also holds the container's end of the pty open, so that the pty lives as long as the container.
 */
#define _GNU_SOURCE
#include <asm/ioctls.h>
#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "compiled/compiled.h"

enum { INPUT, MASTER_IN, MASTER_OUT, OUTPUT, POLLED };

struct buffer {
	size_t start, end;
	char data[65536];
};

static struct buffer to_master, to_out;
static struct termios saved;
static int master = -1, out = 1, peer = -1, is_saved, input_ended, has_hung_up;

/* Returns -EAGAIN, or how much was read; 0: the end (EIO: the terminal is gone). */
static long fill(struct buffer *b, int fd)
{
	long n;

	if (b->start == b->end)
		b->start = b->end = 0;
	n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(b->data + b->end), sizeof(b->data) - b->end);
	b->end += n > 0 ? (size_t)n : 0;
	return n == -EAGAIN || n == -EINTR ? -EAGAIN : n < 0 ? 0 : n;
}

/* Returns whether the other side is still there. */
static int drain(struct buffer *b, int fd)
{
	const size_t most = fd == 1 ? 4096 : sizeof(b->data); /* 1: in blocking mode */
	const size_t size = b->end - b->start < most ? b->end - b->start : most;
	long n = mc_sys3(SYS_write, MC_FD(fd), MC_PTR(b->data + b->start), size);

	b->start += n > 0 ? (size_t)n : 0;
	return n >= 0 || n == -EAGAIN || n == -EINTR;
}

int terminal_fill(void)
{
	return to_out.start < to_out.end || fill(&to_out, master) > 0;
}

int terminal_output(void)
{
	return out;
}

void terminal_show(void)
{
	if (!drain(&to_out, out)) {
		to_out.start = to_out.end;
		has_hung_up = 1;
	}
}

void terminal_begin(struct runner *r)
{
	const long flags = mc_sys3(SYS_fcntl, MC_FD(r->terminal), F_GETFL, 0);

	master = r->terminal;
	mc_sys3(SYS_fcntl, MC_FD(master), F_SETFL, (uint64_t)flags | O_NONBLOCK);
	peer = (int)mc_sys3(SYS_ioctl, MC_FD(master), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	out = (int)mc_sys4(SYS_openat, MC_FD(AT_FDCWD), MC_PTR("/proc/self/fd/1"),
			   O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC, 0);
	if (out < 0)
		out = 1; /* another user's terminal: written in blocking mode */
	is_saved = mc_sys3(SYS_ioctl, 0, TCGETS, MC_PTR(&saved)) == 0;
	terminal_resume(r);
}

/* Sets raw mode (cfmakeraw(3)) and size: at the start, and after a stop (the shell changes the mode meanwhile). */
void terminal_resume(struct runner *r)
{
	struct termios raw;

	if (r->terminal < 0 || mc_sys3(SYS_ioctl, 0, TCGETS, MC_PTR(&raw)) < 0)
		return;
	raw.c_iflag &= (tcflag_t) ~(IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON);
	raw.c_oflag &= (tcflag_t)~OPOST;
	raw.c_lflag &= (tcflag_t) ~(ECHO | ECHONL | ICANON | ISIG | IEXTEN);
	raw.c_cflag &= (tcflag_t) ~(CSIZE | PARENB);
	raw.c_cflag |= CS8;
	raw.c_cc[VMIN] = 1;
	raw.c_cc[VTIME] = 0;
	mc_sys3(SYS_ioctl, 0, TCSETS, MC_PTR(&raw));
	terminal_resize(r);
}

void terminal_resize(struct runner *r)
{
	uint16_t size[4];

	if (r->terminal >= 0 && mc_sys3(SYS_ioctl, 1, TIOCGWINSZ, MC_PTR(size)) == 0)
		mc_sys3(SYS_ioctl, MC_FD(r->terminal), TIOCSWINSZ, MC_PTR(size));
}

static int has_room(const struct buffer *b)
{
	return b->start == b->end || b->end < sizeof(b->data);
}

size_t terminal_polled(struct pollfd *polled)
{
	if (!input_ended && has_room(&to_master))
		polled[INPUT] = (struct pollfd){ 0, POLLIN, 0 };
	if (has_room(&to_out))
		polled[MASTER_IN] = (struct pollfd){ master, POLLIN, 0 };
	if (to_master.start < to_master.end)
		polled[MASTER_OUT] = (struct pollfd){ master, POLLOUT, 0 };
	if (to_out.start < to_out.end)
		polled[OUTPUT] = (struct pollfd){ out, POLLOUT, 0 };
	return POLLED;
}

int terminal_move(struct runner *r, const struct pollfd *polled)
{
	int events = 0;

	if (polled[INPUT].revents) {
		long n = fill(&to_master, 0);

		input_ended = n == 0;
		has_hung_up |= n == 0;
		drain(&to_master, master);
		if (n > 0 && is_second_interrupt(r, to_master.data + to_master.end - n, (size_t)n))
			events |= TERMINAL_INTERRUPTED;
	} else if (polled[MASTER_OUT].revents) {
		drain(&to_master, master);
	}
	if (polled[MASTER_IN].revents)
		fill(&to_out, master);
	if (polled[OUTPUT].revents)
		terminal_show();
	return events | (has_hung_up ? TERMINAL_HUNG_UP : 0);
}

void terminal_end(void)
{
	if (is_saved)
		mc_sys3(SYS_ioctl, 0, TCSETS, MC_PTR(&saved));
}
