/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * vmexec.h: the contract between Python and the program that stands for a process of `exec` in a machine (main.c).
 */
#ifndef MC_VMEXEC_H
#define MC_VMEXEC_H

/* CDEF BEGIN */
/* Its descriptors, beside the three streams: connections to the guest. */
#define MC_VMEXEC_CONTROL_FD 3 /* frames of guest/control.h, from STARTED on                            */
#define MC_VMEXEC_STREAM_FD 4  /* stdin, and behind it stdout and stderr; with a terminal no stderr     */
/* CDEF END */

#endif
