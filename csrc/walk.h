/* SPDX-License-Identifier: GPL-3.0-or-later
 * walk.h: what the parts of the walk owe each other. */
#ifndef MC_WALK_H
#define MC_WALK_H

#include "native.h"

static inline const struct mc_step *step_at(const struct mc_plan *plan, uint32_t i)
{
	return (const struct mc_step *)(plan + 1) + i;
}

static inline enum mc_kind kind_of(const struct mc_step *s, int i)
{
	return (s->kinds >> (2 * i)) & 3;
}

/* plan.c */
int mc_plan_walk_from(struct mc_run *run, uint32_t first);

/* spawn.c: a second child (with CLONE_PARENT of the same parent) that walks on from `first`; 0 once it has exec'd or ended. */
long mc_fork_sibling(struct mc_run *run, uint64_t flags, int cgroup, uint32_t first);

/* spawn.c: the same in a child of this thread's, which is waited for; `said` is its stderr. 0, or -errno: -ECHILD where it
 * ended otherwise than with 0. */
long mc_run_program(const char *path, const char **argv, int said);

/* exec.c: `path` is the first of `count` strings, one behind the other; returns -errno, or not at all. */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program);
void mc_strings(const char **table, const char *list, uint64_t count);

#endif
