/* SPDX-License-Identifier: GPL-3.0-or-later
 * walk.h: internal interfaces of the files that walk a plan. */
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

/* An argument as the system call takes it: an immediate, an address, or a descriptor. */
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

/* walk.c: mc_plan_walk() and mc_plan_walk_from() return it at MC_FORK (the step run->at), which the caller performs. */
#define MC_FORKS 1

/* spawn.c: as mc_plan_walk(), but performs MC_FORK: a sibling walks the rest. Returns when the sibling has exec'd or
 * ended. */
int mc_plan_walk_and_fork(struct mc_run *run);

/* program.c: execve in a child of this thread; waits for its end. Returns 0, or -errno: -ECHILD if the program did not
 * exit with 0. */
long mc_run_program(const char *path, const char **argv, int stderr_fd);

/* netlink.c: sends a message of netlink(7) and receives its acknowledgement: 0, or -errno. `offsets` packs four offsets
 * of 16 bits, 0 for none: numbers[0] is written to the first, numbers[1] to the others. */
long mc_netlink(int sock, const char *message, uint64_t length, const int32_t numbers[2], uint64_t offsets);
long mc_end_flows(int sock, const char *message, uint64_t length);
long mc_if_index(const char *name);
long mc_comment_out(int directory, uint64_t offset);

/* packet.c: a packet(7) socket (SOCK_RAW) for the frames of the interface of a name, with a struct virtio_net_hdr
 * before each (PACKET_VNET_HDR). Returns a descriptor, or -errno. */
long mc_packet_socket(const char *interface);

/* mountpoint.c: opens a path below the root (O_PATH). Missing directories are created; a missing last component becomes
 * a file if `is_file`. Returns a descriptor, or -errno. */
long mc_mount_point(const char *path, int is_file);

/* exec.c: `path` is the first of `count` consecutive strings. mc_exec() returns -errno, or not at all. With `inspect`
 * it inspects the executable after a failure; without, mc_program_inspect() has done so before. -EBUSY: another process
 * has a lease on the executable (F_SETLEASE). */
long mc_exec(const char *path, uint32_t count, const char **argv, const char **envp, struct mc_program *program,
	     int inspect);
int mc_program_inspect(const char *path, uint32_t count, struct mc_program *program);

/* exec.c: chdir(2). -EXDEV: the path leads outside the root. */
long mc_enter_directory(const char *path);

void mc_string_table(const char **table, const char *list, uint64_t count);

#endif
