/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * hello64: a line on the serial port. Long mode: 64 bits, with paging, which is mandatory: an identity map of all
 * addresses. ELF for x86_64. Ends with HLT, interrupts off.
 */
#include "guest.h"

	.code64
	.globl _start
_start:
	cld                     /* lodsb increments the address                         */
	lea	message(%rip), %rsi     /* relative to rip */
	mov	$SERIAL, %edx
next:
	lodsb                   /* al = the byte at rsi; rsi + 1                        */
	test	%al, %al        /* 0 is the end                                         */
	jz	done
	out	%al, %dx
	jmp	next
done:
	hlt

message:
	.asciz "Hello from long mode.\n"
