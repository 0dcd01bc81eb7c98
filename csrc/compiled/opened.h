/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/opened.h: the descriptors that a child gets, which are closed after its clone.
 */
#ifndef MC_COMPILED_OPENED_H
#define MC_COMPILED_OPENED_H

#include "compiled/compiled.h"

#define ABOVE_STREAMS 3
#define ABOVE_PLAN 6 /* the numbers that a plan gives to init, its report and its filter end before it */
#define KEPT 14

struct opened {
	int fds[KEPT], count;
};

/* Moves a descriptor, which may be -errno, to a number that no dup3 of the plan overwrites. Returns it, or -errno. */
int opened_keep(struct opened *o, long fd, uint64_t least, int is_ours);
/* Bytes of the payload as a sealed memfd. */
int opened_sealed(struct opened *o, const char *name, const struct mc_compiled *c, struct mc_span bytes);
void opened_close(struct opened *o);

#endif
