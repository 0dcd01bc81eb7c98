/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * self-modifying: runs a function, changes an instruction of it, and runs it again: it prints which version ran. A
 * processor, or an emulator, must discard the instruction that it had decoded. Real mode, flat, at 0x1000. Ends with
 * HLT.
 */
#include "guest.h"

	.code16
	.globl _start
_start:
	cld
	call	version
	movb	$'2', patched + 1       /* the instruction's second byte is its operand */
	call	version
	hlt

version:
patched:
	mov	$'1', %al               /* b0 31                                        */
	mov	%al, digit
	mov	$message, %si
	mov	$(end - message), %cx
	mov	$SERIAL, %dx
	rep	outsb                   /* cx bytes from ds:si on to port dx            */
	ret

message:
	.ascii "Version "
digit:
	.ascii "? ran.\n"
end:
