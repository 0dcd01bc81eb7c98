/* SPDX-License-Identifier: GPL-3.0-or-later
 * clone.c: see clone.h. The child returns from the system call on another stack, so the call cannot be written in C. */
#include "plan/clone.h"

#if defined(__x86_64__)
__asm__(".text\n.type mc_clone3_call,@function\n.hidden mc_clone3_call\n.globl mc_clone3_call\n"
	"mc_clone3_call:\n"
	"	mov %rdx, %r8\n"      /* the kernel keeps r8 and r9, not rcx and r11 */
	"	mov %rcx, %r9\n"
	"	mov $435, %eax\n"     /* __NR_clone3 */
	"	syscall\n"
	"	test %rax, %rax\n"
	"	jnz 1f\n"
	"	xor %ebp, %ebp\n"
	"	mov %r9, %rdi\n"
	"	call *%r8\n"
	"	mov %eax, %edi\n"
	"	mov $60, %eax\n"      /* __NR_exit */
	"	syscall\n"
	"	hlt\n"
	"1:	ret\n"
	".size mc_clone3_call, .-mc_clone3_call\n");
#elif defined(__aarch64__)
__asm__(".text\n.type mc_clone3_call,%function\n.hidden mc_clone3_call\n.globl mc_clone3_call\n"
	"mc_clone3_call:\n"
	"	mov x8, #435\n"
	"	svc #0\n"
	"	cbz x0, 1f\n"
	"	ret\n"
	"1:	mov x29, #0\n"
	"	mov x0, x3\n"
	"	blr x2\n"
	"	mov x8, #93\n"
	"	svc #0\n"
	"	brk #0\n"
	".size mc_clone3_call, .-mc_clone3_call\n");
#endif
