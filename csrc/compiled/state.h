/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * compiled/state.h: what resources.c uses: the state directory, ownership, ranges of ids, and the cgroup.
 */
#ifndef MC_COMPILED_STATE_H
#define MC_COMPILED_STATE_H

#include "compiled/compiled.h"

/* state.c */
long make_directories(const char *path); /* 0, or -errno */
long open_lock_file(const char *path);
void join_path(char *path, size_t size, const char *directory, const char *name);
int state_mark(const struct mc_compiled *c, char mark[12]); /* 0, or FAILED and a message */

/* ids.c */
int ids_take(struct runner *r);
void ids_release(struct runner *r);

/* group.c */
int group_make(struct runner *r, const char *mark);
int group_remove(struct runner *r);

#endif
