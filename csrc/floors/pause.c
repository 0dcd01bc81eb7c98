/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pause.c: reads standard input to its end, and ends with 0; with an argument it sleeps for ever. A few hundred bytes
 * with no libc: what it costs to run is what it costs to exec. With /dev/null it is the smallest program to measure a
 * container by; with a pipe, a process that stays while it is looked at.
 */
#include "helpers/start.h"
#include "plan/syscalls.h"

MC_START(pause_main);

__attribute__((used, noreturn)) static void pause_main(const long *stack)
{
	char byte;

	while (stack[0] > 1)
		mc_sys4(SYS_ppoll, 0, 0, 0, 0);
	while (mc_sys3(SYS_read, 0, MC_PTR(&byte), 1) > 0)
		;
	for (;;)
		mc_sys1(SYS_exit_group, 0);
}
