/* SPDX-License-Identifier: GPL-3.0-or-later
 * walk.h: what the parts of the walk owe each other. */
#ifndef MC_WALK_H
#define MC_WALK_H

#include "plan/native.h"
#include "plan/syscalls.h"

static inline const struct mc_step *step_at(const struct mc_plan *plan, uint32_t i)
{
	return (const struct mc_step *)(plan + 1) + i;
}

static inline enum mc_kind kind_of(const struct mc_step *s, int i)
{
	return (s->kinds >> (2 * i)) & 3;
}

/* An argument as the kernel takes it. */
static inline uint64_t value(const struct mc_run *run, const struct mc_step *s, int i)
{
	switch (kind_of(s, i)) {
	case MC_BYTES:
		return MC_PTR((const char *)run->plan + s->arg[i]);
	case MC_SLOT:
		return MC_FD(run->slots[s->arg[i]]);
	default:
		return s->arg[i];
	}
}

/* walk.c, from mc_plan_walk() and mc_plan_walk_from(): the step at run->at is MC_FORK, which the caller carries out. */
#define MC_FORKS 1

/* spawn.c: mc_plan_walk(), in which MC_FORK clones a sibling that walks on; returns once that has exec'd or ended. */
int mc_plan_walk_forking(struct mc_run *run);

/* program.c: execve in a child of this thread's, which is waited for; `said` is its stderr. 0, or -errno: -ECHILD where
 * it ended otherwise than with 0. */
long mc_run_program(const char *path, const char **argv, int said);

/* netlink.c: a message of netlink(7), and its answer: 0, or -errno. `places` are four offsets of 16 bits, 0 for none: at the
 * first goes numbers[0], at the others numbers[1]. */
long mc_netlink(int sock, const char *message, uint64_t length, const int32_t numbers[2], uint64_t places);
long mc_end_flows(int sock, const char *request, uint64_t length);
long mc_if_index(const char *name);
long mc_forget(int directory, uint64_t offset);

/* mountpoint.c: a descriptor (O_PATH) of a path below the root, with what of it was missing made: directories, and where
 * `is_file` says so at its end a file. */
long mc_mount_point(const char *path, int is_file);

/* exec.c: `path` is the first of `count` strings, one behind the other; returns -errno, or not at all. What stood in the
 * way is looked at when it failed (`look`), or was before, by mc_look(). -EBUSY: somebody has a lease of it. */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program, int look);
int mc_look(const char *path, uint32_t count, struct mc_program *program);
void mc_strings(const char **table, const char *list, uint64_t count);

#endif
