/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * interrupts.h: macros for guests in protected mode that handle device interrupts through the two 8259A interrupt
 * controllers of a PC (Intel's 8259A data sheet). Device lines 0 to 7 are vectors 0x20 to 0x27: the first 32 vectors
 * are the processor's exceptions.
 */
#ifndef MC_INTERRUPTS_H
#define MC_INTERRUPTS_H

#define PIC1 0x20            /* command port; data port is the next: lines 0 to 7                    */
#define PIC2 0xa0            /* lines 8 to 15                                                        */
#define VECTOR 0x20          /* of line 0                                                            */
#define END_OF_INTERRUPT 0x20 /* command: allows the next interrupt                                  */
#define INTERRUPT_GATE 0x8e00 /* present, 32 bits, interrupts off in the handler (Intel SDM 3, "IDT Descriptors") */

#define IDT_SIZE (8 * (VECTOR + 8))

/* Sets the gate of a device line in the table `idt`: low half of the address, selector, type, high half. */
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

/* Programs the controllers to enable one line only: four initialisation words, then the mask. */
	.macro PIC_ONLY line
	PUT	0x11, PIC1              /* ICW1: start; edge triggered, two controllers, ICW4 follows */
	PUT	VECTOR, PIC1 + 1        /* ICW2: the vector of its line 0               */
	PUT	0x04, PIC1 + 1          /* ICW3: the second controller is on line 2     */
	PUT	0x01, PIC1 + 1          /* ICW4: x86                                    */
	PUT	(0xff - (1 << \line)), PIC1 + 1 /* OCW1: a set bit masks a line          */
	PUT	0xff, PIC2 + 1          /* and all lines of the second controller       */
	.endm

/* IRET in two steps: restores the flags, which enables interrupts, then a far return that removes the flags from the
 * stack. Where KVM emulates privileged code, it supports IRET in real mode only. */
	.macro RETURN
	push	8(%esp)
	popf
	lret	$4
	.endm

#endif
