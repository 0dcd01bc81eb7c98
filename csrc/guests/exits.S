/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exits: for benchmarks. Writes a byte to a port, and that so many times. How many is read from port 0x510 (32
 * bits), which port from 0x514 (16 bits): a device has to say it; where there is none, both read as all ones. Real
 * mode, flat, at 0x1000. Ends with HLT.
 */
#define COUNT 0x510
#define PORT 0x514

	.code16
	.globl _start
_start:
	mov	$COUNT, %dx
	in	%dx, %eax
	mov	%eax, %ecx
	mov	$PORT, %dx
	in	%dx, %ax
	mov	%ax, %dx
	mov	$'.', %al
	jecxz	done            /* none at all                                          */
next:
	out	%al, %dx        /* one exit                                             */
	dec	%ecx
	jnz	next
done:
	hlt
