/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/streams.c: the program's streams. Ours of its output are read as soon as there is something; what is said to its
 * input is kept (`input`) until it takes that, and more is not listened to meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "monitor/monitor.h"

#ifndef TIOCGPTPEER
#include <asm/ioctls.h>
#endif

void close_fd(int *fd)
{
	if (*fd >= 0)
		mc_sys1(SYS_close, MC_FD(*fd));
	*fd = -1;
}

static void nonblocking(int fd)
{
	mc_sys3(SYS_fcntl, MC_FD(fd), F_SETFL, (uint64_t)mc_sys3(SYS_fcntl, MC_FD(fd), F_GETFL, 0) | O_NONBLOCK);
}

/* A pipe: `ours` and `theirs` get its ends. */
static int make_pipe(int *ours, int *theirs, int we_read)
{
	int ends[2];
	long r = mc_sys2(SYS_pipe2, MC_PTR(ends), O_CLOEXEC);

	if (r < 0)
		return (int)r;
	*ours = ends[!we_read];
	*theirs = ends[we_read];
	nonblocking(*ours);
	return 0;
}

/* Opens what this start needs: the program's ends go into the slots of its plan, and are also in `theirs` (three of its
 * streams, and the end of a socket), to be closed; returns our end of the socket, -1 without one, or -errno below that. */
int streams_open(struct mc_monitor *told, struct streams *s, int theirs[4])
{
	int32_t *slots = told->spawn.run.slots;
	int sockets[2] = { -1, -1 };
	long r = 0;

	s->in = s->out = s->err = s->peer = s->upper = -1;
	s->begin = s->filled = 0;
	s->input_ends = 0;
	for (int i = 0; i < 4; i++)
		theirs[i] = -1;
	if (told->socket >= 0)
		r = mc_sys4(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, MC_PTR(sockets));
	theirs[3] = sockets[1];
	if (told->socket >= 0)
		slots[told->socket] = sockets[1];
	if (r == 0 && !(told->wishes & MC_TERMINAL)) {
		if (told->wishes & MC_INTERACTIVE)
			r = make_pipe(&s->in, &theirs[0], 0);
		else
			r = theirs[0] = (int)mc_sys3(SYS_fcntl, 0, F_DUPFD_CLOEXEC, MC_FIRST_FREE);
		if (r >= 0)
			r = make_pipe(&s->out, &theirs[1], 1);
		if (r == 0)
			r = make_pipe(&s->err, &theirs[2], 1);
		slots[told->in] = theirs[0];
		slots[told->out] = theirs[1];
		slots[told->err] = theirs[2];
	}
	return r < 0 ? (int)r - 1 : sockets[0];
}

static int receive(int socket)
{
	union {
		struct cmsghdr align;
		char bytes[CMSG_SPACE(sizeof(int))];
	} control;
	char byte;
	struct iovec iov = { &byte, 1 };
	struct msghdr msg = { .msg_iov = &iov,
			      .msg_iovlen = 1,
			      .msg_control = control.bytes,
			      .msg_controllen = sizeof(control.bytes) };
	int fd = -1;

	if (mc_sys3(SYS_recvmsg, MC_FD(socket), MC_PTR(&msg), MSG_DONTWAIT | MSG_CMSG_CLOEXEC) > 0 &&
	    msg.msg_controllen >= CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(&control.align), sizeof(fd));
	return fd;
}

/* What the child sent before it became the program. */
int streams_take(struct mc_monitor *told, struct streams *s, int socket)
{
	if (told->wishes & MC_UPPER && (s->upper = receive(socket)) < 0)
		return -EPROTO;
	if (told->wishes & MC_TERMINAL) {
		s->out = receive(socket);
		if (s->out < 0)
			return -EPROTO;
		nonblocking(s->out);
		s->peer = (int)mc_sys3(SYS_ioctl, MC_FD(s->out), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	}
	return 0;
}

int streams_move(int fd, const char *name, struct log *log)
{
	static char data[16000]; /* log_write takes no more at once */
	long n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(data), sizeof(data));

	if (n > 0)
		log_write(log, name, data, (size_t)n);
	return n > 0 ? 2 : n == -EAGAIN || n == -EINTR;
}

void streams_feed(struct streams *s)
{
	int *to = s->peer >= 0 ? &s->out : &s->in;

	while (s->begin < s->filled && *to >= 0) {
		long n = mc_sys3(SYS_write, MC_FD(*to), MC_PTR(s->input + s->begin), s->filled - s->begin);

		if (n == -EAGAIN || n == -EINTR)
			return;
		s->begin = n < 0 ? s->filled : s->begin + (uint32_t)n; /* nobody reads it any more */
	}
	s->begin = s->filled = 0;
	if (s->input_ends)
		close_fd(&s->in);
}

void streams_close(struct streams *s)
{
	close_fd(&s->in);
	close_fd(&s->out);
	close_fd(&s->err);
	close_fd(&s->peer);
	close_fd(&s->upper);
}
