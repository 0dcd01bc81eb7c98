/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * hello32: a line on the serial port. Protected mode: 32 bits, segments from 0 to 4 GiB, no paging. ELF for i386, so
 * that a debugger knows its symbols. Ends with HLT, interrupts off.
 */
#include "guest.h"

	.code32
	.globl _start
_start:
	cld                     /* lodsb increments the address                         */
	mov	$message, %esi
	mov	$SERIAL, %edx
next:
	lodsb                   /* al = the byte at esi; esi + 1                        */
	test	%al, %al        /* 0 is the end                                         */
	jz	done
	out	%al, %dx
	jmp	next
done:
	hlt

message:
	.asciz "Hello from protected mode.\n"
