/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mark.c: the first process of a measured Linux guest (`compare linux`), or the program of a container (`compare
 * microvm`): prints a line, and powers the machine off; where it may not, it ends. It has no libc: only the kernel is
 * measured.
 */
#include <linux/reboot.h>

#include "helpers/start.h"
#include "plan/syscalls.h"

MC_START(mark_main);

static const char mark[] = "minicontainer: init\n";

__attribute__((used, noreturn)) static void mark_main(void)
{
	mc_sys3(SYS_write, 1, MC_PTR(mark), sizeof(mark) - 1);
	mc_sys4(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
	for (;;)
		mc_sys1(SYS_exit_group, 0);
}
