/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * pio-storm: writes to a port without a device, for ever: as many exits as possible. A limit of time or of exits
 * ends it. Real mode, flat, at 0x1000.
 */
#define NOWHERE 0x1234

	.code16
	.globl _start
_start:
	mov	$NOWHERE, %dx
1:	out	%al, %dx
	jmp	1b
