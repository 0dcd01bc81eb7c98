/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * ports.c: the few ports of a PC that Linux uses on a machine like this (beside the serial port, csrc/kvm/serial.c):
 * those that end the machine, and a clock that says that no update is in progress, for which Linux would wait.
 * minicontainer/kvm/devices.py and rtc.py are the same for kvm-boot.
 */
#include <linux/kvm.h>

#include "kvm/vcpu.h"
#include "vmm/vmm.h"

#define I8042_COMMAND 0x64
#define I8042_RESET 0xfe
#define SYSTEM_CONTROL 0x92
#define A20 2
#define RESET_CONTROL 0xcf9
#define RESET_CPU 4
#define SLEEP_ENABLE 0x20
#define S5 5
#define RTC_DATA 0x71
#define NO_UPDATE 0x26

static enum mc_vmm_end write_port(const struct mc_exit *e)
{
	uint8_t value = (uint8_t)e->value;

	switch (e->address) {
	case I8042_COMMAND:
		return value == I8042_RESET ? MC_VMM_RESET : MC_VMM_RUNS;
	case SYSTEM_CONTROL:
		return value & 1 ? MC_VMM_RESET : MC_VMM_RUNS;
	case RESET_CONTROL:
		return value & RESET_CPU ? MC_VMM_RESET : MC_VMM_RUNS;
	case MC_SLEEP_CONTROL:
		return value & SLEEP_ENABLE && (value >> 2 & 7) == S5 ? MC_VMM_POWEROFF : MC_VMM_RUNS;
	}
	return MC_VMM_RUNS;
}

enum mc_vmm_end mc_vmm_port(struct mc_exit *e)
{
	if (e->write)
		return write_port(e);
	switch (e->address) {
	case I8042_COMMAND: /* nothing to read, ready for a command */
	case RESET_CONTROL:
	case MC_SLEEP_CONTROL:
	case MC_SLEEP_STATUS:
		e->value = 0;
		break;
	case SYSTEM_CONTROL:
		e->value = A20;
		break;
	case RTC_DATA:
		e->value = NO_UPDATE;
		break;
	}
	return MC_VMM_RUNS;
}
