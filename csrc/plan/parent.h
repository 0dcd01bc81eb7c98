/* SPDX-License-Identifier: GPL-3.0-or-later
 * parent.h: the thread that walks the parent-side plan; see parent.c. */
#ifndef MC_PARENT_H
#define MC_PARENT_H

#include "plan/native.h"

/* The thread. It lies in the stack frame of the function that waits for its end. */
struct mc_thread {
	int32_t id;
	_Alignas(16) char stack[32 * 1024];
};

/* Call it before the clone, with all signals blocked. Returns 0, or -errno. */
int mc_parent_begin(struct mc_spawn *spawn, struct mc_thread *thread);

/* Call it after the clone; it returns when the thread has ended. */
void mc_parent_end(struct mc_parent *parent, struct mc_thread *thread);

#endif
