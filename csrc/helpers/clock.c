/* SPDX-License-Identifier: GPL-3.0-or-later
 *
 * clock.c: clock_gettime(2) for programs without libc.
 */
#include <time.h>

#include "plan/syscalls.h"

int clock_gettime(clockid_t clock, struct timespec *time)
{
	return (int)mc_sys2(SYS_clock_gettime, (uint64_t)clock, MC_PTR(time));
}
