/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest/vsock.c: sockets to the host (vsock(7)). With the module vsock_loopback, processes of the guest can connect
 * too: they are not heard.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <sys/socket.h>

#include <linux/vm_sockets.h>

#include "guest/guest.h"
#include "monitor/cgroup.h"

#define WAITING 64 /* connections that are not accepted yet */

static long listen_at(int fd, uint32_t *port)
{
	struct sockaddr_vm at = { .svm_family = AF_VSOCK, .svm_port = *port, .svm_cid = VMADDR_CID_ANY };
	uint32_t size = sizeof(at);
	long r = mc_sys3(SYS_bind, MC_FD(fd), MC_PTR(&at), sizeof(at));

	if (r == 0)
		r = mc_sys2(SYS_listen, MC_FD(fd), WAITING);
	if (r == 0)
		r = mc_sys3(SYS_getsockname, MC_FD(fd), MC_PTR(&at), MC_PTR(&size));
	*port = at.svm_port;
	return r;
}

int vsock_listen(uint32_t *port)
{
	int fd = (int)mc_sys3(SYS_socket, AF_VSOCK, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	long r = fd < 0 ? fd : listen_at(fd, port);

	if (r < 0)
		close_fd(&fd);
	return r < 0 ? (int)r : fd;
}

int vsock_accept(int listener)
{
	struct sockaddr_vm from = { .svm_cid = VMADDR_CID_ANY };
	uint32_t size = sizeof(from);
	int fd = (int)mc_sys4(SYS_accept4, MC_FD(listener), MC_PTR(&from), MC_PTR(&size), SOCK_NONBLOCK | SOCK_CLOEXEC);

	if (fd >= 0 && from.svm_cid != VMADDR_CID_HOST) {
		close_fd(&fd);
		return -EACCES;
	}
	return fd;
}
