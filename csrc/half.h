/* SPDX-License-Identifier: GPL-3.0-or-later
 * half.h: the thread that does the parent's half; see half.c. */
#ifndef MC_HALF_H
#define MC_HALF_H

#include <pthread.h>

#include "native.h"

/* Before the clone, with all signals blocked: 0, or -errno. */
int mc_half_begin(struct mc_spawn *spawn, pthread_t *thread);

/* After it: returns when the thread has ended. */
void mc_half_end(struct mc_half *half, pthread_t thread);

#endif
