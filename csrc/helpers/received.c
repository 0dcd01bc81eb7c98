/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * received.c: what a child sends to the process that started it, before its program runs: descriptors (MC_SEND_FD),
 * and the report of init.c.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "helpers/received.h"
#include "plan/syscalls.h"

struct report {
	int32_t error; /* 0: the program runs */
	struct mc_program program;
};

int mc_receive_fd(int socket)
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

/* Init may write more than once before it closes the pipe, so the pipe is read only then. Returns whether there was a
 * report. */
static int receive(int fd, struct report *report)
{
	struct pollfd end = { .fd = fd }; /* POLLHUP alone */
	long n;

	do
		n = mc_sys5(SYS_ppoll, MC_PTR(&end), 1, 0, 0, 0);
	while (n == -EINTR);
	do
		n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(report), sizeof(*report));
	while (n == -EINTR);
	return n > 0;
}

int mc_receive_report(int fd, struct mc_program *program)
{
	struct report report = { 0 };

	if (receive(fd, &report))
		*program = report.program;
	return -report.error;
}

int mc_receive_answer(int fd, struct mc_program *program)
{
	struct report report = { 0 };

	if (!receive(fd, &report))
		return -ECANCELED;
	*program = report.program;
	return -report.error;
}

int mc_walk_error(const struct mc_run *run)
{
	if (run->failed >= 0)
		return (int)run->records[run->failed].result;
	return run->at + 1 < (int64_t)run->plan->nsteps ? -ECANCELED : 0;
}
