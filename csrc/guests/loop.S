/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * loop: never leaves the processor. Only a time limit or a signal ends it. Real mode, flat, at 0x1000.
 */
	.code16
	.globl _start
_start:
	jmp	_start
