/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * guest.h: shared by guests in assembly and in C: the ports of the machine, and the note with which an ELF guest
 * requests features (read by minicontainer/kvm/boot/elf.py).
 */
#ifndef MC_GUEST_H
#define MC_GUEST_H

#define SERIAL 0x3f8         /* 16550: the data register; a write transmits the byte                 */
#define SERIAL_IER (SERIAL + 1) /* interrupt enable register                                        */
#define SERIAL_MCR (SERIAL + 4) /* modem control register                                           */
#define SERIAL_LSR (SERIAL + 5) /* line status register                                             */
#define DEBUG_EXIT 0xf4      /* the byte written there is the machine's exit code                    */

/* Selectors of the initial descriptor table (minicontainer/kvm/x86.py). */
#define CODE 0x10
#define DATA 0x18

/* Flags of the note. */
#define IRQCHIP 1            /* interrupt controllers and timer                                      */
#define USER64 2             /* enter the guest at CPL 3, with I/O privilege level 3: it may use ports */

/* An ELF note (elf(5)): sizes of name and content, type; name, content. */
#define NOTE_TEXT(flags, cpus) \
	.pushsection .note.minicontainer, "a", @note; \
	.balign 4; \
	.long 14, 8, 1; \
	.asciz "minicontainer"; \
	.balign 4; \
	.long flags, cpus; \
	.popsection

#ifdef __ASSEMBLER__
#define NOTE(flags, cpus) NOTE_TEXT(flags, cpus)
#else
#define MC_STRING(...) #__VA_ARGS__
#define MC_EXPAND(...) MC_STRING(__VA_ARGS__)
#define NOTE(flags, cpus) __asm__(MC_EXPAND(NOTE_TEXT(flags, cpus)))
#endif

#endif
