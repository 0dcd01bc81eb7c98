/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * exits: for benchmarks. Writes a byte to a port N times. It reads N from port 0x510 (32 bits) and the port's number
 * from 0x514 (16 bits): a device supplies them; without one, both are all ones. Real mode, flat, at 0x1000. Ends with
 * HLT.
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
	jecxz	done            /* N is 0                                               */
next:
	out	%al, %dx        /* one exit                                             */
	dec	%ecx
	jnz	next
done:
	hlt
