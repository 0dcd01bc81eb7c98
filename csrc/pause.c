/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pause.c: reads standard input to its end, and ends with 0. A few hundred bytes with no libc: what it costs to run is
 * what it costs to exec. With /dev/null it is the smallest program to measure a container by; with a pipe, a process
 * that stays while it is looked at.
 */
#include "syscalls.h"

#ifdef __x86_64__
__asm__(".globl _start\n_start:\n	and $-16, %rsp\n	call pause_main\n	hlt\n"); /* the ABI's alignment */
#else
__asm__(".globl _start\n_start:\n	bl pause_main\n");
#endif

__attribute__((used, noreturn)) static void pause_main(void)
{
	char byte;

	while (mc_sys3(SYS_read, 0, MC_PTR(&byte), 1) > 0)
		;
	for (;;)
		mc_sys1(SYS_exit_group, 0);
}
