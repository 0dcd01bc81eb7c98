/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * mmio-nowhere: writes and reads a word at an address with neither memory nor a device, and prints the word that
 * it has read: the write is lost, the read returns all ones. Protected mode, ELF. Ends with HLT, interrupts off.
 */
#include "guest.h"

#define NOWHERE 0xd0000000      /* a PC has no memory between 3 and 4 GiB       */

	.code32
	.globl _start
_start:
	cld
	movl	$0x12345678, NOWHERE    /* leaves the guest: KVM_EXIT_MMIO              */
	mov	NOWHERE, %ebx           /* leaves it again: KVM_EXIT_MMIO               */

	mov	$digits, %edi
	mov	$8, %ecx
digit:
	rol	$4, %ebx                /* the highest four bits become the lowest      */
	mov	%bl, %al
	and	$0xf, %al
	add	$'0', %al
	cmp	$'9', %al
	jbe	1f
	add	$('a' - '9' - 1), %al   /* ten is a                                     */
1:	stosb                           /* al to edi; edi + 1                           */
	loop	digit                   /* ecx - 1; until it is 0                       */

	mov	$message, %esi
	mov	$(end - message), %ecx
	mov	$SERIAL, %edx
	rep	outsb                   /* ecx bytes from esi on to port dx             */
	hlt

	.data
message:
	.ascii "Read "
digits:
	.ascii "????????.\n"
end:
