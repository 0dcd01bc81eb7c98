/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * start.h: the entry point of programs without libc. The kernel stores argc, argv and the environment on the stack,
 * which the ABI requires to be aligned at a call. `function` gets the address of argc, and never returns.
 */
#ifndef MC_HELPERS_START_H
#define MC_HELPERS_START_H

#ifdef __x86_64__
#define MC_START(function) \
	__asm__(".globl _start\n_start:\n" \
		"	mov %rsp, %rdi\n	and $-16, %rsp\n	call " #function "\n	hlt\n")
#else
#define MC_START(function) __asm__(".globl _start\n_start:\n	mov x0, sp\n	bl " #function "\n	brk #0\n")
#endif

#endif
