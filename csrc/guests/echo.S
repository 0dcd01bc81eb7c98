/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * echo: sends back each byte that it receives by the serial port; a carriage return (Enter) with a line feed. Sleeps
 * until the port interrupts. Protected mode, with interrupts: it requests interrupt controllers in its note. Ends
 * with 0 by the debug-exit port when it receives Ctrl-D (04h).
 */
#include "guest.h"
#include "interrupts.h"

#define LINE 4                  /* the first serial port's interrupt                    */
#define IER_RECEIVED 1          /* 16550: interrupt when a byte was received            */
#define MCR_OUT2 8              /* enables its interrupt line on a PC                   */
#define LSR_READY 1             /* a byte was received                                  */
#define CTRL_D 4

	NOTE(IRQCHIP, 1)

	.code32
	.globl _start
_start:
	cld
	mov	$message, %esi
	mov	$(end - message), %ecx
	mov	$SERIAL, %edx
	rep	outsb                   /* ecx bytes from esi on to port dx             */

	GATE	LINE, received
	lidt	idtr
	PIC_ONLY LINE
	mov	$SERIAL_MCR, %edx
	mov	$MCR_OUT2, %al
	out	%al, %dx
	mov	$SERIAL_IER, %edx       /* interrupts for bytes received earlier, too   */
	mov	$IER_RECEIVED, %al
	out	%al, %dx
	sti
sleep:
	hlt
	jmp	sleep

/* Reads all received bytes: the line is edge triggered, and must fall before it can rise again. */
received:
	push	%eax
	push	%edx
next:
	mov	$SERIAL_LSR, %edx
	in	%dx, %al
	test	$LSR_READY, %al
	jz	empty
	mov	$SERIAL, %edx
	in	%dx, %al
	cmp	$CTRL_D, %al
	je	finish
	out	%al, %dx
	cmp	$'\r', %al
	jne	next
	mov	$'\n', %al
	out	%al, %dx
	jmp	next
empty:
	PUT	END_OF_INTERRUPT, PIC1
	pop	%edx
	pop	%eax
	RETURN

finish:
	PUT	0, DEBUG_EXIT           /* the machine ends here                        */
	cli
	hlt

	.data
message:
	.ascii "Type, and it comes back. Ctrl-D ends.\r\n"
end:
idtr:
	.word	IDT_SIZE - 1            /* the table's last byte                        */
	.long	idt                     /* and its address                              */

	.bss
	.balign 8
idt:
	.skip	IDT_SIZE
