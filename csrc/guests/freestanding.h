/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * freestanding.h: functions for guests in C, without libc: entry point, ports, printing, exit. Long mode.
 */
#ifndef MC_FREESTANDING_H
#define MC_FREESTANDING_H

#include <stddef.h>
#include <stdint.h>

#include "guest.h"

/* The entry point: aligns the stack for a call (System V ABI for AMD64, 3.2.2). */
__asm__(".globl _start\n_start:\n	and $-16, %rsp\n	call guest_main\n	hlt\n");

static inline void out8(uint16_t port, uint8_t value)
{
	__asm__ volatile("outb %0, %1" : : "a"(value), "Nd"(port));
}

static void print(const char *text)
{
	while (*text)
		out8(SERIAL, (uint8_t)*text++);
}

static void print_number(uint64_t n)
{
	char digits[21];
	char *at = digits + sizeof(digits) - 1;

	*at = 0;
	do
		*--at = (char)('0' + n % 10);
	while (n /= 10);
	print(at);
}

/* Ends the machine with this exit code. HLT would not end every guest: it is not allowed at CPL 3. */
static _Noreturn void finish(uint8_t code)
{
	for (;;)
		out8(DEBUG_EXIT, code);
}

#endif
