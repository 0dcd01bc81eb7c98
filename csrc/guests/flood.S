/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * flood: prints without end, a line with each instruction. A limit of time or of exits ends it. Real mode, flat, at
 * 0x1000.
 */
#include "guest.h"

	.code16
	.globl _start
_start:
	cld                     /* outsb increments si                                  */
	mov	$SERIAL, %dx
1:	mov	$line, %si
	mov	$(end - line), %cx
	rep	outsb           /* cx bytes from ds:si on to port dx: one exit or cx exits */
	jmp	1b

line:
	.ascii "The quick brown fox jumps over the lazy dog; and again, and again.\n"
end:
