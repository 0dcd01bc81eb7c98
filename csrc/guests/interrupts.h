/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * interrupts.h: macros for guests in protected mode that take interrupts of devices by the two 8259A interrupt
 * controllers of a PC (Intel's 8259A data sheet). Device lines 0 to 7 come as vectors 0x20 to 0x27: the first 32 are
 * the processor's own exceptions.
 */
#ifndef MC_INTERRUPTS_H
#define MC_INTERRUPTS_H

#define PIC1 0x20            /* command port; data port is the next: lines 0 to 7                    */
#define PIC2 0xa0            /* lines 8 to 15                                                        */
#define VECTOR 0x20          /* of line 0                                                            */
#define END_OF_INTERRUPT 0x20 /* command: the next one may come                                      */
#define INTERRUPT_GATE 0x8e00 /* present, 32 bits, interrupts off in the handler (Intel SDM 3, "IDT Descriptors") */

#define IDT_SIZE (8 * (VECTOR + 8))

/* A gate of the table `idt`, for a device line: the handler's address is in two halves around selector and type. */
	.macro GATE line, handler
	mov	$\handler, %eax
	mov	%ax, idt + 8 * (VECTOR + \line)
	movw	$CODE, idt + 8 * (VECTOR + \line) + 2
	movw	$INTERRUPT_GATE, idt + 8 * (VECTOR + \line) + 4
	shr	$16, %eax
	mov	%ax, idt + 8 * (VECTOR + \line) + 6
	.endm

	.macro PUT value, port
	mov	$\value, %al
	out	%al, $\port
	.endm

/* Programs the controllers so that only one line comes through: four initialisation words, then the mask. */
	.macro PIC_ONLY line
	PUT	0x11, PIC1              /* ICW1: begin; edge triggered, two controllers, ICW4 follows */
	PUT	VECTOR, PIC1 + 1        /* ICW2: the vector of its line 0               */
	PUT	0x04, PIC1 + 1          /* ICW3: the second controller is on line 2     */
	PUT	0x01, PIC1 + 1          /* ICW4: x86                                    */
	PUT	(0xff - (1 << \line)), PIC1 + 1 /* OCW1: a set bit keeps a line out      */
	PUT	0xff, PIC2 + 1          /* and nothing of the second controller's       */
	.endm

/* What IRET does, in two steps: the flags, which let interrupts in again, then a far return that drops what lies above
 * the stack's eip and cs: those flags. Where KVM interprets privileged code, it knows IRET in real mode alone. */
	.macro RETURN
	push	8(%esp)
	popf
	lret	$4
	.endm

#endif
