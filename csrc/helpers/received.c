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

/* The pipe is empty, or the error is 0, if the program runs. Init may write more than once before it closes the pipe,
 * so the pipe is read only then. */
int mc_receive_report(int fd, struct mc_program *program)
{
	struct {
		int32_t error;
		struct mc_program program;
	} report = { 0 };
	struct pollfd end = { .fd = fd }; /* POLLHUP alone */
	long n;

	do
		n = mc_sys5(SYS_ppoll, MC_PTR(&end), 1, 0, 0, 0);
	while (n == -EINTR);
	do
		n = mc_sys3(SYS_read, MC_FD(fd), MC_PTR(&report), sizeof(report));
	while (n == -EINTR);
	if (n > 0)
		*program = report.program;
	return n > 0 ? -report.error : 0;
}

int mc_walk_error(const struct mc_run *run)
{
	if (run->failed >= 0)
		return (int)run->records[run->failed].result;
	return run->at + 1 < (int64_t)run->plan->nsteps ? -ECANCELED : 0;
}
