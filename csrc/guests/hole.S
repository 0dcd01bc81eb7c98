/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * hole: jumps to an address with neither memory nor a device. Protected mode, ELF. KVM can fetch no instruction from
 * there, and gives up: KVM_EXIT_INTERNAL_ERROR.
 */
#define HOLE 0xd0000000         /* a PC has no memory between 3 and 4 GiB       */

	.code32
	.globl _start
_start:
	mov	$HOLE, %eax
	jmp	*%eax
