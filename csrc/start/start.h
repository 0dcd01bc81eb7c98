/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * start.h: what a start does around the walk of its plan: facts about the caller, the container's ownership lock and
 * cgroup, and the end of both. csrc/build.py passes the part between the CDEF marks to cffi. Raw system calls only.
 */
#ifndef MC_START_H
#define MC_START_H

#include "plan/native.h"

/* CDEF BEGIN */

/* What a compiled plan depends on, beside its spec: equal bytes, equal facts. */
struct mc_caller {
	uint64_t root[2];       /* device and inode of "/"                                           */
	uint64_t rootfs[2];     /* of the container's root directory                                 */
	uint64_t userns;        /* inode of the caller's user namespace                              */
	uint32_t mode;          /* st_mode of the root directory                                     */
	uint32_t owner[2];      /* its user and group                                                */
	uint32_t ids[2];        /* the caller's effective user and group                             */
	int32_t error;          /* -errno of a call: the facts are unknown                           */
	int32_t foreign;        /* /proc is of another pid namespace                                 */
	int32_t reserved;
};

#define MC_ID_DIGITS 12
#define MC_CGROUP_NAME 32

/* The primitives of mc_place(), as indexes of its records. */
enum mc_placing { MC_PLACE_LOCK, MC_PLACE_MKDIR, MC_PLACE_OPEN, MC_PLACE_PIDS, MC_PLACE_DEVICES, MC_PLACINGS };

/* A container's ownership lock and cgroup. */
struct mc_place {
	const char *owners;     /* the directory of lock files; NULL: the caller holds the lock      */
	const char *pids;       /* what is written to pids.max, where there is a pids controller; or NULL */
	int32_t parent;         /* descriptor of the parent cgroup                                   */
	int32_t devices;        /* descriptor of a BPF program that decides about devices, or -1     */
	int32_t lock;           /* out: descriptors, or -1                                           */
	int32_t cgroup;
	char id[16];            /* MC_ID_DIGITS lower-case hexadecimal digits                        */
	char name[MC_CGROUP_NAME]; /* of the cgroup                                                  */
	struct mc_record records[MC_PLACINGS];
};

/* The primitives of mc_measure() and mc_finish(), as indexes of their records; and as bits: the files that exist. */
enum mc_measuring {
	MC_CPU_STAT, MC_IO_STAT, MC_MEMORY_PEAK, MC_PIDS_PEAK, MC_CPU_PRESSURE, MC_MEMORY_PRESSURE, MC_IO_PRESSURE,
	MC_WAITED, MC_REMOVED, MC_MEASURINGS
};

/* The usage of a cgroup; -1: unknown. */
struct mc_usage {
	int64_t cpu_usec, user_usec, system_usec;
	int64_t cpu_stall, memory_stall, io_stall; /* microseconds in which some process waited */
	int64_t memory_peak, pids_peak; /* bytes, processes */
	int64_t read, written;  /* bytes, of all devices */
	int32_t failed;         /* a file that could not be read, though it should exist: its number plus 1 */
	int32_t reserved;
	struct mc_record records[MC_MEASURINGS];
};

void mc_caller(const char *rootfs, struct mc_caller *out);
int mc_is_caller(const char *rootfs, const struct mc_caller *known);
int mc_lock(int fd, int type, uint64_t start, uint64_t length);
int mc_is_locked(int fd, uint64_t start);
void mc_place_like(struct mc_place *place, const struct mc_place *like, const char *id);
int mc_place(struct mc_place *place);
void mc_measure(int cgroup, uint32_t files, struct mc_usage *out);
int mc_finish(struct mc_spawn *spawn, struct mc_place *place, uint32_t files, struct mc_usage *out);
/* CDEF END */

#endif
