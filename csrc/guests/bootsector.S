/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * bootsector: 512 bytes with the signature 55h AAh at their end, as a BIOS reads them from a disk to 0x7c00. Real
 * mode. Prints a line through the BIOS (INT 10h). Ends with CLI and HLT.
 */
#include "guest.h"

	.code16
	.globl _start
_start:
	ljmp	$0, $1f         /* some BIOSes enter at 07c0:0000: make it 0000:7c00    */
1:	xor	%ax, %ax
	mov	%ax, %ds
	cld
	mov	$message, %si
next:
	lodsb                   /* al = the byte at ds:si; si + 1                       */
	test	%al, %al        /* 0 is the end                                         */
	jz	done
	mov	$0x0e, %ah      /* teletype: print al                                   */
	xor	%bx, %bx        /* on page 0                                            */
	int	$0x10
	jmp	next
done:
	cli                     /* a real PC's timer would end a HLT                    */
	hlt
	jmp	done

message:
	.asciz "Hello from a boot sector.\r\n"

	.org	510             /* zeros up to there                                    */
	.byte	0x55, 0xaa
