/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * timer: lets the 8254 timer tick a hundred times a second, sleeps from tick to tick, and prints how many it has
 * counted: 10. Protected mode, with interrupts: it requests interrupt controllers in its note. Ends with CLI and
 * HLT.
 */
#include "guest.h"
#include "interrupts.h"

#define LINE 0                  /* the timer's interrupt                                */
#define TICKS 10
#define PIT_COMMAND 0x43
#define PIT_CHANNEL0 0x40
#define PIT_RATE 0x34           /* channel 0, low then high byte, mode 2 (rate generator) */
#define DIVISOR 11932           /* of 1,193,182 Hz: 100 Hz                              */

	NOTE(IRQCHIP, 1)

	.code32
	.globl _start
_start:
	cld
	GATE	LINE, tick
	lidt	idtr
	PIC_ONLY LINE
	PUT	PIT_RATE, PIT_COMMAND
	PUT	(DIVISOR & 0xff), PIT_CHANNEL0
	PUT	(DIVISOR >> 8), PIT_CHANNEL0

/* STI takes effect after the next instruction: no tick can arrive between it and HLT, and be missed. */
wait:
	sti
	hlt
	cli
	cmpl	$TICKS, ticks
	jb	wait

	mov	ticks, %eax
	mov	$10, %bl
	div	%bl                     /* al = ax / 10, ah = the rest                  */
	add	$0x3030, %ax            /* both as ASCII digits                         */
	mov	%ax, message
	mov	$message, %esi
	mov	$(end - message), %ecx
	mov	$SERIAL, %edx
	rep	outsb                   /* ecx bytes from esi on to port dx             */
	cli
	hlt

/* The handler of the timer interrupt. The processor has pushed flags, cs, eip, and disabled interrupts. */
tick:
	push	%eax
	incl	ticks
	PUT	END_OF_INTERRUPT, PIC1
	pop	%eax
	RETURN

	.data
message:
	.ascii "   ticks\n"
end:
	.balign 4
ticks:
	.long	0
idtr:
	.word	IDT_SIZE - 1            /* the table's last byte                        */
	.long	idt                     /* and its address                              */

	.bss
	.balign 8
idt:
	.skip	IDT_SIZE
