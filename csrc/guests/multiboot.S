/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * multiboot: prints its command line, and the text and content of each module, as a loader by the Multiboot
 * Specification hands them over: of version 2 by default, of version 1 with --mode multiboot. Protected mode, 32 bits,
 * no paging. Ends with HLT.
 */
#include "guest.h"

#define HEADER1 0x1badb002
#define HEADER2 0xe85250d6
#define LOADED1 0x2badb002 /* in eax                                                                 */
#define LOADED2 0x36d76289

/* Types of the tags of version 2's information. */
#define TAG_END 0
#define TAG_COMMAND_LINE 1
#define TAG_MODULE 3

	.code32
	.globl _start

	.balign 8
header2:
	.long	HEADER2, 0, header2_end - header2, -(HEADER2 + header2_end - header2)
	.short	0, 0            /* the last tag                                         */
	.long	8
header2_end:
	.balign 4
	.long	HEADER1, 0, -HEADER1

_start:
	mov	$stack, %esp
	cld
	mov	$SERIAL, %edx
	cmp	$LOADED2, %eax
	je	version2
	cmp	$LOADED1, %eax
	je	version1
	mov	$stranger, %esi
	call	print
	hlt

version1:
	mov	$one, %esi
	call	print
	mov	16(%ebx), %esi  /* cmdline                                              */
	call	print_line
	mov	20(%ebx), %ebp  /* mods_count                                           */
	mov	24(%ebx), %ebx  /* mods_addr                                            */
next_module:
	test	%ebp, %ebp
	jz	done
	mov	8(%ebx), %esi   /* string                                               */
	mov	(%ebx), %edi    /* mod_start                                            */
	mov	4(%ebx), %ecx   /* mod_end                                              */
	call	print_module
	add	$16, %ebx
	dec	%ebp
	jmp	next_module

version2:
	mov	$two, %esi
	call	print
	add	$8, %ebx        /* the first tag: type, size, content                   */
next_tag:
	mov	(%ebx), %eax
	cmp	$TAG_END, %eax
	je	done
	cmp	$TAG_COMMAND_LINE, %eax
	jne	1f
	lea	8(%ebx), %esi
	call	print_line
1:	cmpl	$TAG_MODULE, (%ebx)
	jne	2f
	lea	16(%ebx), %esi
	mov	8(%ebx), %edi
	mov	12(%ebx), %ecx
	call	print_module
2:	mov	4(%ebx), %eax
	add	$7, %eax        /* tags are aligned to 8 bytes                          */
	and	$-8, %eax
	add	%eax, %ebx
	jmp	next_tag

done:
	hlt

/* The string at esi, as a line. */
print_line:
	call	print
	mov	$'\n', %al
	out	%al, %dx
	ret

/* The string at esi, and the bytes from edi to ecx. */
print_module:
	call	print
	push	%ecx
	mov	$colon, %esi
	call	print
	pop	%ecx
	mov	%edi, %esi
1:	cmp	%ecx, %esi
	jae	2f
	lodsb
	out	%al, %dx
	jmp	1b
2:	ret

/* The string at esi. */
print:
	lodsb
	test	%al, %al
	jz	1f
	out	%al, %dx
	jmp	print
1:	ret

one:
	.asciz "multiboot: "
two:
	.asciz "multiboot2: "
colon:
	.asciz ": "
stranger:
	.asciz "not loaded by multiboot\n"

	.bss
	.balign 16
	.space 4096
stack:
