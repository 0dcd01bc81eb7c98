/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mark.c: the first process of a Linux guest that is measured (`compare linux`): says that it is there, and switches the
 * machine off. No libc: what is measured is the kernel.
 */
#include <linux/reboot.h>

#include "syscalls.h"

#ifdef __x86_64__
__asm__(".globl _start\n_start:\n	and $-16, %rsp\n	call mark_main\n	hlt\n"); /* the ABI's alignment */
#else
__asm__(".globl _start\n_start:\n	bl mark_main\n");
#endif

static const char mark[] = "minicontainer: init\n";

__attribute__((used, noreturn)) static void mark_main(void)
{
	mc_sys3(SYS_write, 1, MC_PTR(mark), sizeof(mark) - 1);
	for (;;)
		mc_sys4(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
}
