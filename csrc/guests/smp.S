/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * smp: starts a second processor (Intel SDM volume 3, "Multiple-Processor Initialization"); each prints the id of
 * its local APIC. Protected mode, two processors: it requests them in its note. Ends when both have halted,
 * interrupts off.
 */
#include "guest.h"

#define APIC_ID 0xfee00020      /* bits 31 to 24: this processor's id                   */
#define APIC_COMMAND 0xfee00300 /* interrupt command register: writing it sends         */
#define APIC_TARGET 0xfee00310  /* its upper half, bits 31 to 24: the target's id       */
#define INIT 0x4500             /* assert, INIT: reset, and wait for a SIPI             */
#define STARTUP 0x4600          /* assert, SIPI: run from page (low byte) on            */
#define SECOND 1                /* the other processor's APIC id                        */
#define PAGE 8                  /* where it starts: below 1 MiB, since it is in real mode */
#define TRAMPOLINE (PAGE << 12)

	NOTE(IRQCHIP, 2)

	.code32
	.globl _start
_start:
	cld
	call	report
	mov	$trampoline, %esi
	mov	$TRAMPOLINE, %edi
	mov	$(trampoline_end - trampoline), %ecx
	rep	movsb                   /* ecx bytes from esi to edi                    */
	sgdt	TRAMPOLINE + gdtr - trampoline  /* both use the same descriptors         */

	movl	$(SECOND << 24), APIC_TARGET
	movl	$INIT, APIC_COMMAND     /* real hardware needs a pause of 10 ms here */
	movl	$(STARTUP | PAGE), APIC_COMMAND
wait:
	pause                           /* a hint to the processor: a spin-wait loop */
	cmpl	$0, started
	je	wait
	cli
	hlt

/* The second processor starts here: real mode, cs = PAGE * 256, ip = 0. It enters protected mode. */
	.code16
trampoline:
	cli
	mov	%cs, %ax
	mov	%ax, %ds
	lgdtl	gdtr - trampoline       /* l: all 32 bits of the address                */
	mov	%cr0, %eax
	or	$1, %al                 /* protection enable                            */
	mov	%eax, %cr0
	ljmpl	$CODE, $second          /* a new cs: from here on 32 bits               */
gdtr:
	.skip	6
trampoline_end:

	.code32
second:
	mov	$DATA, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	$stack, %esp
	cld
	call	report
	movl	$1, started
	cli
	hlt

/* Prints this processor's id. The second one is started after the first has printed, so no lock is needed. */
report:
	mov	APIC_ID, %eax
	shr	$24, %eax
	add	$'0', %al               /* as an ASCII digit                            */
	mov	%al, digit
	mov	$message, %esi
	mov	$(end - message), %ecx
	mov	$SERIAL, %edx
	rep	outsb                   /* ecx bytes from esi on to port dx             */
	ret

	.data
message:
	.ascii "This is processor "
digit:
	.ascii "0.\n"
end:
	.balign 4
started:
	.long	0

	.bss
	.balign 16
	.skip	256
stack:
