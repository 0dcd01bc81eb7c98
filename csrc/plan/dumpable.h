/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * dumpable.h: the dumpable attribute (PR_SET_DUMPABLE) belongs to the memory, which the child shares: when the child
 * changes its ids or joins a namespace, the caller becomes undumpable too. The last of concurrent spawns restores the
 * attribute.
 */
#ifndef MC_DUMPABLE_H
#define MC_DUMPABLE_H

void mc_dumpable_save(void);
void mc_dumpable_restore(void);

#endif
