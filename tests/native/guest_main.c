/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest_main.c: what the init of a microVM's guest (csrc/guest/) does from READY to the end, without a machine:
 *
 *     guest-main CONTROL STDIN STDOUT STDERR HELPER
 *
 * The arguments are descriptors, all but HELPER nonblocking; HELPER may be "-". It must be process 1 of a pid
 * namespace, since init kills all processes that it sees. A root and a clock of START are refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/close_range.h>

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

	if (stack[0] != 6 || mc_sys0(SYS_getpid) != 1)
		end(125);
	guest_init(g);
	g->entry_ns = boottime();
	g->control.fd = number(argv[1]);
	for (int i = 0; i < 3; i++)
		g->ports[i] = number(argv[2 + i]);
	g->opened = (int64_t)mc_now();
	g->helper = number(argv[5]);
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
