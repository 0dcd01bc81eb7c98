/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * confine.h: what a thread of the monitor may still do, by its role (enum mc_vmm_role).
 */
#ifndef MC_VMM_CONFINE_H
#define MC_VMM_CONFINE_H

#include "vmm/machine.h"

/* Takes from the calling thread, for ever, what its role does not need: all system calls but those of a list, whose
 * use ends the process by SIGSYS; and capabilities, unless the role keeps them. It also names the thread. Returns 0, or
 * -errno: then it must not go on. */
int mc_confine(enum mc_vmm_role role);

/* How many system calls a role keeps. */
uint32_t mc_confine_calls(enum mc_vmm_role role);

#endif
