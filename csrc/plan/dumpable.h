/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * dumpable.h: dumpable is a property of the memory, which the child shares: a change of ids or a join of namespaces there
 * makes the caller undumpable too. The last spawn to end puts it back. (A program of ours that nobody traces has nothing
 * to put back.)
 */
#ifndef MC_DUMPABLE_H
#define MC_DUMPABLE_H

void mc_dumpable_save(void);
void mc_dumpable_restore(void);

#endif
