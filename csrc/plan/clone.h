/* SPDX-License-Identifier: GPL-3.0-or-later
 * clone.h: clone3 for a child on a stack of its own, which C cannot express. */
#ifndef MC_CLONE_H
#define MC_CLONE_H

#include <linux/sched.h>
#include <stddef.h>

/* clone3(2): the child calls fn(arg) on the stack of `args`, and exits with its result. */
long mc_clone3_call(struct clone_args *args, size_t size, int (*fn)(void *), void *arg);

#endif
