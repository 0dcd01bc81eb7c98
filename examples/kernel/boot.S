/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * boot.S: what C cannot say: the header by which a loader knows the kernel, a stack and segments before the first
 * function, and the way in and out of an interrupt handler.
 */

/* Multiboot Specification 0.6.96, 3.1: three words, whose sum is 0, in the first 8 KiB of the file. kernel.ld puts them
 * in front of the code. */
#define MAGIC 0x1badb002
#define MEMORY_INFO 2           /* flag: a loader that cannot say which memory there is must refuse */

	.section .multiboot, "a"
	.balign 4
	.long	MAGIC, MEMORY_INFO, -(MAGIC + MEMORY_INFO)

/* 3.2: the loader enters here in protected mode, without paging and with interrupts off. EAX has its magic number,
 * EBX the address of what it tells the kernel. There is no stack, and its descriptor table may be gone. */
#define CODE 0x08               /* the second descriptor of the table below             */
#define DATA 0x10

	.text
	.code32
	.globl	_start
_start:
	lgdt	gdtr
	ljmp	$CODE, $1f              /* a far jump loads CS                          */
1:	mov	$DATA, %ecx
	mov	%ecx, %ds
	mov	%ecx, %es
	mov	%ecx, %ss
	mov	$stack - 8, %esp        /* 16-byte aligned after two arguments (System V ABI for i386, 2.2.2) */
	cld
	push	%ebx
	push	%eax
	call	kernel                  /* kernel.c; it does not return                 */

/* The entry of an interrupt handler: C may change any register, and what was interrupted must not notice. The
 * processor has pushed EFLAGS, CS and EIP, and has disabled interrupts. IRET would restore all three at once; but a KVM
 * that interprets privileged code knows IRET in real mode only (Linux arch/x86/kvm/emulate.c, em_iret). So POPF
 * restores EFLAGS, and a far return the rest. */
	.macro	HANDLER name, function
	.globl	\name
\name:
	pusha
	cld
	call	\function
	popa
	push	8(%esp)
	popf
	lret	$4                      /* and removes EFLAGS from the stack            */
	.endm

	HANDLER	timer_entry, timer
	HANDLER	serial_entry, serial

/* Two segments that span the whole address space (Intel SDM 3A, "Segment Descriptors"). */
	.section .rodata
	.balign 8
gdt:
	.quad	0
	.quad	0x00cf9b000000ffff      /* base 0, limit 4 GiB, code that can be read   */
	.quad	0x00cf93000000ffff      /* data that can be written                     */
gdtr:
	.word	gdtr - gdt - 1          /* the table's last byte                        */
	.long	gdt

	.bss
	.balign 16
	.skip	8192
stack:

	.section .note.GNU-stack, "", @progbits
