/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * hello: a line on the serial port. Real mode: 16 bits, the mode after a reset. Flat: these bytes are
 * loaded at 0x1000 and entered there, every segment register 0. Ends with HLT.
 */
#include "guest.h"

	.code16
	.globl _start
_start:
	cld                     /* lodsb increments the address                         */
	mov	$message, %si
	mov	$SERIAL, %dx
next:
	lodsb                   /* al = the byte at ds:si; si + 1                       */
	test	%al, %al        /* 0 is the end                                         */
	jz	done
	out	%al, %dx        /* leaves the guest: KVM_EXIT_IO                        */
	jmp	next
done:
	hlt                     /* leaves the guest for the last time: KVM_EXIT_HLT     */

message:
	.asciz "Hello from real mode.\n"
