/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * bios: the part of a PC's firmware that a boot sector needs to print. It is not a guest: it is loaded at F000:0000
 * beside a boot sector, and the interrupt vectors at address 0 point to it (minicontainer/kvm/boot/flat.py). Real mode.
 *
 * INT 10h, AH = 0Eh: prints AL ("teletype"), here to the serial port. INT 10h with another AH: does nothing. Every
 * other interrupt: returns with the carry flag set, a BIOS's "error". All registers are preserved.
 */
#include "guest.h"

	.code16
	.globl _start
_start:
	.word	video           /* two words: the handler of INT 10h, and that of all other interrupts */
	.word	other

video:
	cmp	$0x0e, %ah
	jne	1f
	push	%dx
	mov	$SERIAL, %dx
	out	%al, %dx
	pop	%dx
1:	iret

/* INT has pushed the flags, cs and ip; IRET pops them. So the carry flag is set in the flags on the stack. */
other:
	push	%bp
	mov	%sp, %bp
	orb	$1, 6(%bp)      /* above bp: bp itself, ip, cs, flags                   */
	pop	%bp
	iret
