/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mark.c: the first process of a Linux guest that is measured (`compare linux`): says that it is there, and switches the
 * machine off. No libc: what is measured is the kernel.
 */
#include <linux/reboot.h>

#include "helpers/start.h"
#include "plan/syscalls.h"

MC_START(mark_main);

static const char mark[] = "minicontainer: init\n";

__attribute__((used, noreturn)) static void mark_main(void)
{
	mc_sys3(SYS_write, 1, MC_PTR(mark), sizeof(mark) - 1);
	for (;;)
		mc_sys4(SYS_reboot, LINUX_REBOOT_MAGIC1, LINUX_REBOOT_MAGIC2, LINUX_REBOOT_CMD_POWER_OFF, 0);
}
