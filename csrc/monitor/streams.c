/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * monitor/streams.c: the program's streams. Output is read as soon as it is available. Input that a client has sent is
 * buffered in `input` until the program reads it; no more input is received meanwhile.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "helpers/received.h"
#include "monitor/monitor.h"

#ifndef TIOCGPTPEER
#include <asm/ioctls.h>
#endif

static void nonblocking(int fd)
{
	mc_sys3(SYS_fcntl, MC_FD(fd), F_SETFL, (uint64_t)mc_sys3(SYS_fcntl, MC_FD(fd), F_GETFL, 0) | O_NONBLOCK);
}

/* Makes a pipe; the monitor's end is nonblocking. */
static int make_pipe(int *monitor_end, int *child_end, int monitor_reads)
{
	int ends[2];
	long r = mc_sys2(SYS_pipe2, MC_PTR(ends), O_CLOEXEC);

	if (r < 0)
		return (int)r;
	*monitor_end = ends[!monitor_reads];
	*child_end = ends[monitor_reads];
	nonblocking(*monitor_end);
	return 0;
}

/* Opens the streams of one start. The child's ends go into the slots of its plan, and into `child_ends` (three streams
 * and one end of a socket), which the caller closes. Returns the monitor's end of the socket, -1 without one,
 * -errno - 1 on failure. */
int streams_open(struct mc_monitor *shared, struct streams *s, int child_ends[4])
{
	int32_t *slots = shared->spawn.run.slots;
	int sockets[2] = { -1, -1 };
	long r = 0;

	s->in = s->out = s->err = s->peer = s->upper = -1;
	s->input_start = s->input_end = 0;
	s->input_eof = 0;
	for (int i = 0; i < 4; i++)
		child_ends[i] = -1;
	if (shared->socket >= 0)
		r = mc_sys4(SYS_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, MC_PTR(sockets));
	child_ends[3] = sockets[1];
	if (shared->socket >= 0)
		slots[shared->socket] = sockets[1];
	if (r == 0 && !(shared->flags & MC_TERMINAL)) {
		if (shared->flags & MC_INTERACTIVE)
			r = make_pipe(&s->in, &child_ends[0], 0);
		else
			r = child_ends[0] = (int)mc_sys3(SYS_fcntl, 0, F_DUPFD_CLOEXEC, MC_FIRST_FREE_FD);
		if (r >= 0)
			r = make_pipe(&s->out, &child_ends[1], 1);
		if (r == 0)
			r = make_pipe(&s->err, &child_ends[2], 1);
		slots[shared->in] = child_ends[0];
		slots[shared->out] = child_ends[1];
		slots[shared->err] = child_ends[2];
	}
	return r < 0 ? (int)r - 1 : sockets[0];
}

/* Receives the descriptors that the child has sent before its exec. */
int streams_receive(struct mc_monitor *shared, struct streams *s, int socket)
{
	if (shared->flags & MC_UPPER && (s->upper = mc_receive_fd(socket)) < 0)
		return -EPROTO;
	if (shared->flags & MC_TERMINAL) {
		s->out = mc_receive_fd(socket);
		if (s->out < 0)
			return -EPROTO;
		nonblocking(s->out);
		s->peer = (int)mc_sys3(SYS_ioctl, MC_FD(s->out), TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
	}
	return 0;
}

int streams_read(int fd, const char *name, struct log *log)
{
	static char data[16000]; /* at most half of the log's buffer (log_write) */
	long n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(data), sizeof(data));

	if (n > 0)
		log_write(log, name, data, (size_t)n);
	return n > 0 ? 2 : n == -EAGAIN || n == -EINTR;
}

void streams_write_input(struct streams *s)
{
	int *to = s->peer >= 0 ? &s->out : &s->in;

	while (s->input_start < s->input_end && *to >= 0) {
		const uint32_t left = s->input_end - s->input_start;
		long n = mc_sys3(SYS_write, MC_FD(*to), MC_PTR(s->input + s->input_start), left);

		if (n == -EAGAIN || n == -EINTR)
			return;
		s->input_start += n < 0 ? left : (uint32_t)n; /* on failure the program has closed its input */
	}
	s->input_start = s->input_end = 0;
	if (s->input_eof)
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
