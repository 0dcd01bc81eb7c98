/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * triple-fault: an exception that cannot be delivered, nor the double fault that follows: the processor shuts down,
 * and a PC would reset. Protected mode, ELF. Ends with KVM_EXIT_SHUTDOWN.
 */
	.code32
	.globl _start
_start:
	lidt	nothing                 /* from here on no exception has a handler      */
	ud2                             /* raises the exception #UD                     */
	hlt

nothing:
	.word	0                       /* the table's last byte: it holds no gate      */
	.long	0
