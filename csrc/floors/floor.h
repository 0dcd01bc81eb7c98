/* SPDX-License-Identifier: GPL-3.0-or-later
 * floor.h: shared by floor.c (the parent side) and floorchild.c. */
#ifndef MC_FLOOR_H
#define MC_FLOOR_H

#include "plan/syscalls.h"

#define MANY 32
#define FDCWD MC_FD(AT_FDCWD)

struct floor {
	const char *rootfs, *program;
	const char *masked[MANY], *read_only[MANY]; /* masked: "d/PATH" or "f/PATH" */
	const char *ping[2];                        /* values for ping_group_range, if any */
	char id[16];                                /* 12 digits, also the container's hostname */
	int streams[3];
	int init, report; /* csrc/helpers/init.c, which is executed first, and its report */
};

/* For child and parent: a failure ends the program. */
static inline long must(long result)
{
	if (result < 0)
		mc_sys1(SYS_exit_group, 120);
	return result;
}

#define CALL(nr, a, b, c, d, e) \
	must(mc_sys5(SYS_##nr, (uint64_t)(a), (uint64_t)(b), (uint64_t)(c), (uint64_t)(d), (uint64_t)(e)))

/* The main function of the child for clone3; `arg` is a struct floor. */
int floor_child(void *arg);

#endif
