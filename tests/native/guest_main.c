/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest_main.c: what the init of a microVM's guest (csrc/guest/) does from READY to the end, without a machine:
 *
 *     guest-main CONTROL STDIN STDOUT STDERR LISTENER HELPER VMSTAT
 *
 * The arguments are descriptors, all but the last two nonblocking; HELPER, and VMSTAT in place of /proc/vmstat, may be "-". It must be process 1 of a pid
 * namespace, since init kills all processes that it sees. A root and a clock of START are refused. In place of vsock
 * (guest/vsock.c) there are Unix sockets: a port is a name of the kernel's choice (unix(7), autobind).
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/close_range.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "guest/guest.h"
#include "helpers/start.h"
#include "plan/dumpable.h"

MC_START(test_main);

static struct guest guest;

void mc_dumpable_save(void)
{
}

void mc_dumpable_restore(void)
{
}

int vsock_listen(uint32_t *port)
{
	struct sockaddr_un at = { .sun_family = AF_UNIX };
	uint32_t size = sizeof(at);
	long fd = mc_sys3(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	if (mc_sys3(SYS_bind, fd, MC_PTR(&at), sizeof(sa_family_t)) < 0 || mc_sys2(SYS_listen, fd, 9) < 0)
		return -EINVAL;
	mc_sys3(SYS_getsockname, fd, MC_PTR(&at), MC_PTR(&size));
	*port = 0;
	for (int i = 1; i < 6; i++) /* of five hexadecimal digits */
		*port = *port << 4 | (uint32_t)(at.sun_path[i] % 32 + 9 * (at.sun_path[i] / 97)) % 16;
	return (int)fd;
}

int vsock_accept(int listener)
{
	return (int)mc_sys4(SYS_accept4, MC_FD(listener), 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

__attribute__((noreturn)) static void end(int status)
{
	for (;;)
		mc_sys1(SYS_exit_group, (uint64_t)status);
}

static int number(const char *text)
{
	int n = 0;

	for (; *text >= '0' && *text <= '9'; text++)
		n = 10 * n + *text - '0';
	return *text ? -1 : n;
}

__attribute__((noreturn, used)) static void test_main(long *stack)
{
	char **argv = (char **)(stack + 1);
	struct guest *g = &guest;
	long r;

	if (stack[0] != 8 || mc_sys0(SYS_getpid) != 1)
		end(125);
	guest_init(g);
	g->entry_ns = boottime();
	g->control.fd = number(argv[1]);
	for (int i = 0; i < 3; i++)
		g->ports[i] = number(argv[2 + i]);
	g->opened = (int64_t)mc_now();
	g->listener = number(argv[5]);
	g->accept = exec_accept;
	g->helper = number(argv[6]);
	g->vmstat = number(argv[7]);
	mc_sys3(SYS_close_range, 3, ~0u, CLOSE_RANGE_CLOEXEC);
	r = signals_open(g);
	if (r == 0)
		r = start_receive(g);
	if (r == 0 && (g->start->tag || g->start->realtime_ns))
		r = report(g, "START", "no machine", -EINVAL);
	if (r == 0)
		r = program_start(g);
	if (r == 0)
		r = serve(g);
	report_end(g);
	end(r == 0 ? 0 : g->is_hung_up ? 2 : 1);
}
